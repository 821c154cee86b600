package director_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

var first = netip.MustParseAddrPort("10.0.0.1:8080")

func draining(state director.State) (addrs []netip.AddrPort) {
	for _, service := range state.Services {
		for _, server := range service.Servers {
			if server.Draining {
				addrs = append(addrs, server.Address)
			}
		}
	}
	return addrs
}

func TestDrainServer(t *testing.T) {
	r := start(t, web())
	deadline := time.Now().Add(time.Minute)
	outcome, err := r.DrainServer(t.Context(), by, web().Key, first, deadline, true)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "steps", []string{"drain server 10.0.0.1:8080 of tcp://192.0.2.1:80: draining none → yes"}, stepTexts(outcome.Steps))
	if got := draining(r.held(t)); len(got) != 1 || got[0] != first {
		t.Errorf("the data plane drains %v", got)
	}
	order, ok := r.State().Drain(web().Key, first)
	if !ok || !order.Kill || !order.Deadline.Equal(deadline.UTC().Truncate(time.Second)) || order.Since.IsZero() {
		t.Errorf("drain %+v, %t", order, ok)
	}
	r.sameAsFoundButDrains(t)

	// New terms keep the beginning and touch nothing in the kernel.
	r.fake.Operations()
	if _, err := r.DrainServer(t.Context(), by, web().Key, first, time.Time{}, false); err != nil {
		t.Fatal(err)
	}
	if ops := r.fake.Operations(); len(ops) > 0 {
		t.Errorf("new terms: operations %v", texts(ops))
	}
	if again, _ := r.State().Drain(web().Key, first); !again.Since.Equal(order.Since) || !again.Deadline.IsZero() || again.Kill {
		t.Errorf("new terms: %+v", again)
	}

	// Neither what a file says nor an earlier revision ends it.
	if _, err := r.Apply(t.Context(), by, director.State{Services: []director.Service{web()}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rollback(t.Context(), by, 1); err != nil {
		t.Fatal(err)
	}
	edit := func(s *realserver.Server) error { s.Weight = 7; s.Draining = false; return nil }
	if _, err := r.EditServer(t.Context(), by, web().Key, first, edit); err != nil {
		t.Fatal(err)
	}
	if got := draining(r.held(t)); len(got) != 1 {
		t.Errorf("after apply, rollback and edit the data plane drains %v", got)
	}

	// It outlives the daemon.
	again := r.restart()
	if err := again.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	if _, ok := again.State().Drain(web().Key, first); !ok {
		t.Error("the drain is gone after a restart")
	}

	if _, err := again.CancelDrain(t.Context(), by, web().Key, first); err != nil {
		t.Fatal(err)
	}
	if got := draining(again.held(t)); len(got) > 0 || len(again.State().Drains) > 0 {
		t.Errorf("cancelled, but %v drain: %v", got, again.State().Drains)
	}
	if _, err := again.CancelDrain(t.Context(), by, web().Key, first); !errors.Is(err, director.ErrNotFound) {
		t.Errorf("cancelled twice: %v", err)
	}
}

// A server that is removed takes its drain along.
func TestDrainEndsWithItsServer(t *testing.T) {
	r := start(t, web(), dns())
	for _, key := range []director.ServiceKey{web().Key, dns().Key} {
		i := r.State().Service(key)
		if _, err := r.DrainServer(t.Context(), by, key, r.State().Services[i].Servers[0].Address, time.Time{}, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.RemoveServer(t.Context(), by, web().Key, first); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RemoveService(t.Context(), by, dns().Key); err != nil {
		t.Fatal(err)
	}
	if drains := r.State().Drains; len(drains) > 0 {
		t.Errorf("drains %+v", drains)
	}
	if _, err := r.AddServer(t.Context(), by, web().Key, server("10.0.0.1:8080", realserver.NAT, 1)); err != nil {
		t.Fatal(err)
	}
	if got := draining(r.held(t)); len(got) > 0 {
		t.Errorf("added again, %v drain", got)
	}
}

func TestDrainRefused(t *testing.T) {
	r := start(t, web())
	for _, tt := range []struct {
		key  director.ServiceKey
		addr string
	}{{dns().Key, "10.0.0.1:80"}, {web().Key, "10.0.0.9:80"}} {
		_, err := r.DrainServer(t.Context(), by, tt.key, netip.MustParseAddrPort(tt.addr), time.Time{}, false)
		if !errors.Is(err, director.ErrNotFound) {
			t.Errorf("%s of %s: %v", tt.addr, tt.key, err)
		}
	}
}

// sameAsFoundButDrains: no data plane knows the orders.
func (r *rig) sameAsFoundButDrains(t testing.TB) {
	t.Helper()
	state := r.State()
	state.Drains = nil
	wantState(t, "desired", r.held(t), state)
}
