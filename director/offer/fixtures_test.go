package offer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// checks is a Checker whose results the test says.
type checks struct {
	mu        sync.Mutex
	changed   func([]health.Change)
	asked     map[health.Key]health.Status
	suspected []health.Key
}

func (c *checks) Set(all []health.Assignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.asked
	c.asked = make(map[health.Key]health.Status)
	for _, a := range all {
		status, ok := before[a.Key]
		if !ok {
			status.Up, status.Known, status.Reason = a.Up, a.Known, "as it was before"
		}
		c.asked[a.Key] = status
	}
}

func (c *checks) Suspect(k health.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspected = append(c.suspected, k)
	status := c.asked[k]
	status.Suspected = status.Up
	c.asked[k] = status
}

func (c *checks) Status(k health.Key) (health.Status, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	status, ok := c.asked[k]
	return status, ok
}

func (c *checks) Now(k health.Key) (health.Status, bool) { return c.Status(k) }

// say has all checks of the server's address find it up or down.
func (c *checks) say(server netip.AddrPort, up bool) {
	c.tell(server, func(s *health.Status) { s.Up = up })
}

// tell has all checks of the server's address find what edit says.
func (c *checks) tell(server netip.AddrPort, edit func(*health.Status)) {
	var changes []health.Change
	c.mu.Lock()
	for key, status := range c.asked {
		if key.Target.Server != server {
			continue
		}
		status.Known, status.Suspected, status.Reason = true, false, "the test says so"
		edit(&status)
		if status.Up {
			status.Successes++
		} else {
			status.Failures++
		}
		c.asked[key] = status
		changes = append(changes, health.Change{Key: key, Up: status.Up})
	}
	c.mu.Unlock()
	c.changed(changes)
}

func (c *checks) targets() (all []health.Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.asked {
		all = append(all, key.Target)
	}
	slices.SortFunc(all, func(a, b health.Target) int { return a.Server.Compare(b.Server) })
	return all
}

// witness is a data plane's that the test has suspend.
type witness struct {
	mu       sync.Mutex
	limits   map[director.ServiceKey]director.Passive
	evidence map[netip.AddrPort]*director.Evidence
	fail     error
}

func (w *witness) SetPassive(_ context.Context, key director.ServiceKey, p director.Passive) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limits[key] = p
	return w.fail
}

func (w *witness) Evidence(context.Context) (all []director.Evidence, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.evidence {
		all = append(all, *e)
	}
	return all, w.fail
}

func (w *witness) Absolve(_ context.Context, _ director.ServiceKey, server netip.AddrPort) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail == nil && w.evidence[server] != nil {
		w.evidence[server].Suspended = false
	}
	return w.fail
}

func (w *witness) suspend(key director.ServiceKey, server netip.AddrPort, resets uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.evidence[server] = &director.Evidence{Service: key, Server: server, Resets: resets, Suspended: true}
}

func (w *witness) isSuspended(server netip.AddrPort) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.evidence[server] != nil && w.evidence[server].Suspended
}

// rig is a director over the fake data plane, with a Keeper that runs.
type rig struct {
	*director.Director
	*offer.Keeper
	fake    *directortest.Fake
	store   *directortest.Store
	checks  *checks
	witness *witness
	events  *event.Stream
	stop    func()
}

var by = director.Request{Who: "test"}

func newRig(fake *directortest.Fake, store *directortest.Store, edit func(*offer.Options)) *rig {
	log := slog.New(slog.DiscardHandler)
	r := &rig{
		fake: fake, store: store, checks: &checks{}, events: event.NewStream(log, 0),
		witness: &witness{limits: make(map[director.ServiceKey]director.Passive), evidence: make(map[netip.AddrPort]*director.Evidence)},
	}
	// The resolver of package net has state of its own, made in whatever bubble asks first.
	lookup := func(context.Context, string) ([]netip.Addr, error) { return nil, errLost }
	opts := offer.Options{Checks: r.checks, Events: r.events, Log: log, Packet: r.witness, Lookup: lookup, Features: fake.Features()}
	if edit != nil {
		edit(&opts)
	}
	r.Keeper = offer.New(opts)
	r.checks.changed = r.Keeper.Changed
	r.Director = director.New(fake, store, director.Options{Log: log, Events: r.events, Offerer: r.Keeper})
	return r
}

