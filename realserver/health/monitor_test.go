package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// scripted is a prober made of a function. It fails the test if it is called as no
// prober may be.
type scripted struct {
	t       *testing.T
	probe   func(ctx context.Context) Result
	running atomic.Int32
	closed  atomic.Int32
}

func (s *scripted) Probe(ctx context.Context) Result {
	if s.running.Add(1) != 1 {
		s.t.Error("a probe was started on top of another")
	}
	defer s.running.Add(-1)
	if s.closed.Load() != 0 {
		s.t.Error("a probe was started after Close")
	}
	return s.probe(ctx)
}

func (s *scripted) Close() {
	if s.closed.Add(1) != 1 {
		s.t.Error("closed twice")
	}
	if s.running.Load() != 0 {
		s.t.Error("closed while a probe runs")
	}
}

var errRefused = errors.New("connection refused")

// lab is a running Monitor of scripted probers.
type lab struct {
	*Monitor
	stop func()

	mu      sync.Mutex
	changes []Change
	made    []*scripted
}

// start runs a Monitor, in a bubble, whose probers of server do what probe says. All
// probers are closed once at the end.
func start(t *testing.T, opts Options, probe func(ctx context.Context, server netip.AddrPort) Result) *lab {
	t.Helper()
	l := &lab{}
	opts.New = func(_ realserver.Check, target Target, _ Dial) (Prober, error) {
		s := &scripted{t: t, probe: func(ctx context.Context) Result { return probe(ctx, target.Server) }}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.made = append(l.made, s)
		return s, nil
	}
	first := opts.Changed
	opts.Changed = func(changes []Change) {
		if first != nil {
			first(changes)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changes = append(l.changes, changes...)
	}
	l.Monitor = NewMonitor(opts)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	l.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		time.Sleep(time.Hour) // probes that outlive Run end
		synctest.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, s := range l.made {
			if s.closed.Load() != 1 {
				t.Errorf("a prober was closed %d times", s.closed.Load())
			}
		}
	}
	return l
}

// told returns the changes so far, and forgets them.
func (l *lab) told() []Change {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.changes
	l.changes = nil
	return told
}

func serverOf(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
}

func assignment(i int, check realserver.Check) Assignment {
	return Assignment{Key: Key{Check: check.Key(), Target: Target{Server: serverOf(i)}}, Check: check}
}

var plain = realserver.Check{Kind: realserver.CheckTCP}

func TestMonitorTellsUpAndDownAndWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		l := start(t, Options{}, func(context.Context, netip.AddrPort) Result {
			if down.Load() {
				return Result{Err: errRefused}
			}
			return Result{Detail: "200 OK\nand more"}
		})
		defer l.stop()
		a := assignment(1, plain)
		began := time.Now()
		l.Set([]Assignment{a})
		told := l.told()
		if len(told) != 1 || told[0].Was || !told[0].Up || !told[0].Known || told[0].Key != a.Key || told[0].Reason != "passed once at first: 200 OK" || !told[0].At.Equal(began) {
			t.Fatalf("after the first success: %+v", told)
		}
		time.Sleep(20 * time.Second)
		down.Store(true)
		fell := time.Now()
		time.Sleep(9 * time.Second)
		told = l.told()
		if len(told) != 1 || told[0].Up || !told[0].Was || told[0].Reason != "failed 3 times in a row: connection refused" {
			t.Fatalf("after failures: %+v", told)
		}
		if took := told[0].At.Sub(fell); took > 5500*time.Millisecond+2*1100*time.Millisecond {
			t.Errorf("down after %v: the retries were not faster", took)
		}
		down.Store(false)
		time.Sleep(8 * time.Second)
		if told = l.told(); len(told) != 1 || !told[0].Up || told[0].Reason != "passed 2 times in a row: 200 OK" {
			t.Fatalf("after it came back: %+v", told)
		}
		s, ok := l.Status(a.Key)
		if !ok || !s.Up || !s.Since.Equal(told[0].At) || s.Reason != told[0].Reason || len(s.Last) != 8 || s.Last[0].Err != nil || s.Failures < 3 || s.Successes < 6 {
			t.Errorf("status %+v", s)
		}
		if s.Last[0].At.Before(s.Last[1].At) {
			t.Errorf("results, the newest first: %+v", s.Last)
		}
		s.Last = nil
		if now, ok := l.Now(a.Key); !ok || !reflect.DeepEqual(now, s) {
			t.Errorf("now %+v, want %+v", now, s)
		}
	})
}

func TestMonitorAsksOnceForEqualKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		l := start(t, Options{}, func(context.Context, netip.AddrPort) Result {
			asked.Add(1)
			return Result{}
		})
		defer l.stop()
		other := assignment(1, plain)
		other.Target.Via = "tcp/192.0.2.1:80"
		l.Set([]Assignment{assignment(1, plain), assignment(1, plain), other})
		time.Sleep(time.Second)
		if n := asked.Load(); n != 2 {
			t.Errorf("%d probes for two ways to one server", n)
		}
		l.Set([]Assignment{other})
		if _, ok := l.Status(assignment(1, plain).Key); ok {
			t.Error("what is asked no more has a status")
		}
		if s := l.Stats(); s.Keys != 1 || len(l.made) != 2 || l.made[0].closed.Load()+l.made[1].closed.Load() != 1 {
			t.Errorf("%+v after one of two was removed", s)
		}
	})
}

func TestMonitorDoesNotHearWhatIsAskedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var asked atomic.Int32
		l := start(t, Options{}, func(ctx context.Context, _ netip.AddrPort) Result {
			if asked.Add(1) == 1 {
				<-ctx.Done()
				<-release
				return Result{}
			}
			return Result{Err: errRefused}
		})
		defer l.stop()
		a := assignment(1, plain)
		l.Set([]Assignment{a})
		synctest.Wait()
		l.Set(nil)
		if _, ok := l.Status(a.Key); ok || len(l.made) != 1 || l.made[0].closed.Load() != 0 {
			t.Error("removed while its probe runs: it has a status, or was closed")
		}
		l.Set([]Assignment{a}) // it is back before that probe has ended
		close(release)
		told := l.told()
		if len(told) != 1 || told[0].Up || asked.Load() != 2 || len(l.made) != 1 {
			t.Errorf("told %+v after %d probes of %d probers", told, asked.Load(), len(l.made))
		}
		if s := l.Stats(); s.Stale != 1 || s.Probes != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestMonitorKeepsAProbeThatDoesNotEndOutOfTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var log strings.Builder
		l := start(t, Options{Running: 1, Log: slog.New(slog.NewTextHandler(&log, nil))}, func(_ context.Context, server netip.AddrPort) Result {
			if server == serverOf(1) {
				<-release
			}
			return Result{}
		})
		stuck, well := assignment(1, plain), assignment(2, plain)
		stuck.Up, stuck.Known = true, true
		began := time.Now()
		l.Set([]Assignment{stuck, well})
		time.Sleep(17 * time.Second)
		s, _ := l.Status(stuck.Key)
		if s.Up || !s.Overdue || s.Since.Sub(began) > 17*time.Second || !strings.Contains(s.Reason, "failed 3 times in a row: the probe of") {
			t.Errorf("a probe that does not end: %+v", s)
		}
		if s, _ := l.Status(well.Key); !s.Up || s.Successes < 3 {
			t.Errorf("another behind it: %+v", s)
		}
		if s := l.Stats(); s.Overdue != 1 || s.Overruns != 1 || s.Running != 0 {
			t.Errorf("stats %+v", s)
		}
		close(release)
		time.Sleep(12 * time.Second)
		if s, _ := l.Status(stuck.Key); !s.Up || s.Overdue {
			t.Errorf("after it ended: %+v", s)
		}
		l.stop()
		if s := l.Stats(); s.Stale != 1 || strings.Count(log.String(), "does not end") != 1 {
			t.Errorf("stats %+v, log %s", s, log.String())
		}
	})
}

func TestMonitorTakesAPanicForAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		l := start(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, func(context.Context, netip.AddrPort) Result {
			panic("index out of range")
		})
		l.Set([]Assignment{assignment(1, plain)})
		told := l.told()
		if len(told) != 1 || told[0].Up || !strings.Contains(told[0].Reason, "panic: index out of range") {
			t.Errorf("told %+v", told)
		}
		l.stop()
		if s := l.Stats(); s.Panics != 1 || !strings.Contains(log.String(), "monitor_test.go") {
			t.Errorf("stats %+v, log without the place: %s", s, log.String())
		}
	})
}

func TestMonitorBlamesNoServerForItsOwnWant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		var want atomic.Bool
		l := start(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, func(context.Context, netip.AddrPort) Result {
			if want.Load() {
				return Result{Err: fmt.Errorf("connect: %w", os.NewSyscallError("socket", syscall.EMFILE))}
			}
			return Result{}
		})
		a, fresh := assignment(1, plain), assignment(2, plain)
		l.Set([]Assignment{a})
		time.Sleep(20 * time.Second)
		l.told()
		want.Store(true)
		l.Set([]Assignment{a, fresh})
		time.Sleep(19 * time.Second)
		if told := l.told(); len(told) != 0 {
			t.Errorf("told %+v", told)
		}
		if s, _ := l.Status(a.Key); !s.Up || s.Failures != 0 || !errors.Is(s.Last[0].Err, syscall.EMFILE) {
			t.Errorf("what was up: %+v", s)
		}
		if s, _ := l.Status(fresh.Key); s.Up || s.Known {
			t.Errorf("what is new: %+v", s)
		}
		l.stop()
		if s := l.Stats(); s.Unasked < 10 || strings.Count(log.String(), "cannot be asked") != 2 {
			t.Errorf("stats %+v, log %s", s, log.String())
		}
	})
}

func TestMonitorIsNotDrivenRoundByABadCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMonitor(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.Run(ctx) }()
		bad := assignment(1, realserver.Check{Kind: "no such", Interval: -time.Hour, Timeout: -1, Retry: -1})
		m.Set([]Assignment{bad})
		time.Sleep(time.Second)
		if s, _ := m.Status(bad.Key); s.Up || !s.Known || !strings.Contains(s.Reason, "no such") {
			t.Errorf("status %+v", s)
		}
		if n := m.Stats().Probes; n > 101 {
			t.Errorf("%d probes in a second", n)
		}
		if err := m.Run(ctx); err == nil || err.Error() != "run the checks: they run already" {
			t.Errorf("run again: %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestMonitorMakesAProberAgainThatCouldNotBeMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Bool
		m := NewMonitor(Options{New: func(realserver.Check, Target, Dial) (Prober, error) {
			if !made.Load() {
				return nil, errors.New("open /etc/ca.pem: no such file or directory")
			}
			return &scripted{t: t, probe: func(context.Context) Result { return Result{} }}, nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		go m.Run(ctx)
		a := assignment(1, plain)
		m.Set([]Assignment{a})
		synctest.Wait()
		if s, _ := m.Status(a.Key); s.Up || !s.Known || s.Reason != "failed once at first: make the probe: open /etc/ca.pem: no such file or directory" {
			t.Errorf("without its prober: %+v", s)
		}
		made.Store(true)
		time.Sleep(12 * time.Second)
		if s, _ := m.Status(a.Key); !s.Up {
			t.Errorf("with it: %+v", s)
		}
		cancel()
		synctest.Wait()
	})
}

func TestMonitorGoesOnFromWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, Options{}, func(context.Context, netip.AddrPort) Result { return Result{Err: errRefused} })
		defer l.stop()
		assumed, known := assignment(1, plain), assignment(2, plain)
		assumed.Up = true
		known.Up, known.Known = true, true
		l.Set([]Assignment{assumed, known})
		synctest.Wait()
		if s, _ := l.Status(assumed.Key); !s.Up || s.Known || s.Failures != 1 {
			t.Errorf("one failure of what is assumed to be up: %+v", s)
		}
		if s, _ := l.Status(known.Key); !s.Up || !s.Known || s.Failures != 0 || s.Reason != "as it was before" {
			t.Errorf("what was up before is asked in its turn: %+v", s)
		}
		time.Sleep(9 * time.Second)
		for _, a := range []Assignment{assumed, known} {
			if s, _ := l.Status(a.Key); s.Up || !s.Known {
				t.Errorf("three failures later: %+v", s)
			}
		}
	})
}

