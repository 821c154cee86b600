package director

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shunt-lb/shunt/conntrack"
)

// Director holds the desired state and carries changes of it to a data plane.
// A change is validated as a whole, planned, applied, and only then kept. It is
// safe for concurrent use; changes run one after another.
type Director struct {
	dp  Dataplane
	log *slog.Logger

	// desired is an immutable value that is replaced as a whole; nil until
	// Start succeeded.
	desired atomic.Pointer[State]

	mu sync.Mutex // held for the whole of a change
	// unsure holds what a failed change touched and could not be read again:
	// the next change reads it first.
	unsure touched
}

// New returns a Director of the data plane. Start makes it ready.
func New(dp Dataplane, log *slog.Logger) *Director {
	return &Director{dp: dp, log: log}
}

// Start takes over what the data plane holds and applies initial to it: the
// services that initial names are made equal to it, all others are kept, and
// initial's timeouts that are not zero are set. No traffic is interrupted by
// what is the same in both.
func (d *Director) Start(ctx context.Context, initial State) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	initial = initial.Normalize()
	// The timeouts are validated when they are complete.
	if err := (State{Services: initial.Services}).Validate(); err != nil {
		return err
	}
	found, err := d.dp.Found(ctx)
	if err != nil {
		return fmt.Errorf("read what the data plane holds: %w", err)
	}
	found = found.Clone()
	return d.commit(ctx, found, d.adopt(initial, found))
}

// adopt returns initial with the found services that it does not name.
func (d *Director) adopt(initial, found State) State {
	names := make(map[string]bool)
	for _, service := range initial.Services {
		names[service.Name] = true
	}
	for _, service := range found.Services {
		if initial.Service(service.Key) >= 0 {
			continue
		}
		service = service.Normalize()
		if service.Name != "" && names[service.Name] {
			d.log.Warn("kept service loses its name to another", "service", service.Key, "name", service.Name)
			service.Name = ""
		}
		d.log.Info("service kept that the configuration does not name", "service", service.Key, "name", service.Name)
		initial.Services = append(initial.Services, service)
	}
	initial.Timeouts = conntrack.DefaultTimeouts().Merge(found.Timeouts).Merge(initial.Timeouts)
	return initial
}

// State returns a copy of the desired state, sorted by key.
func (d *Director) State() State {
	desired := d.desired.Load()
	if desired == nil {
		return State{}
	}
	return desired.Clone()
}

// Service returns a copy of the desired service, or ErrNotFound.
func (d *Director) Service(key ServiceKey) (Service, error) {
	if desired := d.desired.Load(); desired != nil {
		if i := desired.Service(key); i >= 0 {
			return desired.Services[i].Clone(), nil
		}
	}
	return Service{}, fmt.Errorf("service %s: %w", key, ErrNotFound)
}

// Resolve returns the key of the desired service that ref, a URL or a name,
// stands for; ErrNotFound if there is none.
func (d *Director) Resolve(ref string) (ServiceKey, error) {
	if strings.Contains(ref, "://") {
		key, err := ParseServiceKey(ref)
		if err != nil {
			return ServiceKey{}, err
		}
		_, err = d.Service(key)
		return key, err
	}
	if desired := d.desired.Load(); desired != nil && ref != "" {
		for _, service := range desired.Services {
			if service.Name == ref {
				return service.Key, nil
			}
		}
	}
	return ServiceKey{}, fmt.Errorf("service %q: %w", ref, ErrNotFound)
}

// Stats reads the data plane's counters.
func (d *Director) Stats(ctx context.Context) (Stats, error) { return d.dp.Stats(ctx) }

// Connections iterates over the data plane's connections that match.
func (d *Director) Connections(ctx context.Context, filter ConnectionFilter) iter.Seq2[conntrack.Connection, error] {
	return d.dp.Connections(ctx, filter)
}

