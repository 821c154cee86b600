package health

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// From one probe of a key to the next it is its interval, give or take a tenth, each
// time another part of it; only the first one of a key that is not known may be followed
// sooner.
func TestMonitorKeepsIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys, interval = 100, 10 * time.Second
		var mu sync.Mutex
		asked := map[netip.AddrPort][]time.Time{}
		l := start(t, Options{}, func(_ context.Context, server netip.AddrPort) Result {
			mu.Lock()
			defer mu.Unlock()
			asked[server] = append(asked[server], time.Now())
			return Result{}
		})
		var assignments []Assignment
		for i := range keys {
			a := assignment(i, realserver.Check{Kind: realserver.CheckTCP, Interval: interval})
			a.Up, a.Known = true, i%2 == 0
			assignments = append(assignments, a)
		}
		l.Set(assignments)
		time.Sleep(2 * time.Minute)
		l.stop()
		var all []time.Duration
		for _, a := range assignments {
			times := asked[a.Target.Server]
			if len(times) < 10 {
				t.Fatalf("%v was asked %d times", a.Target.Server, len(times))
			}
			if !a.Known {
				if first := times[1].Sub(times[0]); first < interval/10 || first > interval+coalesce {
					t.Errorf("the second probe of %v came after %v", a.Target.Server, first)
				}
				times = times[1:]
			}
			var gaps []time.Duration
			for i := range times[1:] {
				gaps = append(gaps, times[i+1].Sub(times[i]))
			}
			if least, most := slices.Min(gaps), slices.Max(gaps); least < interval*9/10 || most > interval*11/10+coalesce || most-least < interval/50 {
				t.Errorf("%v: from %v to %v between probes", a.Target.Server, least, most)
			}
			all = append(all, gaps...)
		}
		if least, most := slices.Min(all), slices.Max(all); least > interval*91/100 || most < interval*109/100 {
			t.Errorf("from %v to %v between all probes: that is no tenth either way", least, most)
		}
	})
}

// A retry of less than nothing drives nobody round.
func TestMonitorIsNotDrivenRoundByABadRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, Options{}, func(context.Context, netip.AddrPort) Result { return Result{Err: errRefused} })
		defer l.stop()
		bad := assignment(1, realserver.Check{Kind: realserver.CheckTCP, Interval: time.Second, Retry: -1, Fall: 60000})
		bad.Up, bad.Known = true, true
		l.Set([]Assignment{bad})
		time.Sleep(2 * time.Second)
		if n := l.Stats().Probes; n < 50 || n > 201 {
			t.Errorf("%d probes in two seconds", n)
		}
	})
}

// However often packets speak against a server that passes, it is asked four times in
// the time of a retry at most.
func TestMonitorIsNotDrivenRoundBySuspicions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		l := start(t, Options{}, func(context.Context, netip.AddrPort) Result {
			asked.Add(1)
			return Result{}
		})
		defer l.stop()
		a := assignment(1, realserver.Check{Kind: realserver.CheckTCP, Interval: time.Hour, Retry: time.Second, Rise: 1})
		l.Set([]Assignment{a})
		for range 10_000 {
			l.Suspect(a.Key)
			time.Sleep(time.Millisecond)
		}
		if n := asked.Load(); n < 20 || n > 4*10+2 {
			t.Errorf("%d probes in ten seconds", n)
		}
	})
}

// A probe that began before a suspicion cannot contradict it, but confirm it.
func TestMonitorBelievesAFailureThatBeganBeforeTheSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, Options{}, func(context.Context, netip.AddrPort) Result {
			time.Sleep(time.Second)
			return Result{Err: errRefused}
		})
		defer l.stop()
		a := assignment(1, realserver.Check{Kind: realserver.CheckTCP, Interval: time.Hour, Retry: time.Minute, Fall: 1})
		a.Up = true
		l.Set([]Assignment{a})
		synctest.Wait()
		l.Suspect(a.Key)
		time.Sleep(1100 * time.Millisecond)
		if s, _ := l.Status(a.Key); s.Up || s.Suspected || s.Failures != 1 {
			t.Errorf("after its failure: %+v", s)
		}
	})
}
