package xdp

import (
	"context"
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// migration is how far a service is on its way from the host's stack.
type migration uint8

const (
	settled migration = iota // the stack has none of its connections
	begun                    // it has some that the tables do not know
	held                     // no more packets are left to it: the last ones are read
)

// flags is the stage as a service's schedule has it.
func (m migration) flags() uint16 {
	switch m {
	case begun:
		return uint16(bpf.KernelServiceFlagsSERVICE_MIGRATING)
	case held:
		return uint16(bpf.KernelServiceFlagsSERVICE_MIGRATING | bpf.KernelServiceFlagsSERVICE_HELD)
	default:
		return 0
	}
}

// parseMigration is the stage that a daemon goes on with which finds these flags.
func parseMigration(flags uint16) migration {
	if flags&uint16(bpf.KernelServiceFlagsSERVICE_MIGRATING) != 0 {
		return begun
	}
	return settled
}

// BeginMigration leaves the service's packets that no connection is known of to the
// host's stack, where the kernel's IPVS has the service: all but TCP's first
// segments, which are scheduled here, unless the service is persistent and the
// client's template is not known. One that is not there migrates once it is added.
//
// A SYN sent again, because the kernel's answer to the first one was lost or is
// late, is scheduled too, and may get another server: the programs cannot ask the
// kernel whose it is, and passing it on would leave every new connection to the
// kernel, so that migrations never end. The client takes the answer that comes
// first; only one of the other server's that overtakes it is refused.
//
// A first segment that no server can take is left to the stack as well: next hops
// may be unknown yet, and the kernel has the service still.
//
// A migration outlives the daemon, in the service's entry: ending it at a start
// would cut the connections that were not loaded. See Migrating.
func (d *Dataplane) BeginMigration(ctx context.Context, key director.ServiceKey) error {
	if err := d.migrate(ctx, key, begun); err != nil {
		return fmt.Errorf("leave unknown connections of %s to the host's stack: %w", key, err)
	}
	return nil
}

// EndMigration has unknown packets of the service be as they are of other services.
func (d *Dataplane) EndMigration(ctx context.Context, key director.ServiceKey) error {
	if err := d.migrate(ctx, key, settled); err != nil {
		return fmt.Errorf("leave no more connections of %s to the host's stack: %w", key, err)
	}
	return nil
}

// HoldMigration drops what a migrating service would leave to the host's stack, so
// that nothing changes there while the last of its connections are read: whose
// packets were passed on before is there when it returns. TCP sends them again.
//
// A hold does not outlive the daemon, which alone knows what it is for: the next
// one leaves those packets to the stack again.
func (d *Dataplane) HoldMigration(ctx context.Context, key director.ServiceKey) error {
	err := d.hold(ctx, key)
	if err == nil {
		err = drain(ctx)
	}
	if err != nil {
		return fmt.Errorf("hold back unknown connections of %s: %w", key, err)
	}
	return nil
}

func (d *Dataplane) hold(ctx context.Context, key director.ServiceKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return err
	}
	svc, err := d.model.live(key)
	if err != nil {
		return err
	}
	if svc.migration == settled {
		return fmt.Errorf("%w: its migration has not begun", director.ErrInvalid)
	}
	return d.setMigration(svc, held)
}

// stackDelay is longer than a packet that was passed on waits for the host's stack:
// in the queue of another CPU (RPS), whose softirq gives it back after two ticks at
// most (kernel: net/core/dev.c, net_rx_action, netdev_budget_usecs).
const stackDelay = 50 * time.Millisecond

// drain waits until the host's stack has seen all that was left to it.
func drain(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(stackDelay):
		return nil
	}
}

func (d *Dataplane) migrate(ctx context.Context, key director.ServiceKey, to migration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return err
	}
	svc, err := d.model.live(key)
	if err != nil {
		delete(d.migrations, key)
		if to == begun {
			d.migrations[key] = true
		}
		return nil
	}
	return d.setMigration(svc, to)
}

// setMigration puts the stage in force, and nothing else: the scheduler goes on.
func (d *Dataplane) setMigration(svc *service, to migration) error {
	was := svc.migration
	if was == to {
		return nil
	}
	svc.migration = to
	if err := d.reschedule(svc, svc.list, false); err != nil {
		svc.migration = was
		return err
	}
	return nil
}

// takeMigration has a service that is being added migrate if that was asked for.
func (a *application) takeMigration(b *batch) {
	svc := b.svc
	if !a.migrations[svc.key] {
		return
	}
	was := svc.migration
	svc.migration = begun
	b.onFailure(func() error { svc.migration = was; return nil })
	b.then(func() error { delete(a.migrations, svc.key); return nil })
}

// Migrating returns the services whose migrations have begun and not ended, in the
// order of their keys: after a restart, those that a daemon was killed in the middle
// of. Whoever moves services goes on with them or ends that.
func (d *Dataplane) Migrating() []director.ServiceKey {
	d.mu.Lock()
	defer d.mu.Unlock()
	var keys []director.ServiceKey
	if d.closed {
		return nil
	}
	for _, svc := range d.model.sorted() {
		if svc.migration != settled && !svc.removed {
			keys = append(keys, svc.key)
		}
	}
	return keys
}
