package offer_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

func TestKeeper(t *testing.T) {
	t.Run("nothing_is_offered_before_its_first_success", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := start(t, web(checked(), 5, 7))
			defer func() { r.stop() }()
			r.want(t, "before", "10.0.0.1=0 10.0.0.2=0")
			r.checks.say(first, true)
			r.want(t, "after the first", "10.0.0.1=5 10.0.0.2=0")
			r.checks.say(first, false)
			r.want(t, "down again", "10.0.0.1=0 10.0.0.2=0")
			if told := r.told(); !slices.Contains(told, "server-up 10.0.0.1:80") || !slices.Contains(told, "server-down 10.0.0.1:80") {
				t.Errorf("events %q", told)
			}
			v := r.verdict(t, first)
			if v.Up || v.Why != "tcp check: the test says so" || len(v.Checks) != 1 || v.Steps[0].Weight != 5 || v.Steps[2].Weight != 0 {
				t.Errorf("verdict %+v", v)
			}
			changes := r.Keeper.History(director.ServiceKey{}, first, 0)
			if len(changes) != 2 || changes[0].What != offer.EventDown || changes[1].What != offer.EventUp {
				t.Errorf("history %+v", changes)
			}
		})
	})
	t.Run("initially_up_is_offered_until_it_fails", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h := checked()
			h.Initial, h.Down = director.InitialUp, director.DownRemove
			r := start(t, web(h, 5, 7))
			defer func() { r.stop() }()
			r.want(t, "before", "10.0.0.1=5 10.0.0.2=7")
			r.checks.say(first, false)
			r.want(t, "removed", "10.0.0.2=7")
			r = r.restart(t)
			r.want(t, "after a restart", "10.0.0.2=7")
			if ops := r.fake.Operations(); len(ops) != 0 {
				t.Errorf("a restart did %v", ops)
			}
		})
	})
	t.Run("a_server_added_begins_as_configured_however_the_others_are", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := start(t, web(checked(), 5))
			defer func() { r.stop() }()
			r.checks.say(first, true)
			synctest.Wait()
			if _, err := r.AddServer(context.Background(), by, key, server(2, 9)); err != nil {
				t.Fatal(err)
			}
			r.want(t, "added", "10.0.0.1=5 10.0.0.2=0")
			r.checks.say(second, true)
			r.want(t, "passed", "10.0.0.1=5 10.0.0.2=9")
			// Checks that come to a service in use take nobody out before they fail.
			r.edit(t, func(s *director.Service) {
				s.Health.Checks = append(slices.Clone(s.Health.Checks), realserver.Check{Kind: realserver.CheckICMP})
			})
			r.want(t, "another check", "10.0.0.1=5 10.0.0.2=9")
			r.edit(t, func(s *director.Service) { s.Health = director.Health{} })
			r.edit(t, func(s *director.Service) { s.Health = checked() })
			r.want(t, "checks that begin", "10.0.0.1=5 10.0.0.2=9")
		})
	})
	t.Run("a_restart_goes_on_from_what_the_kernel_holds", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := start(t, web(checked(), 5, 7))
			defer func() { r.stop() }()
			r.checks.say(first, true)
			r.checks.say(second, false)
			r.want(t, "before", "10.0.0.1=5 10.0.0.2=0")
			r = r.restart(t)
			r.want(t, "after", "10.0.0.1=5 10.0.0.2=0")
			if ops := r.fake.Operations(); len(ops) != 0 {
				t.Errorf("a restart did %v", ops)
			}
		})
	})
	t.Run("an_order_is_above_the_checks_and_ends_with_its_time", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := start(t, web(checked(), 5, 7))
			defer func() { r.stop() }()
			r.checks.say(first, true)
			synctest.Wait()
			until := time.Now().Add(time.Hour)
			for addr, up := range map[int]bool{1: false, 2: true} {
				if _, err := r.SetOverride(context.Background(), by, director.Override{Service: key, Server: server(addr, 0).Address, Up: up, Until: until}); err != nil {
					t.Fatal(err)
				}
			}
			r.want(t, "ordered", "10.0.0.1=0 10.0.0.2=7")
			r = r.restart(t)
			r.want(t, "after a restart", "10.0.0.1=0 10.0.0.2=7")
			if v := r.verdict(t, first); v.Up || v.Steps[1].Why == "" || v.Why != v.Steps[1].Why {
				t.Errorf("verdict %+v", v)
			}
			r.checks.say(first, true)
			r.checks.say(second, false)
			time.Sleep(time.Hour + time.Second)
			r.want(t, "ended", "10.0.0.1=5 10.0.0.2=0")
			if left := r.State().Overrides; len(left) != 0 {
				t.Errorf("overrides %+v", left)
			}
			if info, err := r.Director.History(0, 1); err != nil || info[0].Who != "shunt" {
				t.Errorf("the last change is %+v, error %v", info, err)
			}
		})
	})
	t.Run("an_order_that_cannot_be_withdrawn_counts_no_more", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := start(t, web(director.Health{}, 5))
			defer func() { r.stop() }()
			order := director.Override{Service: key, Server: first, Until: time.Now().Add(time.Minute)}
			if _, err := r.SetOverride(context.Background(), by, order); err != nil {
				t.Fatal(err)
			}
			r.want(t, "ordered", "10.0.0.1=0")
			r.store.FailWrites(errLost)
			time.Sleep(time.Minute + 3*time.Second)
			r.want(t, "ended", "10.0.0.1=5")
			r.store.FailWrites(nil)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if left := r.State().Overrides; len(left) != 0 {
				t.Errorf("overrides %+v", left)
			}
		})
	})
	t.Run("checks_that_tell_weights_are_followed", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			h := director.Health{Checks: []realserver.Check{{Kind: realserver.CheckScript, Script: &realserver.ScriptCheck{Command: []string{"/bin/true"}}}}}
			r := start(t, web(h, 5))
			defer func() { r.stop() }()
			told := int64(3)
			r.checks.tell(first, func(s *health.Status) { s.Up, s.Weight = true, &told })
			r.want(t, "three more", "10.0.0.1=8")
			zero := int64(0)
			r.checks.tell(first, func(s *health.Status) { s.Weight, s.Absolute = &zero, true })
			r.want(t, "a weight of 0", "10.0.0.1=0")
			if v := r.verdict(t, first); !v.Up {
				t.Errorf("verdict %+v: it is up, with a weight of 0", v)
			}
			large := int64(1 << 40)
			r.checks.tell(first, func(s *health.Status) { s.Weight, s.Absolute = &large, true })
			r.want(t, "too large a weight", "10.0.0.1=65535")
		})
	})
}

// A turn that does not end says for how long it has not.
func TestBusy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, web(checked(), 4))
		r.allUp(1)
		if r.Busy() != 0 {
			t.Errorf("busy for %s with nothing to do", r.Busy())
		}
		r.stop()
		k := offer.New(offer.Options{Packet: slowWitness{time.Minute}})
		k.Desired(director.State{Services: []director.Service{web(director.Health{Passive: director.Passive{Resets: 1}}, 4)}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Run(ctx, r.Director) }()
		time.Sleep(40 * time.Second)
		if k.Busy() != 40*time.Second {
			t.Errorf("busy for %s, want 40s", k.Busy())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// slowWitness takes its time.
type slowWitness struct{ time.Duration }

func (w slowWitness) SetPassive(context.Context, director.ServiceKey, director.Passive) error {
	time.Sleep(w.Duration)
	return nil
}

func (w slowWitness) Evidence(context.Context) ([]director.Evidence, error) {
	return nil, nil
}

func (w slowWitness) Absolve(context.Context, director.ServiceKey, netip.AddrPort) error { return nil }