// begin starts the director with the services, and the Keeper; both end with stop.
func (r *rig) begin(t testing.TB, services ...director.Service) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if err := r.Start(ctx, director.State{Services: services}, by); err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		if err := r.Keeper.Run(ctx, r.Director); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	r.stop = func() { cancel(); work.Wait() }
	synctest.Wait()
	return r
}

// start is a rig with the services, which no kernel has yet.
func start(t testing.TB, services ...director.Service) *rig {
	t.Helper()
	return newRig(directortest.NewFake(director.State{}), &directortest.Store{}, nil).begin(t, services...)
}

// restart ends the daemon and begins another one over the same kernel and store.
func (r *rig) restart(t testing.TB) *rig {
	t.Helper()
	r.stop()
	r.fake.Operations()
	return newRig(r.fake, r.store, nil).begin(t)
}

// weights returns what the kernel has: the servers by address, "-" for a service
// without.
func (r *rig) weights(t testing.TB) string {
	t.Helper()
	synctest.Wait()
	found, err := r.fake.Found(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, service := range found.Services {
		servers := slices.Clone(service.Servers)
		slices.SortFunc(servers, func(a, b realserver.Server) int { return a.Address.Compare(b.Address) })
		for _, s := range servers {
			text += fmt.Sprintf("%s=%d ", s.Address.Addr(), s.Weight)
		}
	}
	if text == "" {
		return "-"
	}
	return text[:len(text)-1]
}

// want fails the test if the kernel has other weights.
func (r *rig) want(t testing.TB, what, weights string) {
	t.Helper()
	if got := r.weights(t); got != weights {
		t.Errorf("%s: the kernel has %s, want %s", what, got, weights)
	}
}

// told returns the events by their names and servers, but for changes.
func (r *rig) told() (all []string) {
	synctest.Wait()
	events, _ := r.events.After(0)
	for _, e := range events {
		if e.Name != event.Change {
			all = append(all, string(e.Name)+" "+e.Server)
		}
	}
	return all
}

func (r *rig) edit(t testing.TB, edit func(*director.Service)) {
	t.Helper()
	_, err := r.EditService(context.Background(), by, key, func(s *director.Service) error { edit(s); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) verdict(t testing.TB, server netip.AddrPort) offer.Verdict {
	t.Helper()
	synctest.Wait()
	for _, service := range r.Verdicts() {
		for _, v := range service.Servers {
			if v.Server == server {
				return v
			}
		}
	}
	t.Fatalf("there is no verdict on %s", server)
	return offer.Verdict{}
}

var (
	key     = mustKey("tcp://192.0.2.1:80")
	first   = addr(1)
	second  = addr(2)
	third   = addr(3)
	errLost = errors.New("lost")
)

func mustKey(text string) director.ServiceKey {
	key, err := director.ParseServiceKey(text)
	if err != nil {
		panic(err)
	}
	return key
}

func addr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80)
}

func server(n int, weight uint32) realserver.Server {
	return realserver.Server{Address: addr(n), Method: realserver.NAT, Weight: weight}
}

// web is a service of checked servers with the weights, from 10.0.0.1 on.
func web(health director.Health, weights ...uint32) director.Service {
	s := director.Service{Key: key, Scheduler: director.RoundRobin, VIP: director.VIPExternal, Health: health}
	for i, weight := range weights {
		s.Servers = append(s.Servers, server(i+1, weight))
	}
	return s
}

func checked() director.Health {
	return director.Health{Checks: []realserver.Check{{Kind: realserver.CheckTCP}}}
}

func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}
