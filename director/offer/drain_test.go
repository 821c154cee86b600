package offer_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// draining returns what the kernel drains.
func (r *rig) draining(t testing.TB) (all []string) {
	t.Helper()
	synctest.Wait()
	found, err := r.fake.Found(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range found.Services {
		for _, s := range service.Servers {
			if s.Draining {
				all = append(all, s.Address.Addr().String())
			}
		}
	}
	return all
}

// A drain of a server that an agent registered is in force until it is cancelled:
// whatever becomes of the lease and of the daemon, in the first plan too.
func TestDrainOfLeased(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, web(director.Health{Pool: "blue"}, 4))
		defer func() { r.stop() }()
		drains := func(what string, servers ...string) {
			t.Helper()
			if diff := cmp.Diff(servers, r.draining(t)); diff != "" {
				t.Errorf("%s: drained (-want +got)\n%s", what, diff)
			}
		}
		leased := []realserver.Server{server(7, 3), server(8, 3)}
		r.SetLeases("blue", leased)
		drains("nobody yet")
		order := director.Drain{Service: key, Server: addr(7)}
		outcome, err := r.DrainServer(context.Background(), by, order)
		if err != nil {
			t.Fatal(err)
		}
		if text := outcome.Steps[0].String(); len(outcome.Steps) != 1 || text != "drain server 10.0.0.7:80 of tcp://192.0.2.1:80: draining none → yes" {
			t.Errorf("steps %v", outcome.Steps)
		}
		drains("ordered", "10.0.0.7")
		r.want(t, "its weight stays", "10.0.0.1=4 10.0.0.7=3 10.0.0.8=3")
		if v := r.verdict(t, addr(7)); !v.Up || v.Steps[2].Why != "not checked; draining: it gets no new connections" || v.Why != v.Steps[2].Why {
			t.Errorf("verdict %+v", v)
		}
		leased[0].Weight = 9
		r.SetLeases("blue", append([]realserver.Server{}, leased...))
		drains("registered on other terms", "10.0.0.7")
		r.SetLeases("blue", nil)
		drains("without a lease")
		r.want(t, "without a lease", "10.0.0.1=4")
		r.SetLeases("blue", leased)
		drains("registered again", "10.0.0.7")
		if err := r.Reconcile(context.Background()); err != nil || r.Drift().Found != 0 {
			t.Errorf("the order counts as drift: %+v, %v", r.Drift(), err)
		}

		r.stop()
		r.fake.Meddle(func(s *director.State) { s.Services = nil }) // as after a start of the host
		r.fake.Operations()
		next := newRig(r.fake, r.store, nil)
		next.SetLeases("blue", leased)
		r = next.begin(t)
		for _, op := range r.fake.Operations() {
			if add, ok := op.(director.AddServer); ok && add.Server.Address == addr(7) && !add.Server.Draining {
				t.Errorf("the first plan has %s, which is not drained", op)
			}
		}
		drains("restarted", "10.0.0.7")

		outcome, err = r.CancelDrain(context.Background(), by, key, addr(7))
		if err != nil {
			t.Fatal(err)
		}
		if text := outcome.Steps[0].String(); len(outcome.Steps) != 1 || text != "edit drain of server 10.0.0.7:80 of tcp://192.0.2.1:80: draining yes → none" {
			t.Errorf("steps %v", outcome.Steps)
		}
		drains("cancelled")

		// Who registers what is configured has the configured server's order, and no own.
		r.SetLeases("blue", []realserver.Server{server(1, 9)})
		order.Server = first
		if _, err := r.DrainServer(context.Background(), by, order); err != nil {
			t.Fatal(err)
		}
		drains("a configured one", "10.0.0.1")
		if _, err := r.RemoveServer(context.Background(), by, key, first); err != nil {
			t.Fatal(err)
		}
		drains("its agent is heard from now on")
		r.want(t, "its agent is heard from now on", "10.0.0.1=9")
	})
}

// A draining server counts for no quorum, whoever drains it.
func TestDrainOfLeasedTakesQuorum(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, web(director.Health{Pool: "blue", Quorum: 5, Sorry: []realserver.Server{server(99, 1)}}, 4))
		defer r.stop()
		r.SetLeases("blue", []realserver.Server{server(7, 3)})
		r.want(t, "both", "10.0.0.1=4 10.0.0.7=3")
		if _, err := r.DrainServer(context.Background(), by, director.Drain{Service: key, Server: addr(7)}); err != nil {
			t.Fatal(err)
		}
		r.want(t, "one drained", "10.0.0.1=0 10.0.0.7=0 10.0.0.99=1")
	})
}
