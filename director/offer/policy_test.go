package offer_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
)

// allUp has the first servers pass their checks.
func (r *rig) allUp(n int) {
	for i := range n {
		r.checks.say(addr(i+1), true)
	}
	synctest.Wait()
}

func TestQuorum(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := checked()
		h.Quorum, h.Hysteresis, h.Sorry = 5, 3, []realserver.Server{server(99, 1)}
		r := start(t, web(h, 4, 4))
		defer func() { r.stop() }()
		r.want(t, "nobody is up yet", "10.0.0.1=0 10.0.0.2=0 10.0.0.99=1")
		r.checks.say(first, true)
		r.want(t, "4 of 8", "10.0.0.1=0 10.0.0.2=0 10.0.0.99=1")
		r.checks.say(second, true)
		r.want(t, "8 of 8", "10.0.0.1=4 10.0.0.2=4")
		r.edit(t, func(s *director.Service) { s.Servers[1].Weight = 1 })
		r.want(t, "5 keep it", "10.0.0.1=4 10.0.0.2=1")
		r.checks.say(second, false)
		r.want(t, "4 do not", "10.0.0.1=0 10.0.0.2=0 10.0.0.99=1")
		if v := r.Verdicts(key)[0]; v.Quorum || !v.Sorry || v.Weight != 4 || v.Needed != 8 && v.Needed != 5 || len(v.Servers) != 3 || v.Servers[2].Origin != offer.FromSorry || !strings.HasSuffix(v.Servers[2].Why, "; sorry servers are not checked") {
			t.Errorf("verdict %+v", v)
		}
		r.checks.say(second, true)
		r.want(t, "5 do not give it back", "10.0.0.1=0 10.0.0.2=0 10.0.0.99=1")
		told := r.told()
		if !slices.Contains(told, "quorum-lost ") || !slices.Contains(told, "quorum-regained ") {
			t.Errorf("events %q", told)
		}
		r = r.restart(t)
		if ops := r.fake.Operations(); len(ops) != 0 {
			t.Errorf("a restart did %v", ops)
		}
	})
}

// A service that begins with its quorum has not lost it: the hysteresis does not count.
func TestQuorumAtFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t)
		defer func() { r.stop() }()
		h := director.Health{Quorum: 8, Hysteresis: 3, Sorry: []realserver.Server{server(99, 1)}}
		if _, err := r.AddService(context.Background(), by, web(h, 4, 4)); err != nil {
			t.Fatal(err)
		}
		r.want(t, "8 of 8", "10.0.0.1=4 10.0.0.2=4")
		if v := r.Verdicts(key)[0]; !v.Quorum || v.Sorry || v.Needed != 8 {
			t.Errorf("verdict %+v", v)
		}
	})
}

func TestPanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := checked()
		h.Panic = 50
		r := start(t, web(h, 1, 2, 3))
		defer func() { r.stop() }()
		r.want(t, "who never answered is not missed", "10.0.0.1=0 10.0.0.2=0 10.0.0.3=0")
		r.allUp(3)
		r.checks.say(first, false)
		r.want(t, "one down", "10.0.0.1=0 10.0.0.2=2 10.0.0.3=3")
		r.checks.say(second, false)
		r.want(t, "too many down", "10.0.0.1=1 10.0.0.2=2 10.0.0.3=3")
		// An order is not doubted.
		if _, err := r.SetOverride(context.Background(), by, director.Override{Service: key, Server: second}); err != nil {
			t.Fatal(err)
		}
		r.want(t, "one of two judged is up", "10.0.0.1=0 10.0.0.2=0 10.0.0.3=3")
		r.checks.say(third, false)
		r.want(t, "none is", "10.0.0.1=1 10.0.0.2=0 10.0.0.3=3")
		if v := r.verdict(t, first); v.Up || v.Weight != 1 {
			t.Errorf("verdict %+v", v)
		}
		r.allUp(3)
		r.want(t, "calm", "10.0.0.1=1 10.0.0.2=0 10.0.0.3=3")
		told := r.told()
		if !slices.Contains(told, "panic-on ") || !slices.Contains(told, "panic-off ") {
			t.Errorf("events %q", told)
		}
	})
}

func TestDamping(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := checked()
		h.Damping = director.Damping{Changes: 3, Within: time.Minute, Hold: 5 * time.Minute}
		r := start(t, web(h, 4))
		defer func() { r.stop() }()
		for _, up := range []bool{true, false, true} {
			r.checks.say(first, up)
			time.Sleep(20 * time.Second)
		}
		r.want(t, "two changes", "10.0.0.1=4")
		time.Sleep(2 * time.Minute) // they are forgotten
		for _, up := range []bool{false, true, false, true} {
			r.checks.say(first, up)
			time.Sleep(5 * time.Second)
		}
		r.want(t, "three changes in a minute", "10.0.0.1=0")
		if v := r.verdict(t, first); v.Up || v.Held.IsZero() || !slices.Contains(r.told(), "server-held 10.0.0.1:80") {
			t.Errorf("verdict %+v, events %q", v, r.told())
		}
		time.Sleep(5 * time.Minute)
		r.want(t, "after the hold", "10.0.0.1=4")
		if v := r.verdict(t, first); v.Changes != 7 { // with the end of the hold, and without what came under it
			t.Errorf("%d changes: %q", v.Changes, r.told())
		}
	})
}

func TestSlowStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := checked()
		h.SlowStart = 100 * time.Second
		r := start(t, web(h, 100, 100))
		defer func() { r.stop() }()
		r.allUp(2)
		r.want(t, "all begin together", "10.0.0.1=100 10.0.0.2=100")
		r.checks.say(first, false)
		r.want(t, "down", "10.0.0.1=0 10.0.0.2=100")
		r.checks.say(first, true)
		r.want(t, "back", "10.0.0.1=10 10.0.0.2=100")
		time.Sleep(45 * time.Second)
		r.want(t, "after 45 s", "10.0.0.1=50 10.0.0.2=100")
		r = r.restart(t)
		r.want(t, "a restart leaves the weight", "10.0.0.1=50 10.0.0.2=100")
		time.Sleep(time.Minute)
		r.want(t, "for a while", "10.0.0.1=100 10.0.0.2=100")
		if _, err := r.AddServer(context.Background(), by, key, server(3, 20)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.checks.say(third, true)
		r.want(t, "one that is added", "10.0.0.1=100 10.0.0.2=100 10.0.0.3=2")
		time.Sleep(101 * time.Second)
		r.want(t, "after its time", "10.0.0.1=100 10.0.0.2=100 10.0.0.3=20")
	})
}

// Who was ordered up is in its slow start; without the order it is down, and serves with
// all of its weight where checks are doubted.
// A restart in a slow start goes on with it.
func TestRestartGoesOnWithASlowStart(t *testing.T) {
	for _, weight := range []uint32{10, 1000} {
		bubble(t, func(t *testing.T) {
			h := checked()
			h.SlowStart = 10 * time.Minute
			r := start(t, web(h, weight, weight))
			defer func() { r.stop() }()
			r.allUp(2)
			r.checks.say(second, false)
			synctest.Wait()
			r.checks.say(second, true)
			time.Sleep(210 * time.Second)
			r.want(t, "before", fmt.Sprintf("10.0.0.1=%d 10.0.0.2=%d", weight, weight*40/100))
			r = r.restart(t)
			if ops := r.fake.Operations(); len(ops) != 0 {
				t.Errorf("a restart did %v", ops)
			}
			time.Sleep(150 * time.Second)
			r.want(t, "goes on", fmt.Sprintf("10.0.0.1=%d 10.0.0.2=%d", weight, weight*60/100))
			time.Sleep(5 * time.Minute)
			r.want(t, "ends", fmt.Sprintf("10.0.0.1=%d 10.0.0.2=%[1]d", weight))
		})
	}
}

func TestDoubtEndsASlowStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := checked()
		h.Panic, h.SlowStart = 50, 100*time.Second
		r := start(t, web(h, 100, 100))
		defer func() { r.stop() }()
		r.allUp(2)
		r.checks.say(first, false)
		r.want(t, "down", "10.0.0.1=0 10.0.0.2=100")
		if _, err := r.SetOverride(context.Background(), by, director.Override{Service: key, Server: first, Up: true}); err != nil {
			t.Fatal(err)
		}
		r.want(t, "ordered up", "10.0.0.1=100 10.0.0.2=100")
		r.checks.say(second, false)
		r.want(t, "doubted", "10.0.0.1=100 10.0.0.2=100")
		if _, err := r.ClearOverride(context.Background(), by, key, first); err != nil {
			t.Fatal(err)
		}
		r.want(t, "both doubted", "10.0.0.1=100 10.0.0.2=100")
	})
}

