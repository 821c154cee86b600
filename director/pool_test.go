package director_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// pooled is web with a pool, whose server of an agent's is leased.
func pooled() director.Service {
	s := web()
	s.Health.Pool = "web"
	return s
}

var leased = netip.MustParseAddrPort("10.0.0.77:80")

func drained(s director.State) (addrs []netip.AddrPort) {
	for _, d := range s.Drains {
		addrs = append(addrs, d.Server)
	}
	return addrs
}

// TestFromPool: what is configured stands, and what cannot be is left out by its reason.
func TestFromPool(t *testing.T) {
	service := pooled().Normalize()
	state := director.State{Services: []director.Service{service}, Drains: []director.Drain{{Service: service.Key, Server: leased}}}
	features := plane(t, "xdp")
	features.NoLocal4 = true
	bare := netip.AddrPortFrom(leased.Addr(), 0)
	other := realserver.Server{Address: bare, Method: realserver.DR, Weight: 5}
	registered := []realserver.Server{
		other,
		{Address: first, Method: realserver.NAT, Weight: 9},
		{Address: netip.MustParseAddrPort("[2001:db8::7]:80"), Method: realserver.DR, Weight: 1},
		{Address: netip.MustParseAddrPort("10.0.0.78:80"), Method: realserver.FullNAT, Weight: 1},
	}
	want := []realserver.Server{{Address: leased, Method: realserver.DR, Weight: 5, Draining: true}}
	if diff := cmp.Diff(want, state.FromPool(&service, registered, features), cmpNetip); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for i, text := range []string{
		"<nil>",
		`server 10.0.0.1:8080 of service "web" is configured, on terms of its own: its registration has no effect there`,
		`service "web": server [2001:db8::7]:80: 2001:db8::7 is not of the service's address family (192.0.2.1): only tunnels can mix them`,
		`service "web": server 10.0.0.78:80: method fullnat: the director has no address of ipv4 to stand in for clients': give some in director.fullnat.addresses`,
	} {
		if err := service.Takes(registered[i], features); fmt.Sprint(err) != text {
			t.Errorf("server %s: %v, want %q", registered[i].Address, err, text)
		}
	}
	service.Health.Pool = ""
	if got := state.FromPool(&service, registered, features); got != nil {
		t.Errorf("without a pool it takes %v", got)
	}
}

// A drain of a server that is not configured is kept while its service has a pool. What
// of configured ones ends drains does so here too.
func TestDrainsOfPools(t *testing.T) {
	r := start(t, pooled(), dns())
	if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: dns().Key, Server: leased}); !errors.Is(err, director.ErrNotFound) {
		t.Errorf("of a service without a pool: %v", err)
	}
	for _, addr := range []netip.AddrPort{first, leased} {
		if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: web().Key, Server: addr}); err != nil {
			t.Fatal(err)
		}
	}
	then := r.Head()
	if _, err := r.Apply(t.Context(), by, director.State{Services: []director.Service{pooled(), dns()}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]netip.AddrPort{first, leased}, drained(r.State()), cmpNetip); diff != "" {
		t.Errorf("after apply (-want +got)\n%s", diff)
	}
	if _, err := r.RemoveServer(t.Context(), by, web().Key, first); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]netip.AddrPort{leased}, drained(r.State()), cmpNetip); diff != "" {
		t.Errorf("after a removal (-want +got)\n%s", diff)
	}
	// The configured one comes back drained; the other was given back meanwhile.
	if _, err := r.CancelDrain(t.Context(), by, web().Key, leased); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rollback(t.Context(), by, then.Number); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]netip.AddrPort{first}, drained(r.State()), cmpNetip); diff != "" {
		t.Errorf("after rollback (-want +got)\n%s", diff)
	}
	// With its service it comes back as it was.
	if _, err := r.RemoveService(t.Context(), by, web().Key); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rollback(t.Context(), by, then.Number); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]netip.AddrPort{first, leased}, drained(r.State()), cmpNetip); diff != "" {
		t.Errorf("after the service's return (-want +got)\n%s", diff)
	}
	if _, err := r.Apply(t.Context(), by, director.State{Services: []director.Service{web(), dns()}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]netip.AddrPort{first}, drained(r.State()), cmpNetip); diff != "" {
		t.Errorf("without the pool (-want +got)\n%s", diff)
	}
}

// What is told of the drain of a server that an agent registered: its end is no removal.
func TestDrainNewsOfPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, pooled())
		defer following(t, r)()
		r.fake.SetStats(director.Stats{Services: []director.ServiceStats{{
			Key: web().Key, Servers: []director.ServerStats{{Server: realserver.Server{Address: leased}, Active: 4}},
		}}})
		if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: web().Key, Server: leased}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		if _, err := r.CancelDrain(t.Context(), by, web().Key, leased); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		want(t, "events", []string{"drain-started: begun: 4 connections left", "drain-cancelled: cancelled with 4 connections left"}, r.drainNews())
	})
}

// registered is an Offerer of one server beside those configured.
type registered struct{ server realserver.Server }

func (o registered) Offers(*director.Service, *director.Service) director.Offers {
	return director.Offers{Extra: []realserver.Server{o.server}}
}

func (registered) Desired(director.State) {}

