package directortest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// ErrInjected is the cause of the failures a Fake was told to have.
var ErrInjected = errors.New("injected failure")

// Fake is a Dataplane in memory that records the operations it was given. It is
// safe for concurrent use; its zero value holds nothing and never fails.
type Fake struct {
	mu       sync.Mutex
	state    director.State
	ops      []director.Operation
	wasted   []director.Operation
	failAt   int // the number of the operation to refuse, from 1; 0: none
	failIf   func(director.Operation) error
	found    error
	stats    director.Stats
	conns    []conntrack.Connection
	kill     error
	closed   bool
	decision director.Decision
	applies  int
	founds   int
	features director.Features
	zeroed   []director.ServiceKey
	table    fakeTable
	drops    fakeDrops
}

var _ director.Dataplane = (*Fake)(nil)

// Kill forgets the connections of SetConnections that match.
func (f *Fake) Kill(_ context.Context, filter director.ConnectionFilter) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kill != nil {
		return 0, f.kill
	}
	before := len(f.conns)
	f.conns = slices.DeleteFunc(f.conns, func(c conntrack.Connection) bool { return matches(filter, c) })
	return uint64(before - len(f.conns)), nil
}

// FailKill makes Kill return the error until it is called with nil.
func (f *Fake) FailKill(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kill = err
}

// Features returns what SetFeatures set, else those of the XDP plane.
func (f *Fake) Features() director.Features {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.features.Plane == "" {
		return director.XDPFeatures()
	}
	return f.features
}

// SetFeatures sets what Features returns; to be called before a Director is made.
func (f *Fake) SetFeatures(features director.Features) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.features = features
}

// Zero notes the key.
func (f *Fake) Zero(_ context.Context, key director.ServiceKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if key != (director.ServiceKey{}) && f.state.Service(key) < 0 {
		return director.ErrNotFound
	}
	f.zeroed = append(f.zeroed, key)
	return nil
}

// Zeroed returns the keys that Zero was called with, and forgets them.
func (f *Fake) Zeroed() []director.ServiceKey {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := f.zeroed
	f.zeroed = nil
	return keys
}

// Decide returns what SetDecision was given, for the question asked.
func (f *Fake) Decide(_ context.Context, question director.Question) (director.Decision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	decision := f.decision
	decision.Question = question
	return decision, nil
}

// SetDecision sets what Decide returns.
func (f *Fake) SetDecision(decision director.Decision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decision = decision
}

// NewFake returns a Fake that holds the state.
func NewFake(state director.State) *Fake { return &Fake{state: state.Clone()} }

// FailAt makes the n-th operation from now on fail, once; 0 makes none fail.
func (f *Fake) FailAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt = n
}

// FailIf makes the operations fail for which the function returns an error,
// with that error; nil makes none fail.
func (f *Fake) FailIf(fails func(director.Operation) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failIf = fails
}

// Meddle changes what the fake holds, as somebody else would do behind the
// director's back.
func (f *Fake) Meddle(edit func(*director.State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit(&f.state)
}

// FailFound makes Found return the error until it is called with nil.
func (f *Fake) FailFound(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found = err
}

// SetStats sets what Stats returns.
func (f *Fake) SetStats(stats director.Stats) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats = stats
}

// SetConnections sets what Connections walks over.
func (f *Fake) SetConnections(conns ...conntrack.Connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = slices.Clone(conns)
}

// Operations returns the operations that succeeded, and forgets them.
func (f *Fake) Operations() []director.Operation {
	f.mu.Lock()
	defer f.mu.Unlock()
	ops := f.ops
	f.ops = nil
	return ops
}

// Wasted returns those of the operations that changed nothing, and forgets them.
func (f *Fake) Wasted() []director.Operation {
	f.mu.Lock()
	defer f.mu.Unlock()
	ops := f.wasted
	f.wasted = nil
	return ops
}

// Applies returns how often Apply was called.
func (f *Fake) Applies() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applies
}

// Founds returns how often Found was called.
func (f *Fake) Founds() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.founds
}

// Closed reports whether Close was called.
func (f *Fake) Closed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// Found returns a copy of what the fake holds, sorted by key, the master first.
func (f *Fake) Found(context.Context) (director.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.founds++
	if f.found != nil {
		return director.State{}, f.found
	}
	state := f.state.Clone()
	slices.SortFunc(state.Services, func(a, b director.Service) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(state.Sync, func(a, b director.SyncDaemon) int { return strings.Compare(string(b.Role), string(a.Role)) })
	return state, nil
}

// Apply runs the operations in order up to the first that fails.
func (f *Fake) Apply(ctx context.Context, ops []director.Operation) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applies++
	for _, op := range ops {
		before := f.part(op)
		if err := f.run(ctx, op); err != nil {
			return &director.OperationError{Operation: op, Err: err}
		}
		f.ops = append(f.ops, op)
		if reflect.DeepEqual(before, f.part(op)) {
			f.wasted = append(f.wasted, op)
		}
	}
	return nil
}