func TestPassive(t *testing.T) {
	suspended := func(t *testing.T, checks director.Health, then func(r *rig)) {
		t.Helper()
		bubble(t, func(t *testing.T) {
			h := checks
			h.Passive = director.Passive{Resets: 3, Within: time.Second, Suspend: 10 * time.Second}
			r := start(t, web(h, 4, 4))
			defer func() { r.stop() }()
			r.allUp(2)
			if got := r.witness.limits[key]; got != h.Passive {
				t.Errorf("the data plane counts %+v", got)
			}
			r.witness.suspend(key, first, 3)
			time.Sleep(210 * time.Millisecond)
			r.want(t, "suspended", "10.0.0.1=0 10.0.0.2=4")
			if v := r.verdict(t, first); !v.Suspended || v.Up || v.Why != "suspended: first packets: 3 reset" {
				t.Errorf("verdict %+v", v)
			}
			other := r.verdict(t, second)
			if v := r.verdict(t, first); v.Suspensions != 1 || v.Evidence == nil || v.Evidence.Resets != 3 || v.Changes != other.Changes+1 {
				t.Errorf("suspended %d times by %+v, %d changes", v.Suspensions, v.Evidence, v.Changes)
			}
			if other.Suspensions != 0 {
				t.Errorf("another: %+v", other)
			}
			then(r)
		})
	}
	t.Run("the_checks_contradict", func(t *testing.T) {
		suspended(t, checked(), func(r *rig) {
			if len(r.checks.suspected) != 1 || r.checks.suspected[0].Target.Server != first {
				t.Errorf("suspected %v", r.checks.suspected)
			}
			r.checks.say(first, true)
			r.want(t, "absolved", "10.0.0.1=4 10.0.0.2=4")
			if r.witness.isSuspended(first) {
				t.Error("the data plane has it suspended still")
			}
		})
	})
	t.Run("the_checks_confirm", func(t *testing.T) {
		suspended(t, checked(), func(r *rig) {
			r.checks.say(first, false)
			time.Sleep(time.Minute)
			r.want(t, "down", "10.0.0.1=0 10.0.0.2=4")
			r.checks.say(first, true)
			r.want(t, "up again", "10.0.0.1=4 10.0.0.2=4")
		})
	})
	t.Run("nobody_can_say", func(t *testing.T) {
		suspended(t, director.Health{}, func(r *rig) {
			time.Sleep(9 * time.Second)
			r.want(t, "before its time is over", "10.0.0.1=0 10.0.0.2=4")
			time.Sleep(2 * time.Second)
			r.want(t, "after", "10.0.0.1=4 10.0.0.2=4")
		})
	})
	t.Run("an_order_is_above_what_packets_tell", func(t *testing.T) {
		suspended(t, director.Health{}, func(r *rig) {
			if _, err := r.SetOverride(context.Background(), by, director.Override{Service: key, Server: first, Up: true}); err != nil {
				t.Fatal(err)
			}
			r.want(t, "ordered up", "10.0.0.1=4 10.0.0.2=4")
			if v := r.verdict(t, first); r.witness.isSuspended(first) || v.Suspended || !v.Up {
				t.Errorf("the data plane has it suspended still: %+v", v)
			}
			told := len(r.told())
			r.witness.suspend(key, first, 6)
			time.Sleep(210 * time.Millisecond)
			r.want(t, "accused again", "10.0.0.1=4 10.0.0.2=4")
			if v := r.verdict(t, first); r.witness.isSuspended(first) || v.Suspended || !v.Up {
				t.Errorf("accused again, the data plane has it suspended: %+v", v)
			}
			if more := r.told()[told:]; len(more) > 0 {
				t.Errorf("accused again: told %q", more)
			}
		})
	})
	t.Run("the_data_plane_cannot_be_told", func(t *testing.T) {
		suspended(t, checked(), func(r *rig) {
			r.witness.mu.Lock()
			r.witness.fail = errLost
			r.witness.mu.Unlock()
			r.checks.say(first, true)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			r.witness.mu.Lock()
			r.witness.fail = nil
			r.witness.mu.Unlock()
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if r.witness.isSuspended(first) {
				t.Error("the data plane has it suspended still")
			}
			r.want(t, "absolved", "10.0.0.1=4 10.0.0.2=4")
			told := slices.DeleteFunc(r.told(), func(s string) bool { return s != "health-trouble " })
			if len(told) == 0 || len(told) > 2 {
				t.Errorf("trouble told %d times", len(told))
			}
		})
	})
}