// What an agent registered and the data plane cannot have keeps nobody from changing the
// configuration. It is repaired when that can be.
func TestChangeBesideUnfitRegistered(t *testing.T) {
	unfit := realserver.Server{Address: leased, Method: realserver.NAT, Weight: 5}
	r := newRig(nil, nil).offering(registered{unfit})
	full := errors.New("no room for it")
	r.fake.FailIf(func(op director.Operation) error {
		if add, ok := op.(director.AddServer); ok && add.Server.Address == leased {
			return full
		}
		return nil
	})
	if err := r.Start(t.Context(), director.State{Services: []director.Service{pooled()}}, by); err != nil {
		t.Fatal(err)
	}
	edited := pooled()
	edited.Scheduler = director.SourceHash
	edited.Servers = append(edited.Servers, realserver.Server{Address: netip.MustParseAddrPort("10.0.0.55:80"), Method: realserver.NAT, Weight: 1})
	outcome, err := r.Apply(t.Context(), by, director.State{Services: []director.Service{edited, dns()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range outcome.Steps {
		if step.Server == leased {
			t.Errorf("told as done: %s", step)
		}
	}
	held := r.held(t)
	if i := held.Service(edited.Key); i < 0 || held.Services[i].Scheduler != edited.Scheduler || len(held.Services[i].Servers) != len(edited.Servers) || len(held.Services) != 2 {
		t.Errorf("the data plane has %+v", held.Services)
	}
	r.reconcile(t)
	if d := r.Drift(); len(d.Pending) != 2 || !strings.Contains(d.Pending[0].Cause, full.Error()) {
		t.Errorf("pending %+v", d.Pending)
	}

	r.fake.FailIf(nil)
	r.reconcile(t)
	if held := r.held(t); len(r.Drift().Pending) > 0 || held.Services[held.Service(edited.Key)].Server(leased) < 0 {
		t.Errorf("with room: %+v", held.Services)
	}

	// What is configured fails a change still, which is undone.
	r.fake.FailIf(func(op director.Operation) error {
		if _, ok := op.(director.AddServer); ok {
			return full
		}
		return nil
	})
	edited.Servers = append(slices.Clip(edited.Servers), realserver.Server{Address: netip.MustParseAddrPort("10.0.0.56:80"), Method: realserver.NAT, Weight: 1})
	edited.Scheduler = director.WeightedRoundRobin
	if _, err := r.Apply(t.Context(), by, director.State{Services: []director.Service{edited, dns()}}); !errors.Is(err, full) || !strings.Contains(err.Error(), "10.0.0.56") {
		t.Errorf("a configured one: %v", err)
	}
	if held := r.held(t); held.Services[held.Service(edited.Key)].Scheduler != director.SourceHash {
		t.Errorf("not put back: %+v", held.Services)
	}
}

// ofPool is an Offerer of servers to the services of the pool web.
type ofPool []realserver.Server

func (o ofPool) Offers(service, _ *director.Service) (offers director.Offers) {
	if service.Health.Pool == "web" {
		offers.Extra = o
	}
	return offers
}

func (ofPool) Desired(director.State) {}

// A pool's name that is misspelt would empty its services: that takes force as the
// removal of as many configured servers does.
func TestGuardOfRegistered(t *testing.T) {
	r := newRig(nil, nil).offering(ofPool{{Address: leased, Method: realserver.NAT, Weight: 5}, {Address: netip.MustParseAddrPort("10.0.0.78:80"), Method: realserver.NAT, Weight: 5}})
	service := pooled()
	service.Servers = service.Servers[:1]
	if err := r.Start(t.Context(), director.State{Services: []director.Service{service}}, by); err != nil {
		t.Fatal(err)
	}
	misspelt := service
	misspelt.Health.Pool = "wbe"
	next := director.State{Services: []director.Service{misspelt}}
	want := &director.GuardError{What: "servers", Removed: 2, Have: 3, Limit: 50}
	_, err := r.Apply(t.Context(), by, next)
	if refused, ok := errors.AsType[*director.GuardError](err); !ok || *refused != *want {
		t.Errorf("apply: %v, want %v", err, want)
	}
	plan, err := r.Plan(t.Context(), next)
	if err != nil || plan.Guard == nil || *plan.Guard != *want {
		t.Errorf("plan: %v, %v", plan.Guard, err)
	}
	service.Scheduler = director.SourceHash
	if _, err := r.Apply(t.Context(), by, director.State{Services: []director.Service{service, dns()}}); err != nil {
		t.Errorf("of another change: %v", err)
	}
	forced := by
	forced.Force = true
	if _, err := r.Apply(t.Context(), forced, next); err != nil {
		t.Errorf("with force: %v", err)
	}
}

// However many register, no data plane is given more servers of a service than it has
// room for.
func TestRegisteredFillService(t *testing.T) {
	var many []realserver.Server
	for i := range director.MaxServers {
		many = append(many, realserver.Server{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 80), Method: realserver.NAT, Weight: 1})
	}
	service := pooled().Normalize()
	service.Health.Sorry = []realserver.Server{{Address: leased, Method: realserver.NAT, Weight: 1}}
	state := director.State{Services: []director.Service{service}}
	if got, want := len(state.FromPool(&service, many, plane(t, "xdp"))), director.MaxServers-len(service.Servers)-1; got != want {
		t.Errorf("%d are taken, want %d", got, want)
	}
	r := newRig(nil, nil).offering(ofPool(many))
	if err := r.Start(t.Context(), state, by); err != nil {
		t.Fatal(err)
	}
	if n := len(r.held(t).Services[0].Servers); n != director.MaxServers {
		t.Errorf("the data plane has %d servers, want %d", n, director.MaxServers)
	}
}