func TestMonitorSuspects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var asked atomic.Int32
		slow := plain
		slow.Interval, slow.Retry = time.Hour, time.Second
		l := start(t, Options{}, func(context.Context, netip.AddrPort) Result {
			asked.Add(1)
			time.Sleep(100 * time.Millisecond)
			if down.Load() {
				return Result{Err: errRefused}
			}
			return Result{}
		})
		defer l.stop()
		a := assignment(1, slow)
		l.Set([]Assignment{a})
		time.Sleep(time.Minute)
		l.told()
		at := time.Now()
		asked.Store(0)
		l.Suspect(a.Key)
		l.Suspect(a.Key)
		time.Sleep(3 * time.Second)
		told := l.told()
		if len(told) != 1 || !told[0].Absolved || !told[0].Up || told[0].At.Sub(at) > 1300*time.Millisecond || asked.Load() != 2 {
			t.Errorf("contradicted: %+v after %d probes", told, asked.Load())
		}
		down.Store(true)
		at = time.Now()
		l.Suspect(a.Key)
		time.Sleep(5 * time.Second)
		if told = l.told(); len(told) != 1 || told[0].Up || told[0].Absolved || told[0].At.Sub(at) > 2400*time.Millisecond {
			t.Errorf("confirmed: %+v", told)
		}
		asked.Store(0)
		l.Suspect(a.Key)
		l.Suspect(assignment(7, plain).Key)
		time.Sleep(time.Minute)
		if asked.Load() != 0 {
			t.Errorf("what is down was asked %d times because of a suspicion", asked.Load())
		}
	})
}

func TestMonitorSuspectsWhileAProbeRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		once := plain
		once.Rise, once.Interval = 1, time.Hour
		l := start(t, Options{}, func(context.Context, netip.AddrPort) Result {
			time.Sleep(time.Second)
			return Result{}
		})
		defer l.stop()
		a := assignment(1, once)
		a.Up = true
		l.Set([]Assignment{a})
		synctest.Wait()
		l.Suspect(a.Key)
		time.Sleep(1500 * time.Millisecond)
		if s, _ := l.Status(a.Key); !s.Suspected || s.Successes != 1 {
			t.Errorf("a probe that began before the suspicion: %+v", s)
		}
		time.Sleep(time.Second)
		if s, _ := l.Status(a.Key); s.Suspected || s.Successes != 2 {
			t.Errorf("the one after it: %+v", s)
		}
	})
}

func TestMonitorTellsWeightsAndWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const warning = "certificate ends in 3 days"
		var weight atomic.Int64
		weight.Store(10)
		l := start(t, Options{}, func(context.Context, netip.AddrPort) Result {
			told := weight.Load()
			if told < 0 {
				return Result{Err: errRefused}
			}
			if told == 20 {
				return Result{Weight: &told, Absolute: true, Warning: warning}
			}
			return Result{Weight: &told, Absolute: true}
		})
		defer l.stop()
		a := assignment(1, plain)
		l.Set([]Assignment{a})
		time.Sleep(20 * time.Second)
		weight.Store(20)
		time.Sleep(20 * time.Second)
		told := l.told()
		if len(told) != 2 || *told[0].Weight != 10 || *told[1].Weight != 20 || !told[1].Up || told[1].Warning != warning {
			t.Fatalf("told %+v", told)
		}
		if s, _ := l.Status(a.Key); *s.Weight != 20 || !s.Absolute || s.Warning != warning || !s.Since.Equal(told[0].At) {
			t.Errorf("status %+v", s)
		}
		weight.Store(-1)
		time.Sleep(20 * time.Second)
		if s, _ := l.Status(a.Key); s.Up || s.Weight == nil || *s.Weight != 20 || s.Warning != warning {
			t.Errorf("a failure took what the last pass told: %+v", s)
		}
	})
}
