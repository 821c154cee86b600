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

// most returns how many of the times fall into the fullest slot of the width given.
func most(times []time.Time, width time.Duration) int {
	count, fullest := map[time.Time]int{}, 0
	for _, t := range times {
		slot := t.Truncate(width)
		count[slot]++
		fullest = max(fullest, count[slot])
	}
	return fullest
}

func TestMonitorSpreadsThousands(t *testing.T) {
	for _, c := range []struct {
		name  string
		known bool
		first time.Duration // when all have been asked
	}{
		{"unknown", false, 2 * time.Second},
		{"known", true, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const keys = 2000
				var mu sync.Mutex
				var asked []time.Time
				l := start(t, Options{}, func(context.Context, netip.AddrPort) Result {
					mu.Lock()
					defer mu.Unlock()
					asked = append(asked, time.Now())
					return Result{}
				})
				var assignments []Assignment
				for i := range keys {
					a := assignment(i, plain)
					a.Up, a.Known = c.known, c.known
					assignments = append(assignments, a)
				}
				began := time.Now()
				l.Set(assignments)
				time.Sleep(21 * time.Second)
				l.stop()
				if last := asked[keys-1].Sub(began); last > c.first+coalesce {
					t.Errorf("the last first probe came after %v", last)
				}
				// Evenly, a slot of 100 ms has 40 of 2000 in 5 s. At first they are closer.
				const width, even = 100 * time.Millisecond, 40
				settled := slices.IndexFunc(asked, func(at time.Time) bool { return at.Sub(began) > c.first })
				first, later := most(asked[:settled], width), most(asked[settled:], width)
				t.Logf("%d probes; the fullest 100 ms have %d at first, %d later", len(asked), first, later)
				if first > 150 || later > 2*even+10 {
					t.Errorf("the fullest 100 ms have %d at first, %d later; evenly it is %d", first, later, even)
				}
				if n := len(asked[settled:]); n < keys*3 || n > keys*5 {
					t.Errorf("%d probes of %d keys in the last four intervals", n, keys)
				}
			})
		})
	}
}

func TestMonitorFindsAHungServerWithinItsIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys = 500
		var hung atomic.Bool
		var mostAtOnce, now atomic.Int64
		l := start(t, Options{}, func(ctx context.Context, _ netip.AddrPort) Result {
			if !hung.Load() {
				return Result{}
			}
			n := now.Add(1)
			defer now.Add(-1)
			if n > mostAtOnce.Load() {
				mostAtOnce.Store(n)
			}
			<-ctx.Done()
			return Result{Err: ctx.Err()}
		})
		check := plain.WithDefaults()
		var assignments []Assignment
		for i := range keys {
			assignments = append(assignments, assignment(i, check))
		}
		l.Set(assignments)
		time.Sleep(time.Minute)
		l.told()
		hung.Store(true)
		began := time.Now()
		time.Sleep(time.Minute)
		told := l.told()
		l.stop()
		var sum, worst time.Duration
		for _, change := range told {
			took := change.At.Sub(began)
			sum, worst = sum+took, max(worst, took)
		}
		limit := check.Interval*time.Duration(check.Fall) + check.Timeout
		if len(told) != keys || worst > limit {
			t.Fatalf("%d of %d found, the last after %v; the limit is %v", len(told), keys, worst, limit)
		}
		t.Logf("found after %v on average, %v at most, by the defaults; %d hung at once", sum/keys, worst, mostAtOnce.Load())
	})
}

func TestMonitorRunsNoMoreProbesThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, asked atomic.Int64
		l := start(t, Options{Running: 3}, func(ctx context.Context, _ netip.AddrPort) Result {
			if n := now.Add(1); n > 3 {
				t.Errorf("%d probes at a time", n)
			}
			defer now.Add(-1)
			asked.Add(1)
			<-ctx.Done()
			return Result{Err: ctx.Err()}
		})
		var assignments []Assignment
		for i := range 30 {
			assignments = append(assignments, assignment(i, plain))
		}
		l.Set(assignments)
		time.Sleep(time.Second)
		if s := l.Stats(); s.Running != 3 || s.Waiting != 27 {
			t.Errorf("stats %+v", s)
		}
		time.Sleep(20 * time.Second)
		l.stop()
		// 3 at a time, 2 s each: the longest due come first, so all have had their turn.
		if n := asked.Load(); n < 30 || n > 33 {
			t.Errorf("%d probes in 21 s, want 30 to 33", n)
		}
		for _, a := range assignments {
			if _, ok := l.Status(a.Key); ok {
				t.Fatal("a status after Run has ended")
			}
		}
	})
}

func TestMonitorIsSafeForConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, Options{Running: 20}, func(_ context.Context, server netip.AddrPort) Result {
			time.Sleep(time.Duration(server.Addr().As4()[3]) * 100 * time.Millisecond)
			if server.Addr().As4()[3]%3 == 0 {
				return Result{Err: errRefused}
			}
			return Result{}
		})
		var all []Assignment
		for i := range 40 {
			a := assignment(i, realserver.Check{Kind: realserver.CheckTCP, Interval: time.Second, Timeout: time.Second, Retry: 100 * time.Millisecond})
			a.Up = true
			all = append(all, a)
		}
		var wg sync.WaitGroup
		for worker := range 4 {
			wg.Go(func() {
				for i := range 100 {
					l.Set(all[:(worker*17+i*7)%len(all)])
					l.Suspect(all[i%len(all)].Key)
					l.Status(all[(i+worker)%len(all)].Key)
					l.Stats()
					time.Sleep(37 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		l.stop()
		s := l.Stats()
		if s.Probes < 100 || s.Stale == 0 || s.Overruns == 0 || s.Running != 0 || s.Keys != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestHashTellsKeysApart(t *testing.T) {
	seen := map[uint64]Key{}
	for _, check := range []string{"", "a", "b"} {
		for _, via := range []string{"", "a"} {
			for _, server := range []netip.AddrPort{{}, serverOf(1), serverOf(2)} {
				for _, virtual := range []netip.AddrPort{{}, serverOf(1)} {
					k := Key{Check: check, Target: Target{Server: server, Virtual: virtual, Via: via}}
					if other, ok := seen[k.hash()]; ok {
						t.Errorf("%+v and %+v have one place", k, other)
					}
					seen[k.hash()] = k
				}
			}
		}
	}
}