// change runs one change of the desired state. act names it in errors.
func (d *Director) change(ctx context.Context, act string, edit func(*State) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	current := d.desired.Load()
	if current == nil {
		return fmt.Errorf("%s: the director is not started", act)
	}
	if !d.unsure.empty() {
		if err := d.reread(ctx, d.unsure); err != nil {
			return fmt.Errorf("%s: %w", act, err)
		}
		current = d.desired.Load()
	}
	next := current.Clone()
	if err := edit(&next); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	if err := d.commit(ctx, *current, next); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	return nil
}

// commit validates next, applies the difference to current, which the data
// plane holds, and keeps next. After a failure it puts current back; where that
// fails too, it keeps what the data plane then holds of the services it touched.
// d.mu is held.
func (d *Director) commit(ctx context.Context, current, next State) error {
	next = next.Normalize()
	if err := next.Validate(); err != nil {
		return err
	}
	next = Settle(next, current)
	ops := Plan(next, current)
	if len(ops) > 0 {
		if err := d.dp.Apply(ctx, ops); err != nil {
			if d.desired.Load() == nil {
				return err // not started: nothing is claimed yet
			}
			return errors.Join(err, d.rollBack(ctx, current, touchedBy(ops)))
		}
	}
	d.desired.Store(&next)
	return nil
}

// rollBack undoes the steps of a failed change that were done.
func (d *Director) rollBack(ctx context.Context, current State, t touched) error {
	if err := d.reread(ctx, t); err != nil {
		return err
	}
	ops := Plan(current, d.State())
	if len(ops) == 0 {
		return nil
	}
	if err := d.dp.Apply(context.WithoutCancel(ctx), ops); err != nil {
		return errors.Join(fmt.Errorf("roll back: %w", err), d.reread(ctx, t))
	}
	d.log.Info("change failed and was rolled back", "steps", len(ops))
	return d.reread(ctx, t)
}

// reread makes the desired state of what was touched equal to what the data
// plane holds, so that it never claims what the kernel refused. It runs even if
// ctx was cancelled: that may be why the change failed.
func (d *Director) reread(ctx context.Context, t touched) error {
	found, err := d.dp.Found(context.WithoutCancel(ctx))
	if err != nil {
		d.unsure = d.unsure.with(t)
		return fmt.Errorf("read what the data plane holds: %w", err)
	}
	next := d.State()
	for key := range t.services {
		at, held := next.Service(key), found.Service(key)
		switch {
		case at >= 0 && held >= 0:
			next.Services[at] = found.Services[held].Clone()
		case at >= 0:
			next.Services = append(next.Services[:at], next.Services[at+1:]...)
		case held >= 0:
			next.Services = append(next.Services, found.Services[held].Clone())
		}
	}
	if t.timeouts {
		next.Timeouts = found.Timeouts
	}
	next = next.Normalize()
	d.desired.Store(&next)
	d.unsure = touched{}
	return nil
}

// touched is what operations change.
type touched struct {
	services map[ServiceKey]bool
	timeouts bool
}

func (t touched) empty() bool { return len(t.services) == 0 && !t.timeouts }

// with returns what t or o touches.
func (t touched) with(o touched) touched {
	all := touched{services: make(map[ServiceKey]bool), timeouts: t.timeouts || o.timeouts}
	for _, services := range []map[ServiceKey]bool{t.services, o.services} {
		for key := range services {
			all.services[key] = true
		}
	}
	return all
}

func touchedBy(ops []Operation) touched {
	t := touched{services: make(map[ServiceKey]bool)}
	for _, op := range ops {
		switch op := op.(type) {
		case AddService:
			t.services[op.Service.Key] = true
		case EditService:
			t.services[op.Service.Key] = true
		case RemoveService:
			t.services[op.Key] = true
		case AddServer:
			t.services[op.Key] = true
		case EditServer:
			t.services[op.Key] = true
		case RemoveServer:
			t.services[op.Key] = true
		case SetTimeouts:
			t.timeouts = true
		}
	}
	return t
}
