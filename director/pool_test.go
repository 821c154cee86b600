package director_test

import (
	"errors"
	"fmt"
	"net/netip"
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
