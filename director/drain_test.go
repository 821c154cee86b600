package director_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	outcome, err := r.DrainServer(t.Context(), by, director.Drain{Service: web().Key, Server: first, Deadline: deadline, Kill: true})
	if err != nil {
		t.Fatal(err)
	}
	at := deadline.UTC().Truncate(time.Second).Format(time.RFC3339)
	want(t, "steps", []string{
		"drain server 10.0.0.1:8080 of tcp://192.0.2.1:80: draining none → yes, drain deadline none → " + at + ", drain kill none → yes",
	}, stepTexts(outcome.Steps))
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
	outcome, err = r.DrainServer(t.Context(), by, director.Drain{Service: web().Key, Server: first})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "steps of new terms", []string{
		"edit drain of server 10.0.0.1:8080 of tcp://192.0.2.1:80: drain deadline " + at + " → none, drain kill yes → none",
	}, stepTexts(outcome.Steps))
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
		if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: key, Server: r.State().Services[i].Servers[0].Address}); err != nil {
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

// A server that comes back as it was drained then is drained, but not on the terms
// of then; one that stayed has the order of now, or none.
func TestDrainComesBackWithItsServer(t *testing.T) {
	r := start(t, web(), dns())
	second := web().Servers[1].Address
	others := dns().Servers[0].Address
	deadline := time.Now().Add(time.Hour)
	drain := func(key director.ServiceKey, addr netip.AddrPort) {
		t.Helper()
		if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: key, Server: addr, Deadline: deadline, Kill: true}); err != nil {
			t.Fatal(err)
		}
	}
	drain(web().Key, first)
	drain(dns().Key, others)
	drain(web().Key, second)
	then := r.Head()
	if _, err := r.RemoveServer(t.Context(), by, web().Key, first); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RemoveService(t.Context(), by, dns().Key); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CancelDrain(t.Context(), by, web().Key, second); err != nil {
		t.Fatal(err)
	}
	plan, err := r.Plan(t.Context(), then.State)
	if err != nil {
		t.Fatal(err)
	}
	outcome, err := r.Rollback(t.Context(), by, then.Number)
	if err != nil {
		t.Fatal(err)
	}
	steps := []string{
		"add service udp://[2001:db8::1]:53: scheduler mh, flags mh-fallback,mh-port, vip external",
		"add server 10.0.0.1:8080 to tcp://192.0.2.1:80: method nat, weight 1, draining yes",
		"add server [2001:db8:1::1]:53 to udp://[2001:db8::1]:53: method dr, weight 65535, draining yes",
	}
	want(t, "planned", steps, stepTexts(plan.Steps))
	want(t, "steps", steps, stepTexts(outcome.Steps))
	if diff := cmp.Diff([]netip.AddrPort{first, others}, draining(r.held(t)), cmpNetip); diff != "" {
		t.Errorf("the data plane drains (-want +got):\n%s", diff)
	}
	for _, d := range r.State().Drains {
		if d.Kill || !d.Deadline.IsZero() || d.Since.IsZero() {
			t.Errorf("drain %+v, want no terms", d)
		}
	}
	at := deadline.UTC().Truncate(time.Second).Format(time.RFC3339)
	ended := ": drain deadline " + at + " → none, drain kill yes → none"
	want(t, "from then to now", []string{
		"edit server 10.0.0.2:80 of tcp://192.0.2.1:80: draining yes → none",
		"edit drain of server 10.0.0.1:8080 of tcp://192.0.2.1:80" + ended,
		"edit drain of server [2001:db8:1::1]:53 of udp://[2001:db8::1]:53" + ended,
	}, stepTexts(director.Between(then.State, r.State())))

	// A file says nothing of drains.
	if _, err := r.RemoveServer(t.Context(), by, web().Key, first); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(t.Context(), by, director.State{Services: []director.Service{web(), dns()}}); err != nil {
		t.Fatal(err)
	}
	if got := draining(r.held(t)); len(got) != 1 || got[0] != others {
		t.Errorf("after apply the data plane drains %v", got)
	}
}

// Servers that are drained in a foreign service, as after the store was lost, go
// on draining when it is taken over.
func TestDrainsOfForeignServices(t *testing.T) {
	drained := foreign()
	drained.Servers = append(drained.Servers, server("10.0.0.26:25", realserver.DR, 1))
	drained.Servers[0].Draining = true
	for name, take := range map[string]func(*rig) (director.Outcome, error){
		"adopt": func(r *rig) (director.Outcome, error) { return adopt(t.Context(), r.Director, drained.Key) },
		"apply": func(r *rig) (director.Outcome, error) {
			return r.Apply(t.Context(), by, director.State{Services: []director.Service{drained, web()}})
		},
		"first start": func(r *rig) (director.Outcome, error) {
			again := newRig(r.fake, nil)
			err := again.Start(t.Context(), director.State{Services: []director.Service{drained, web()}}, by)
			*r = *again
			return director.Outcome{Changed: true}, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, web())
			r.appear(drained)
			r.reconcile(t)
			outcome, err := take(r)
			if err != nil || !outcome.Changed {
				t.Fatalf("%+v, %v", outcome, err)
			}
			r.reconcile(t)
			want(t, "operations", nil, texts(r.fake.Operations()))
			order, ok := r.State().Drain(drained.Key, drained.Servers[0].Address)
			if got := draining(r.State()); !ok || order.Kill || !order.Deadline.IsZero() || order.Since.IsZero() || len(got) != 1 {
				t.Errorf("drain %+v, %t; drained %v", order, ok, got)
			}
			if _, err := r.CancelDrain(t.Context(), by, drained.Key, drained.Servers[0].Address); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDrainRefused(t *testing.T) {
	r := start(t, web())
	for _, tt := range []struct {
		key  director.ServiceKey
		addr string
	}{{dns().Key, "10.0.0.1:80"}, {web().Key, "10.0.0.9:80"}} {
		_, err := r.DrainServer(t.Context(), by, director.Drain{Service: tt.key, Server: netip.MustParseAddrPort(tt.addr)})
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
