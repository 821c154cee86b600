package offer

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// Checker is what asks the servers: a health.Monitor.
type Checker interface {
	Set(assignments []health.Assignment)
	Suspect(k health.Key)
	Status(k health.Key) (health.Status, bool)
	// Now is Status without its lists.
	Now(k health.Key) (health.Status, bool)
}

// Director is what a Keeper asks of the director.Director that it decides for.
type Director interface {
	Reoffer(ctx context.Context, key director.ServiceKey) error
	Kill(ctx context.Context, filter director.ConnectionFilter) (uint64, error)
	ClearOverride(ctx context.Context, by director.Request, key director.ServiceKey, addr netip.AddrPort) (director.Outcome, error)
	Features() director.Features
}

// Options are what a Keeper works with; zero values mean the defaults.
type Options struct {
	Checks Checker          // nil: nothing is asked, and what is there counts as up
	Hosts  HostAsker        // nil: no host is asked for its load
	Events *event.Stream    // nil: events are dropped
	Log    *slog.Logger     // nil: slog.Default()
	Dialer ProbeDialer      // nil: checks by the true path go to the server's address
	Packet director.Witness // nil: packets tell nothing
	// Features are the data plane's: what it could not have is not offered to it.
	Features director.Features
	// Lookup asks for the addresses of host names of files in maintenance folders; nil: the
	// host's resolver does.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Env is what commands of notifications share with probes: their user above all.
	Env health.Env
}

// Keeper decides what is offered of each server. It is a director.Offerer; Run has it
// follow what changes by itself. Safe for concurrent use.
type Keeper struct {
	opts    Options
	changed chan struct{} // has room for one, which stands for all that changed since
	notices *notifier
	turning atomic.Pointer[time.Time] // since when Run is at it; nil: it waits

	mu       sync.Mutex
	entries  map[director.ServiceKey]*entry
	desired  director.State // as it was told last
	begin    map[director.ServiceKey]map[netip.AddrPort]beginning
	leases   map[string][]realserver.Server // by pool
	askers   map[health.Key]map[*entry]bool // who wants what is asked
	away     map[string][]awayFile          // what is in maintenance, by the folder
	reassign bool                           // what is asked changed
	history  history
	troubles map[string]string // what failed last of each act that does
}

var (
	_ director.Offerer = (*Keeper)(nil)
	_ Checker          = (*health.Monitor)(nil)
	_ Director         = (*director.Director)(nil)
)

// New returns a Keeper that has heard of nothing.
func New(opts Options) *Keeper {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Lookup == nil {
		opts.Lookup = lookupHost
	}
	return &Keeper{
		opts: opts, changed: make(chan struct{}, 1), notices: newNotifier(opts),
		entries: make(map[director.ServiceKey]*entry), begin: make(map[director.ServiceKey]map[netip.AddrPort]beginning),
		leases: make(map[string][]realserver.Server),
		askers: make(map[health.Key]map[*entry]bool), away: make(map[string][]awayFile), troubles: make(map[string]string),
	}
}

// Offers implements director.Offerer.
func (k *Keeper) Offers(service, found *director.Service) director.Offers {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[service.Key]
	leased := k.leased(service)
	if e == nil && service.Health.IsZero() || e != nil && e.plain() && service.Health.IsZero() {
		return director.Offers{}
	}
	seats := k.seats(e, service, leased, found)
	d := decide(service, seats, e.hadQuorum(service, found))
	if e != nil && e.last != nil && !d.offersAs(e.last) {
		e.strayed = true
	}
	return d.offers(&service.Health)
}

// Desired implements director.Offerer.
func (k *Keeper) Desired(s director.State) {
	defer k.tellUnsuited()
	k.mu.Lock()
	defer k.mu.Unlock()
	defer clear(k.begin)
	if sameMemory(s, k.desired) {
		return // as after each look at the kernel
	}
	k.desired = s
	k.lookForFolders(s)
	before := k.entries
	k.entries = make(map[director.ServiceKey]*entry, len(s.Services))
	for i := range s.Services {
		service := &s.Services[i]
		e := before[service.Key]
		if e == nil {
			e = newEntry()
		}
		e.adopt(service, k.leased(service), k.begin[service.Key])
		k.entries[service.Key] = e
	}
	for _, e := range k.entries {
		k.order(e)
	}
	k.reassign = true
	k.stir()
}

// SetLeases has the pool add these servers, and no others, to the services that take
// servers from it. Those that a service is configured with stay as they are there. Those
// with Draining are about to leave: they drain as by an operator's order.
func (k *Keeper) SetLeases(pool string, servers []realserver.Server) {
	defer k.tellUnsuited()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(servers) == 0 {
		delete(k.leases, pool)
	} else {
		k.leases[pool] = servers
	}
	for _, e := range k.entries {
		if e.service.Health.Pool == pool && pool != "" {
			e.adopt(e.service, k.leased(e.service), nil)
			k.order(e)
			k.reassign = true
		}
	}
	k.stir()
}

// order gives the entry's servers, those of leases too, their orders and who is in
// maintenance: the next plan may come before Run has looked.
func (k *Keeper) order(e *entry) {
	now := time.Now()
	for addr, m := range e.members {
		m.override, m.away = nil, k.awayBy(e.service, addr)
		if order, ok := k.desired.Override(e.service.Key, addr); ok && !order.Ended(now) {
			m.override = &order
		}
	}
}

// Suspect has the checks of a pool's server asked at once: somebody could not reach it.
func (k *Keeper) Suspect(pool string, server realserver.Server) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.opts.Checks == nil || pool == "" {
		return
	}
	for _, e := range k.entries {
		if e.service.Health.Pool != pool {
			continue
		}
		if m := e.members[e.service.Key.ServerAddress(server.Address)]; m != nil {
			for _, q := range m.questions {
				k.opts.Checks.Suspect(q.key)
			}
		}
	}
}

// Changed is health.Options.Changed: what it is told of is looked at by Run.
func (k *Keeper) Changed(changes []health.Change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range changes {
		for e := range k.askers[changes[i].Key] {
			e.dirty = true
		}
	}
	k.stir()
}

// leased returns the servers that leases add to the service. One that it could not have
// is none of them: its agent registered before the service was as it is now, and no
// change of the configuration is to fail for that.
func (k *Keeper) leased(service *director.Service) []realserver.Server {
	return k.desired.FromPool(service, k.leases[service.Health.Pool], k.opts.Features)
}

// tellUnsuited tells of leases that a service of their pool could not have, once each.
func (k *Keeper) tellUnsuited() {
	k.mu.Lock()
	problems := make(map[director.ServiceKey]error)
	for key, e := range k.entries {
		if e.service.Health.Pool == "" {
			continue
		}
		for _, server := range k.leases[e.service.Health.Pool] {
			server.Address = key.ServerAddress(server.Address)
			if e.service.Server(server.Address) >= 0 {
				continue
			}
			if err := e.service.Suits(server, k.opts.Features); problems[key] == nil {
				problems[key] = err
			}
		}
	}
	k.mu.Unlock()
	for key, err := range problems {
		k.troubled(fmt.Sprintf("offer all servers of the pool by service %s", key), err)
	}
}

// stir has Run look.
func (k *Keeper) stir() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// sameMemory reports whether two states are one and the same, which is not changed.
func sameMemory(a, b director.State) bool {
	return len(a.Services) > 0 && sameSlice(a.Services, b.Services) && sameSlice(a.Overrides, b.Overrides) && sameSlice(a.Drains, b.Drains)
}

func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
