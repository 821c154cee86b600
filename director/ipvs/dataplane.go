package ipvs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
	"github.com/shunt-lb/shunt/director/vip"
)

// Options of Open.
type Options struct {
	// Driver names how the kernel is spoken to; empty for what is right on this
	// machine (see kernel.Options).
	Driver string
	Log    *slog.Logger // default: nothing is logged
	// Beside opens it although another process may manage it: for one who looks, and
	// takes services away that are not its to keep.
	Beside bool
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Dataplane is the kernel's IPVS in one network namespace.
type Dataplane struct {
	driver kernel.Driver
	claim  *claimed // nil: none

	// mu is held for the whole of a call that reads and writes.
	mu       sync.Mutex
	vips     *vip.Host
	memory   memory
	overload overload
	closed   bool
}

var _ director.Dataplane = (*Dataplane)(nil)

// Open opens the kernel's IPVS in the calling thread's network namespace, where all
// later work happens too. The error matches kernel.ErrNotLoaded where the kernel
// has none, and ErrInUse where another process has it open already. The caller
// closes it.
func Open(ctx context.Context, opts Options) (*Dataplane, error) {
	opts = opts.withDefaults()
	var held *claimed
	if !opts.Beside {
		var err error
		if held, err = claim(); err != nil {
			return nil, err
		}
		if held == nil {
			opts.Log.Warn("a user without privileges has the name that keeps two daemons from one IPVS: no second one will be refused", "socket", claimName)
		}
	}
	driver, err := kernel.Open(ctx, kernel.Options{Driver: opts.Driver, Log: opts.Log})
	if err != nil {
		return nil, errors.Join(err, held.release())
	}
	d, err := open(driver)
	if err != nil {
		return nil, errors.Join(err, driver.Close(), held.release())
	}
	d.claim = held
	info, err := driver.Info(ctx)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	opts.Log.Info("IPVS opened", "version", info.Version, "buckets", info.TableSize, "driver", driver.Name())
	return d, nil
}

// open makes a Dataplane of the driver, which it owns from then on if there is no
// error.
func open(driver kernel.Driver) (*Dataplane, error) {
	vips, err := vip.Open()
	if err != nil {
		return nil, err
	}
	return &Dataplane{driver: driver, vips: vips, memory: newMemory(), overload: overload{}}, nil
}

// Features says what IPVS can do.
func (d *Dataplane) Features() director.Features { return director.IPVSFeatures() }

// check says why nothing can be done: the caller gave up, or we are closed.
func (d *Dataplane) check(ctx context.Context) error {
	if d.closed {
		return errors.New("the data plane is closed")
	}
	return ctx.Err()
}

// Kill is not there: the kernel has no way to remove a connection. Those of a
// removed server end as their clients' packets are dropped, at once where the
// sysctl net.ipv4.vs.expire_nodest_conn is 1.
func (d *Dataplane) Kill(context.Context, director.ConnectionFilter) (uint64, error) {
	return 0, fmt.Errorf("remove connections: %w: the kernel's IPVS has no way to; a server without connections is one that is removed", director.ErrUnsupported)
}

// Decide is not there: the kernel cannot be asked without a packet.
func (d *Dataplane) Decide(context.Context, director.Question) (director.Decision, error) {
	return director.Decision{}, fmt.Errorf("explain: %w: the kernel's IPVS decides on packets alone", director.ErrUnsupported)
}

// Zero sets counters and rates to zero; with the zero key those of all services,
// and the kernel's totals.
func (d *Dataplane) Zero(ctx context.Context, key director.ServiceKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return err
	}
	id := kernel.ServiceID{}
	if key != (director.ServiceKey{}) {
		var err error
		if id, err = serviceID(key); err != nil {
			return err
		}
	}
	return explain(d.driver.Zero(ctx, id))
}

// Run waits for the end of the context: IPVS keeps itself in order.
func (d *Dataplane) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Close releases the sockets; traffic flows on.
func (d *Dataplane) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.vips.Close()
	return errors.Join(d.driver.Close(), d.claim.release())
}
