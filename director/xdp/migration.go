package xdp

import (
	"context"
	"fmt"

	"github.com/shunt-lb/shunt/director"
)

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
// A migration outlives the daemon, in the service's entry: ending it at a start
// would cut the connections that were not loaded. See Migrating.
func (d *Dataplane) BeginMigration(ctx context.Context, key director.ServiceKey) error {
	if err := d.migrate(ctx, key, true); err != nil {
		return fmt.Errorf("leave unknown connections of %s to the host's stack: %w", key, err)
	}
	return nil
}

// EndMigration has unknown packets of the service be as they are of other services.
func (d *Dataplane) EndMigration(ctx context.Context, key director.ServiceKey) error {
	if err := d.migrate(ctx, key, false); err != nil {
		return fmt.Errorf("leave no more connections of %s to the host's stack: %w", key, err)
	}
	return nil
}

func (d *Dataplane) migrate(ctx context.Context, key director.ServiceKey, begins bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return err
	}
	svc, err := d.model.live(key)
	if err != nil {
		delete(d.migrations, key)
		if begins {
			d.migrations[key] = true
		}
		return nil
	}
	if svc.migrating == begins {
		return nil
	}
	svc.migrating = begins
	if err := d.reschedule(svc, svc.list, false); err != nil {
		svc.migrating = !begins
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
	was := svc.migrating
	svc.migrating = true
	b.onFailure(func() error { svc.migrating = was; return nil })
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
		if svc.migrating && !svc.removed {
			keys = append(keys, svc.key)
		}
	}
	return keys
}
