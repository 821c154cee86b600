package offer_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
)

// held is what the kernel has of the service: weights by address.
func (r *rig) held() map[netip.AddrPort]uint32 {
	found, err := r.fake.Found(context.Background())
	if err != nil {
		panic(err)
	}
	servers := make(map[netip.AddrPort]uint32)
	for _, service := range found.Services {
		for _, s := range service.Servers {
			servers[s.Address] = s.Weight
		}
	}
	return servers
}

// ruled is what the verdicts say that the kernel has.
func (r *rig) ruled() map[netip.AddrPort]uint32 {
	servers := make(map[netip.AddrPort]uint32)
	for _, service := range r.Verdicts() {
		for _, v := range service.Servers {
			if !v.Withdrawn {
				servers[v.Server] = v.Weight
			}
		}
	}
	return servers
}

var byAddress = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// model is what a test remembers of what it did: enough to say who may be offered.
type model struct {
	down    map[netip.AddrPort]bool // by its checks
	ordered map[netip.AddrPort]bool // up or down
	did     []string
}

// does notes what happens.
func (m *model) does(at netip.AddrPort, what string) string {
	m.did = append(m.did, fmt.Sprintf("%s %s %s", time.Now().Format(time.TimeOnly), what, at.Addr()))
	return what
}

func genHealth(t *rapid.T) director.Health {
	h := checked()
	h.Initial = rapid.SampledFrom([]director.Initial{director.InitialDown, director.InitialUp}).Draw(t, "initial")
	h.Down = rapid.SampledFrom([]director.DownAction{director.DownInhibit, director.DownRemove}).Draw(t, "down")
	h.Quorum = rapid.Uint32Range(0, 6).Draw(t, "quorum")
	h.Hysteresis = rapid.Uint32Range(0, 3).Draw(t, "hysteresis")
	if rapid.Bool().Draw(t, "sorry") {
		h.Sorry = []realserver.Server{server(99, 1)}
	}
	h.Panic = rapid.SampledFrom([]uint8{0, 0, 40}).Draw(t, "panic")
	h.SlowStart = rapid.SampledFrom([]time.Duration{0, 20 * time.Second}).Draw(t, "slow start")
	if rapid.Bool().Draw(t, "damped") {
		h.Damping = director.Damping{Changes: 4, Within: time.Minute, Hold: 30 * time.Second}
	}
	if rapid.Bool().Draw(t, "passive") {
		h.Passive = director.Passive{Resets: 3, Within: time.Second, Suspend: 10 * time.Second}
	}
	h.Pool = "pool"
	return h
}

// Whatever happens in whatever order: once it is quiet the kernel has what the verdicts
// say, who failed its checks or was ordered down has no weight unless the checks are
// doubted, and another daemon over the same kernel changes nothing.
func TestKernelHoldsTheVerdicts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) { play(t, rt) })
	})
}

