package director

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/event"
)

// Director holds the desired state and carries changes of it to a data plane.
// A change is validated as a whole, planned against what the kernel holds,
// applied, made durable as a revision, and only then kept; a change that fails
// is undone. Run repairs what somebody else changed in the kernel. It is safe
// for concurrent use; changes run one after another.
type Director struct {
	dp       Dataplane
	features Features
	store    Store
	opts     Options

	// head is an immutable value that is replaced as a whole; nil until Start
	// succeeded.
	head atomic.Pointer[Revision]
	// drift is what the last reconciliation saw; replaced as a whole.
	drift atomic.Pointer[Drift]
	// maxRemoval is what SetMaxRemoval set: 0 to 100.
	maxRemoval atomic.Int64

	mu sync.Mutex // held for the whole of a change or a reconciliation
	// ours are the keys of services that Shunt made or may have made: the
	// desired ones, and those intended since. Others in the kernel are foreign.
	ours map[ServiceKey]bool
	// last are services as they were offered when the kernel was last known to agree.
	last map[ServiceKey]Service
}

// Options are the parameters of a Director; zero values mean the defaults.
type Options struct {
	Log    *slog.Logger  // nil: slog.Default()
	Events *event.Stream // nil: events are dropped
	// Reconcile is how often Run compares the kernel with what is desired.
	// Default 2 s.
	Reconcile time.Duration
	// Offerer decides what is offered of servers. Default: as they are configured.
	Offerer Offerer
}

// DefaultReconcile is Options.Reconcile's default.
const DefaultReconcile = 2 * time.Second

// DefaultMaxRemoval is the share, in per cent, until SetMaxRemoval sets another.
const DefaultMaxRemoval = 50

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Reconcile == 0 {
		o.Reconcile = DefaultReconcile
	}
	return o
}

// New returns a Director of the data plane whose state is in the store. Start
// makes it ready.
func New(dp Dataplane, store Store, opts Options) *Director {
	d := &Director{dp: dp, features: dp.Features(), store: store, opts: opts.withDefaults(), ours: make(map[ServiceKey]bool), last: make(map[ServiceKey]Service)}
	d.drift.Store(&Drift{})
	d.SetMaxRemoval(DefaultMaxRemoval)
	return d
}

// SetMaxRemoval changes the share of services, and of servers, that Apply and
// Rollback may remove without force, from the next change on: 0 to 100 per cent.
func (d *Director) SetMaxRemoval(percent int) { d.maxRemoval.Store(int64(percent)) }

// MaxRemoval returns that share.
func (d *Director) MaxRemoval() int { return int(d.maxRemoval.Load()) }

// Start makes the kernel equal to the store's newest revision. If there is none,
// initial becomes revision 1, with the timeouts that the kernel has where it gives
// none; it is not looked at otherwise. Services in the kernel that no revision has are foreign: they are shown and left alone. No
// traffic is interrupted by what is right already.
func (d *Director) Start(ctx context.Context, initial State, by Request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	head, intended, err := d.store.Load()
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	for _, key := range intended {
		d.ours[key] = true
	}
	found, err := d.found(ctx)
	if err != nil {
		return err
	}
	if head.Number > 0 {
		return d.resume(ctx, head, found)
	}
	initial = initial.Normalize()
	initial.Timeouts = conntrack.DefaultTimeouts().Merge(found.Timeouts.Within()).Merge(initial.Timeouts)
	// What is found of the timeouts is put back if this fails.
	before := Revision{State: State{Timeouts: found.Timeouts}}
	if _, err := d.commit(ctx, before, initial, change{by: by, action: "first start", always: true}); err != nil {
		return err
	}
	return d.reconcile(ctx) // for what is foreign, and what was intended once
}

// resume makes the kernel equal to the head in one go: after a restart of the
// host that is everything, and no drift. What cannot be done is told and tried
// again by the reconciliation; what is right serves meanwhile.
func (d *Director) resume(ctx context.Context, head Revision, found State) error {
	head.State = head.State.Normalize()
	for _, service := range head.State.Services {
		d.ours[service.Key] = true
	}
	ours, _ := d.split(found)
	ours.Sync = ourSync(found.Sync, head.State)
	d.desired(head.State) // its orders count from the first plan on
	ops := Plan(d.offered(head.State, ours), ours)
	d.opts.Log.Info("resuming", "revision", head.Number, "services", len(head.State.Services), "steps", len(ops))
	if len(ops) > 0 {
		if err := d.apply(ctx, ops); err != nil {
			d.opts.Log.Warn("not all could be done at once", "err", err)
		}
	}
	d.head.Store(&head)
	return d.reconcile(ctx)
}

// Head returns a copy of the newest revision, its state sorted by key; the zero
// Revision before Start.
func (d *Director) Head() Revision {
	head := d.head.Load()
	if head == nil {
		return Revision{}
	}
	copied := *head
	copied.State = head.State.Clone()
	return copied
}

// State returns a copy of the desired state, sorted by key.
func (d *Director) State() State { return d.Head().State }

// Service returns a copy of the desired service, or ErrNotFound.
func (d *Director) Service(key ServiceKey) (Service, error) {
	if head := d.head.Load(); head != nil {
		if i := head.State.Service(key); i >= 0 {
			return head.State.Services[i].Clone(), nil
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
	if head := d.head.Load(); head != nil && ref != "" {
		for _, service := range head.State.Services {
			if service.Name == ref {
				return service.Key, nil
			}
		}
	}
	return ServiceKey{}, fmt.Errorf("service %q: %w", ref, ErrNotFound)
}

// Revision reads a revision; ErrNotFound if there is none of the number. The newest one
// is to be had from a store that cannot be read, too.
func (d *Director) Revision(number uint64) (Revision, error) {
	if head := d.Head(); head.Number == number && number > 0 {
		return head, nil
	}
	return d.store.Revision(number)
}

// History describes up to limit revisions below before, newest first; 0 for
// before means from the newest.
func (d *Director) History(before uint64, limit int) ([]RevisionInfo, error) {
	return d.store.History(before, limit)
}

// Stats reads the data plane's counters.
func (d *Director) Stats(ctx context.Context) (Stats, error) { return d.dp.Stats(ctx) }