// part returns a copy of what the operation is about.
func (f *Fake) part(op director.Operation) director.State {
	var key director.ServiceKey
	switch op := op.(type) {
	case director.AddService:
		key = op.Service.Key
	case director.EditService:
		key = op.Service.Key
	case director.RemoveService:
		key = op.Key
	case director.AddServer:
		key = op.Key
	case director.EditServer:
		key = op.Key
	case director.RemoveServer:
		key = op.Key
	}
	part := director.State{Timeouts: f.state.Timeouts, Sync: f.state.Sync}
	if i := f.state.Service(key); i >= 0 {
		part.Services = f.state.Services[i : i+1]
	}
	return part.Clone()
}

func (f *Fake) run(ctx context.Context, op director.Operation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.failAt > 0 {
		if f.failAt--; f.failAt == 0 {
			return ErrInjected
		}
	}
	if f.failIf != nil {
		if err := f.failIf(op); err != nil {
			return err
		}
	}
	switch op := op.(type) {
	case director.AddService:
		if f.state.Service(op.Service.Key) < 0 {
			service := op.Service.Clone()
			service.Servers = nil
			f.state.Services = append(f.state.Services, service)
		}
	case director.EditService:
		return f.edit(op.Service.Key, func(s *director.Service) error {
			servers := s.Servers
			*s = op.Service.Clone()
			s.Servers = servers
			return nil
		})
	case director.RemoveService:
		f.state.Services = slices.DeleteFunc(f.state.Services, func(s director.Service) bool { return s.Key == op.Key })
	case director.AddServer:
		return f.edit(op.Key, func(s *director.Service) error {
			if s.Server(op.Server.Address) < 0 {
				s.Servers = append(s.Servers, op.Server)
			}
			return nil
		})
	case director.EditServer:
		return f.edit(op.Key, func(s *director.Service) error {
			i := s.Server(op.Server.Address)
			if i < 0 {
				return director.ErrNotFound
			}
			s.Servers[i] = op.Server
			return nil
		})
	case director.RemoveServer:
		if f.state.Service(op.Key) < 0 {
			return nil
		}
		return f.edit(op.Key, func(s *director.Service) error {
			s.Servers = slices.DeleteFunc(s.Servers, func(r realserver.Server) bool { return r.Address == op.Address })
			return nil
		})
	case director.SetTimeouts:
		f.state.Timeouts = op.Timeouts
	case director.StartSync:
		// One of a role (kernel: ip_vs_sync.c, start_sync_thread: EEXIST).
		for _, running := range f.state.Sync {
			switch {
			case running.Role != op.Daemon.Role:
			case running.As(op.Daemon):
				return nil
			default:
				return director.ErrExists
			}
		}
		f.state.Sync = append(f.state.Sync, op.Daemon)
	case director.StopSync:
		f.state.Sync = slices.DeleteFunc(f.state.Sync, func(s director.SyncDaemon) bool { return s.Role == op.Role })
	default:
		return fmt.Errorf("operation %T: %w", op, director.ErrUnsupported)
	}
	return nil
}

func (f *Fake) edit(key director.ServiceKey, edit func(*director.Service) error) error {
	i := f.state.Service(key)
	if i < 0 {
		return director.ErrNotFound
	}
	return edit(&f.state.Services[i])
}

// Stats returns what SetStats set.
func (f *Fake) Stats(ctx context.Context) (director.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats, ctx.Err()
}

// Connections walks over the matching ones of SetConnections.
func (f *Fake) Connections(ctx context.Context, filter director.ConnectionFilter) iter.Seq2[conntrack.Connection, error] {
	f.mu.Lock()
	conns := slices.Clone(f.conns)
	f.mu.Unlock()
	return func(yield func(conntrack.Connection, error) bool) {
		for _, c := range conns {
			if err := ctx.Err(); err != nil {
				yield(conntrack.Connection{}, err)
				return
			}
			if matches(filter, c) && !yield(c, nil) {
				return
			}
		}
	}
}

// matches takes a connection for one of every service that its virtual address is
// of: a fake has no services that overlap.
func matches(filter director.ConnectionFilter, c conntrack.Connection) bool {
	service := director.ServiceKey{Protocol: c.Protocol, Address: c.Virtual}
	if filter.Service.Protocol == c.Protocol && filter.Service.Contains(c.Virtual) {
		service = filter.Service
	}
	return filter.Matches(service, c)
}

// Close notes the call.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}