func play(t *testing.T, rt *rapid.T) {
	service := web(genHealth(rt), 2, 3, 4)
	r := newRig(directortest.NewFake(director.State{}), &directortest.Store{}, nil).begin(t, service)
	defer func() { r.stop() }()
	m := model{down: make(map[netip.AddrPort]bool), ordered: make(map[netip.AddrPort]bool)}
	for range rapid.IntRange(1, 25).Draw(rt, "happenings") {
		at := addr(rapid.IntRange(1, 5).Draw(rt, "server"))
		switch what := m.does(at, rapid.SampledFrom([]string{"up", "up", "down", "down", "order", "clear", "drain", "undrain", "wait", "suspend", "lease", "edit", "health", "remove", "restart", "meddle"}).Draw(rt, "happens")); what {
		case "up", "down":
			r.checks.say(at, what == "up")
			m.down[at] = what == "down"
		case "order":
			up := rapid.Bool().Draw(rt, "up")
			if _, err := r.SetOverride(context.Background(), by, director.Override{Service: key, Server: at, Up: up}); err == nil {
				m.ordered[at] = up
			}
		case "clear":
			if _, err := r.ClearOverride(context.Background(), by, key, at); err == nil {
				delete(m.ordered, at)
			}
		case "drain":
			_, _ = r.DrainServer(context.Background(), by, director.Drain{Service: key, Server: at})
		case "undrain":
			_, _ = r.CancelDrain(context.Background(), by, key, at)
		case "wait":
			time.Sleep(time.Duration(rapid.IntRange(1, 40).Draw(rt, "seconds")) * time.Second)
		case "suspend":
			r.witness.suspend(key, at, 3)
			time.Sleep(time.Second)
		case "lease":
			var servers []realserver.Server
			for i := range rapid.IntRange(0, 2).Draw(rt, "leases") {
				servers = append(servers, server(4+i, rapid.Uint32Range(1, 9).Draw(rt, "weight")))
			}
			r.SetLeases("pool", servers)
		case "edit":
			weight := rapid.Uint32Range(0, 5).Draw(rt, "weight")
			_, _ = r.EditServer(context.Background(), by, key, at, func(s *realserver.Server) error { s.Weight = weight; return nil })
		case "health":
			h := genHealth(rt)
			r.edit(t, func(s *director.Service) { s.Health = h })
		case "remove":
			if _, err := r.RemoveServer(context.Background(), by, key, at); err == nil {
				delete(m.ordered, at) // those of servers that leases added stay
			} else {
				_, err = r.AddServer(context.Background(), by, key, server(int(at.Addr().As4()[3]), 3))
				if err != nil {
					t.Fatal(err)
				}
			}
			delete(m.down, at)
		case "restart":
			r.quiet(t, &m)
			r.restartQuietly(t)
		case "meddle":
			r.fake.Meddle(func(s *director.State) {
				if len(s.Services[0].Servers) > 0 {
					s.Services[0].Servers[0].Weight = 77
				}
			})
			if err := r.Reconcile(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		r.quiet(t, &m)
	}
	r.restartQuietly(t)
}

// quiet waits until nothing happens, and compares.
func (r *rig) quiet(t *testing.T, m *model) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(r.ruled(), r.held(), byAddress); diff != "" {
		t.Fatalf("the kernel differs from the verdicts (-verdicts +kernel):\n%s\nevents %q after %q\n%+v", diff, r.told(), m.did, r.Verdicts()[0])
	}
	var drained []string
	for _, d := range r.State().Drains {
		if _, isThere := r.held()[d.Server]; isThere {
			drained = append(drained, d.Server.Addr().String())
		}
	}
	drains := r.draining(t)
	slices.Sort(drains)
	if diff := cmp.Diff(drained, drains); diff != "" {
		t.Fatalf("the kernel drains others than are ordered (-ordered +kernel):\n%s\nevents %q after %q\n%+v", diff, r.told(), m.did, r.Verdicts()[0])
	}
	for _, v := range r.Verdicts()[0].Servers {
		up, isOrdered := m.ordered[v.Server]
		switch {
		case v.Origin == offer.FromSorry:
		case isOrdered && v.Up != up:
			t.Fatalf("%s is ordered, up: %t; verdict %+v", v.Server, up, v)
		case isOrdered && !up && v.Weight != 0, !isOrdered && !v.Up && v.Weight != 0 && !r.Verdicts()[0].Panic:
			t.Fatalf("%s is down, but has a weight: %+v", v.Server, v)
		case !isOrdered && m.down[v.Server] && v.Up && len(v.Checks) > 0 && v.Checks[0].Status.Known && !v.Checks[0].Status.Up:
			t.Fatalf("%s failed its checks, and is up: %+v", v.Server, v)
		}
	}
}

// restartQuietly has another daemon take over from the kernel and the store, once slow
// starts and suspensions are over; it must change nothing.
func (r *rig) restartQuietly(t *testing.T) {
	t.Helper()
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	verdicts := r.Verdicts()[0]
	if verdicts.Panic {
		return // what is doubted is begun with as it serves: the checks say it anew
	}
	before := fmt.Sprint(r.held())
	leases := r.leases()
	r.stop()
	r.fake.Operations()
	next := newRig(r.fake, r.store, nil)
	next.SetLeases("pool", leases)
	next.begin(t)
	r.Director, r.Keeper, r.checks, r.witness, r.events, r.stop = next.Director, next.Keeper, next.checks, next.witness, next.events, next.stop
	synctest.Wait()
	if ops := r.fake.Operations(); len(ops) > 0 {
		t.Fatalf("a restart did %v; the kernel had %s, the verdicts were %+v", ops, before, verdicts)
	}
}

// leases returns the servers that leases added.
func (r *rig) leases() (all []realserver.Server) {
	for _, v := range r.Verdicts()[0].Servers {
		if v.Origin == offer.FromLease {
			leased := server(int(v.Server.Addr().As4()[3]), v.Steps[0].Weight)
			all = append(all, leased)
		}
	}
	return all
}
