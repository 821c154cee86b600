package snmp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// pollerRig is a Poller that runs, over hosts that say what the test has them say.
type pollerRig struct {
	*Poller
	mu      sync.Mutex
	asked   map[Key][]time.Time
	open    int
	most    int
	say     func(Key) (float64, bool, error)
	takes   time.Duration
	loads   []string
	changed int
	log     strings.Builder
	stop    func()
}

type askerFunc func(ctx context.Context) (float64, bool, error)

func (f askerFunc) ask(ctx context.Context) (float64, bool, error) { return f(ctx) }

func startPoller(t *testing.T, running int) *pollerRig {
	t.Helper()
	r := &pollerRig{asked: make(map[Key][]time.Time), say: func(Key) (float64, bool, error) { return 0.5, true, nil }}
	r.Poller = New(Options{
		Running: running, Log: slog.New(slog.NewTextHandler(&r.log, nil)),
		Loaded: func(k Key, load float64, _ time.Time) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.loads = append(r.loads, fmt.Sprintf("%s %.1f", k.Host, load))
		},
		Changed: func(k Key) {
			r.Status(k) // which it may
			r.mu.Lock()
			defer r.mu.Unlock()
			r.changed++
		},
	})
	r.new = func(k Key) asker {
		return askerFunc(func(ctx context.Context) (float64, bool, error) {
			r.mu.Lock()
			r.asked[k] = append(r.asked[k], time.Now())
			r.open++
			r.most = max(r.most, r.open)
			r.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(r.takes):
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.open--
			return r.say(k)
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	r.stop = func() { cancel(); work.Wait() }
	return r
}

func pollKeys(n int, interval time.Duration) []Key {
	keys := make([]Key, n)
	for i := range keys {
		terms := realserver.SNMP{Version: realserver.SNMPv2c, Interval: interval}
		keys[i] = Key{netip.AddrFrom4([4]byte{10, 0, byte(i / 256), byte(i % 256)}), terms.WithDefaults()}
	}
	return keys
}

// TestPace: hosts are asked at their interval, spread, each key once.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startPoller(t, 0)
		began := time.Now()
		keys := pollKeys(300, 10*time.Second)
		r.Set(append(keys, keys...))
		time.Sleep(100 * time.Second)
		synctest.Wait()
		r.stop()
		moments := map[time.Duration]int{}
		for _, key := range keys {
			asked := r.asked[key]
			if first := asked[0].Sub(began); first > 10*time.Second {
				t.Errorf("%s was asked first after %s", key.Host, first)
			}
			if len(asked) < 9 || len(asked) > 12 {
				t.Errorf("%s was asked %d times in 100 s", key.Host, len(asked))
			}
			for i := range asked[1:] {
				if gap := asked[i+1].Sub(asked[i]); gap < 9*time.Second || gap > 11*time.Second {
					t.Errorf("%s was asked after %s", key.Host, gap)
				}
			}
			moments[asked[0].Sub(began).Truncate(100*time.Millisecond)]++
		}
		for at, n := range moments {
			if n > 30 {
				t.Errorf("%d of 300 hosts were asked first at %s", n, at)
			}
		}
		if counts := r.Counts(); counts[Answered] != uint64(len(r.loads)) || counts[Failed]+counts[Silent] != 0 {
			t.Errorf("%v, %d loads", counts, len(r.loads))
		}
	})
}

// TestRunning: not more are asked at a time than may be, however many are due.
func TestRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startPoller(t, 7)
		r.takes = 2 * time.Second
		r.Set(pollKeys(100, time.Second))
		time.Sleep(time.Minute)
		r.stop()
		if r.most != 7 {
			t.Errorf("%d were asked at a time, want 7", r.most)
		}
		for key, asked := range r.asked { // in turn: 30 times 7 questions for 100
			if len(asked) < 1 || len(asked) > 3 {
				t.Errorf("%s was asked %d times", key.Host, len(asked))
			}
		}
	})
}

func TestSilenceIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startPoller(t, 0)
		defer func() { r.stop() }()
		key := pollKeys(1, 10*time.Second)[0]
		say := func(load float64, told bool, err error) Status {
			r.mu.Lock()
			r.say = func(Key) (float64, bool, error) { return load, told, err }
			r.mu.Unlock()
			time.Sleep(25 * time.Second)
			synctest.Wait()
			status, _ := r.Status(key)
			return status
		}
		if status, ok := r.Status(key); ok {
			t.Errorf("nobody is asked: %+v", status)
		}
		r.Set([]Key{key})
		if s := say(0, false, nil); s.Err != nil || s.Asked.IsZero() || !s.Told.IsZero() || len(r.loads) != 0 {
			t.Errorf("nothing is told yet: %+v, %v", s, r.loads)
		}
		first := say(0.7, true, nil)
		if first.Load != 0.7 || first.Told != first.Asked || r.changed != 0 {
			t.Errorf("%+v, %d changes", first, r.changed)
		}
		silent := say(0.9, true, fmt.Errorf("%w within 2s", errSilent))
		if silent.Err == nil || silent.Load != 0.7 || r.changed != 1 || !silent.Since.After(first.Asked) {
			t.Errorf("%+v, %d changes", silent, r.changed)
		}
		failed := say(0, false, errors.New("another reason"))
		if r.changed != 2 || failed.Since != silent.Since {
			t.Errorf("%+v, %d changes", failed, r.changed)
		}
		if back := say(0.8, true, nil); back.Err != nil || back.Load != 0.8 || r.changed != 3 {
			t.Errorf("%+v, %d changes", back, r.changed)
		}
		counts := r.Counts()
		if counts[Silent] < 2 || counts[Failed] < 2 || counts[Answered] < 6 {
			t.Errorf("%v", counts)
		}
		if log := r.log.String(); strings.Count(log, "\n") != 2 || !strings.Contains(log, `msg="a host does not tell its load" host=10.0.0.0 err="no answer within 2s"`) ||
			!strings.Contains(log, `msg="a host tells its load again" host=10.0.0.0`) {
			t.Errorf("log:\n%s", log)
		}
	})
}

// TestSetWhileAsked: who is not asked any more is told of nothing, and what stays keeps
// what is known of it.
func TestSetWhileAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startPoller(t, 0)
		r.takes = time.Second
		keys := pollKeys(2, 10*time.Second)
		r.Set(keys)
		time.Sleep(500 * time.Millisecond) // the first is asked by now, and so is the second
		r.Set(keys[1:])
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if slices.Contains(r.loads, "10.0.0.0 0.5") || !slices.Contains(r.loads, "10.0.0.1 0.5") {
			t.Errorf("told of %v", r.loads)
		}
		if _, ok := r.Status(keys[0]); ok {
			t.Error("the first is known still")
		}
		r.Set(nil)
		n := len(r.asked[keys[1]])
		time.Sleep(time.Minute)
		if r.stop(); len(r.asked[keys[1]]) != n {
			t.Error("somebody is asked who is not to be")
		}
	})
}

// TestStop: whoever is asked when the daemon stops does not hold it up.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startPoller(t, 0)
		r.takes = time.Hour
		r.Set(pollKeys(3, time.Second))
		time.Sleep(time.Minute)
		began := time.Now()
		r.stop()
		if time.Since(began) != 0 || len(r.loads) != 0 || len(r.Counts()) != 0 {
			t.Errorf("stopped after %s, told of %v, %v", time.Since(began), r.loads, r.Counts())
		}
	})
}