func TestLeases(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := checked()
		h.Pool = "blue"
		r := start(t, web(h, 4))
		defer func() { r.stop() }()
		r.allUp(1)
		r.SetLeases("blue", []realserver.Server{server(1, 9), server(7, 3)})
		r.SetLeases("red", []realserver.Server{server(8, 3)})
		r.want(t, "leased, and not asked yet", "10.0.0.1=4 10.0.0.7=0")
		r.checks.say(addr(7), true)
		r.want(t, "up", "10.0.0.1=4 10.0.0.7=3")
		if v := r.verdict(t, addr(7)); v.Origin != offer.FromLease {
			t.Errorf("verdict %+v", v)
		}
		// An order outlives the server's leases.
		down := director.Override{Service: r.State().Services[0].Key, Server: addr(7)}
		if _, err := r.SetOverride(context.Background(), director.Request{Who: "test"}, down); err != nil {
			t.Fatal(err)
		}
		r.want(t, "ordered down", "10.0.0.1=4 10.0.0.7=0")
		r.SetLeases("blue", nil)
		r.want(t, "ordered down and gone", "10.0.0.1=4")
		r.SetLeases("blue", []realserver.Server{server(7, 3)})
		r.want(t, "registered again", "10.0.0.1=4 10.0.0.7=0")
		r.checks.say(addr(7), true)
		r.want(t, "there again", "10.0.0.1=4 10.0.0.7=0")
		if _, err := r.ClearOverride(context.Background(), director.Request{Who: "test"}, down.Service, down.Server); err != nil {
			t.Fatal(err)
		}
		r.want(t, "left to its checks", "10.0.0.1=4 10.0.0.7=3")
		draining := server(7, 3)
		draining.Draining = true
		r.SetLeases("blue", []realserver.Server{draining})
		synctest.Wait()
		found, err := r.fake.Found(context.Background())
		if i := found.Services[0].Server(addr(7)); err != nil || i < 0 || !found.Services[0].Servers[i].Draining {
			t.Errorf("found %+v, error %v", found.Services[0].Servers, err)
		}
		if v := r.verdict(t, addr(7)); v.Steps[2].Why != "tcp check: the test says so; draining: it gets no new connections" {
			t.Errorf("verdict %+v", v)
		}
		// No order of an operator's is in the state, and what the kernel has is no drift.
		if err := r.Reconcile(context.Background()); err != nil || r.Drift().Found != 0 || len(r.State().Drains) != 0 {
			t.Errorf("error %v, drift %+v, drains %v", err, r.Drift(), r.State().Drains)
		}
		r.stop()
		r.fake.Operations()
		next := newRig(r.fake, r.store, nil)
		next.SetLeases("blue", []realserver.Server{draining})
		r = next.begin(t)
		if ops := r.fake.Operations(); len(ops) > 0 {
			t.Errorf("a restart did %v", ops)
		}
		r.SetLeases("blue", nil)
		r.want(t, "gone", "10.0.0.1=4")
		if len(r.State().Services[0].Servers) != 1 {
			t.Errorf("the configuration has %v", r.State().Services[0].Servers)
		}
	})
}

// A service gets no server of its pool that it could not have: nothing else of it, and
// of others, is to fail for that.
func TestLeasesThatDoNotSuit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := director.Health{Pool: "blue", Sorry: []realserver.Server{server(6, 1)}}
		r := start(t, web(h, 4))
		defer r.stop()
		other := server(5, 1)
		other.Address = netip.MustParseAddrPort("[2001:db8::5]:80")
		own := server(5, 1)
		own.Address = key.Address
		r.SetLeases("blue", []realserver.Server{server(6, 9), server(7, 3), other, own})
		r.want(t, "those that it can have", "10.0.0.1=4 10.0.0.7=3")
		r.SetLeases("blue", []realserver.Server{server(6, 9), server(7, 5), other, own})
		r.want(t, "another weight", "10.0.0.1=4 10.0.0.7=5")
		if n := r.events.Counts()[event.HealthTrouble]; n != 1 {
			t.Errorf("told %d times, want once", n)
		}
	})
}

func TestLoads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := checked()
		h.Pool, h.Load = "blue", director.LoadPolicy{Kind: director.LoadLinear, Minimum: 10, Maximum: 100, Silence: 30 * time.Second}
		r := start(t, web(h, 100, 100))
		defer func() { r.stop() }()
		r.allUp(2)
		for range 60 { // an agent of another pool changes nothing, whose address ever it says
			if err := r.ReportLoad("red", addr(2).Addr(), offer.LoadReport{At: time.Now(), Load: 1}); err != nil {
				t.Fatal(err)
			}
			if err := r.ReportLoad("blue", first.Addr(), offer.LoadReport{At: time.Now(), Load: 1}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		r.want(t, "a busy server", "10.0.0.1=10 10.0.0.2=100")
		if v := r.verdict(t, first); v.Steps[2].Weight != 100 || v.Steps[3].Weight != 10 || v.Steps[3].Why == "" || v.Load == nil || *v.Load != (offer.LoadState{Value: 1, Share: 0.1}) {
			t.Errorf("verdict %+v", v)
		}
		time.Sleep(time.Minute)
		r.want(t, "silent", "10.0.0.1=100 10.0.0.2=100")
		if v := r.verdict(t, first); v.Load != nil {
			t.Errorf("the load of a silent server: %+v", v.Load)
		}
		if r.ReportLoad("blue", first.Addr(), offer.LoadReport{At: time.Now(), Load: -1}) == nil {
			t.Error("a load of -1 was taken")
		}
		if err := r.ReportLoad("blue", netip.MustParseAddr("10.9.9.9"), offer.LoadReport{At: time.Now(), Load: -1}); err != nil {
			t.Errorf("a host that nobody knows: %v", err)
		}
	})
}
