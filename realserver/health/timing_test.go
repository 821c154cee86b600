package health

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// What waits for a place is late, and Run is not; a Run that is held up is behind.
func TestMonitorLagAndBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, held := make(chan struct{}), make(chan struct{})
		l := start(t, Options{Running: 1, Changed: func([]Change) { <-held }}, func(ctx context.Context, server netip.AddrPort) Result {
			if server == serverOf(1) {
				<-ctx.Done()
				<-release
			}
			return Result{}
		})
		slow := plain
		slow.Timeout, slow.Interval = 10*time.Second, 10*time.Second
		first := assignment(1, slow)
		l.Set([]Assignment{first})
		time.Sleep(time.Second)
		l.Set([]Assignment{first, assignment(2, plain)})
		time.Sleep(5 * time.Second)
		if s := l.Stats(); s.Lag < 4*time.Second || s.Waiting != 1 || l.Behind() > 0 {
			t.Errorf("behind a slow probe: %+v, behind %s", s, l.Behind())
		}
		close(release)
		time.Sleep(30 * time.Second) // what changed is told, and that does not return
		if l.Behind() < 10*time.Second {
			t.Errorf("behind by %s while Changed does not return", l.Behind())
		}
		close(held)
		time.Sleep(30 * time.Second)
		if s := l.Stats(); l.Behind() > 0 || s.Lag > 10*time.Second {
			t.Errorf("behind by %s, %+v", l.Behind(), s)
		}
		l.stop()
		if l.Behind() > 0 {
			t.Errorf("behind by %s after its end", l.Behind())
		}
	})
}

func TestMonitorTimings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, Options{}, func(_ context.Context, server netip.AddrPort) Result {
			if server == serverOf(1) {
				return Result{Took: 5 * time.Millisecond}
			}
			return Result{Err: errRefused, Took: 20 * time.Second}
		})
		l.Set([]Assignment{assignment(1, plain), assignment(2, plain)})
		time.Sleep(time.Minute)
		l.stop()
		s := l.Stats()
		if len(s.Timings) != 2 || s.Timings[0].Passed || !s.Timings[1].Passed || s.Timings[0].Count+s.Timings[1].Count != s.Probes {
			t.Fatalf("%+v", s)
		}
		failed, passed := s.Timings[0], s.Timings[1]
		if failed.Sum != 20*time.Second*time.Duration(failed.Count) || slices.Max(failed.AtMost) != 0 {
			t.Errorf("failed: %+v", failed)
		}
		for i, bound := range TimingBounds() {
			want := passed.Count
			if bound < 5*time.Millisecond {
				want = 0
			}
			if passed.AtMost[i] != want {
				t.Errorf("at most %s: %d of %d", bound, passed.AtMost[i], passed.Count)
			}
		}
	})
}
