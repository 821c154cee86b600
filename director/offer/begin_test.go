package offer_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// site answers all probes; it counts those of each kind of each server.
type site struct {
	mu    sync.Mutex
	down  map[netip.AddrPort]realserver.CheckKind // who fails which check
	asked map[netip.AddrPort]int
}

func (s *site) prober(check realserver.Check, target health.Target, _ health.Dial) (health.Prober, error) {
	return answer(func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked[target.Server]++
		if s.down[target.Server] == check.Kind {
			return errors.New("refused")
		}
		return nil
	}), nil
}

type answer func() error

func (a answer) Probe(context.Context) health.Result { return health.Result{Err: a()} }
func (a answer) Close()                              {}

// ask is a rig whose checks are a Monitor's, of the site.
func (s *site) ask(t *testing.T, fake *directortest.Fake, store *directortest.Store, services ...director.Service) *rig {
	t.Helper()
	var keeper atomic.Pointer[offer.Keeper]
	monitor := health.NewMonitor(health.Options{New: s.prober, Changed: func(c []health.Change) { keeper.Load().Changed(c) }})
	r := newRig(fake, store, func(o *offer.Options) { o.Checks = monitor })
	keeper.Store(r.Keeper)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- monitor.Run(ctx) }()
	r.begin(t, services...)
	end := r.stop
	r.stop = func() {
		end()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return r
}

// passes waits until the server was asked so many times more.
func (s *site) passes(server netip.AddrPort, n int) {
	count := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.asked[server]
	}
	for want := count() + n; count() < want; {
		time.Sleep(10 * time.Millisecond)
	}
	synctest.Wait()
}

func newSite() *site {
	return &site{down: make(map[netip.AddrPort]realserver.CheckKind), asked: make(map[netip.AddrPort]int)}
}

// Who was down before a restart is up after rise passes, not after one; who was up takes
// fall failures.
func TestRestartRespectsRise(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := checked()
		h.Checks[0].Rise, h.Checks[0].Fall = 3, 2
		s, fake, store := newSite(), directortest.NewFake(director.State{}), &directortest.Store{}
		s.down[second] = realserver.CheckTCP
		r := s.ask(t, fake, store, web(h, 5, 7))
		time.Sleep(time.Minute)
		r.want(t, "before", "10.0.0.1=5 10.0.0.2=0")
		r.stop()
		s.down = map[netip.AddrPort]realserver.CheckKind{first: realserver.CheckTCP}
		r = s.ask(t, fake, store)
		defer func() { r.stop() }()
		r.want(t, "restarted", "10.0.0.1=5 10.0.0.2=0")
		if v := r.verdict(t, second); v.Why != "it was down before the start, and is not asked yet" {
			t.Errorf("verdict %+v", v)
		}
		s.passes(second, 2)
		if got := r.held()[second]; got != 0 {
			t.Errorf("after two passes of three it has a weight of %d", got)
		}
		s.passes(second, 1)
		if got := r.held()[second]; got != 7 {
			t.Errorf("after three passes it has a weight of %d, want 7", got)
		}
		time.Sleep(time.Minute)
		r.want(t, "the other one", "10.0.0.1=0 10.0.0.2=7")
	})
}

// A server that is down in one service by a check of that service alone stays up in the
// other over a restart.
func TestRestartSharesWhatIsUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		one, other := web(checked(), 1), web(checked(), 1)
		other.Key = mustKey("tcp://192.0.2.2:80")
		other.Health.Checks = append(other.Health.Checks, realserver.Check{Kind: realserver.CheckICMP})
		s, fake, store := newSite(), directortest.NewFake(director.State{}), &directortest.Store{}
		s.down[first] = realserver.CheckICMP
		r := s.ask(t, fake, store, one, other)
		time.Sleep(time.Minute)
		r.want(t, "before", "10.0.0.1=1 10.0.0.1=0")
		for range 8 { // the order of maps is another one each time
			r.stop()
			fake.Operations()
			r = s.ask(t, fake, store)
			time.Sleep(time.Minute)
			if ops := fake.Operations(); len(ops) > 0 {
				t.Errorf("a restart did %v", ops)
			}
		}
		r.stop()
	})
}

// A server that is offered in one service whatever its check says, by an order or as the
// checks are doubted, is no word for it in another one after a restart.
func TestRestartSharesNoOrder(t *testing.T) {
	for _, name := range []string{"ordered_up", "panic"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				one, other := web(checked(), 1, 1), web(checked(), 1, 1)
				other.Key = mustKey("tcp://192.0.2.2:80")
				if name == "panic" {
					other.Health.Panic = 60
				}
				s, fake, store := newSite(), directortest.NewFake(director.State{}), &directortest.Store{}
				s.down[second] = realserver.CheckTCP
				r := s.ask(t, fake, store, one, other)
				if name == "ordered_up" {
					if _, err := r.SetOverride(context.Background(), by, director.Override{Service: other.Key, Server: second, Up: true}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute)
				r.want(t, "before", "10.0.0.1=1 10.0.0.2=0 10.0.0.1=1 10.0.0.2=1")
				for range 8 { // the order of maps is another one each time
					r.stop()
					r = s.ask(t, fake, store)
					r.want(t, "restarted", "10.0.0.1=1 10.0.0.2=0 10.0.0.1=1 10.0.0.2=1")
				}
				// Nor is it out for ever: it takes its passes.
				s.mu.Lock()
				s.down = nil
				s.mu.Unlock()
				s.passes(second, 1)
				r.want(t, "passed once", "10.0.0.1=1 10.0.0.2=0 10.0.0.1=1 10.0.0.2=1")
				s.passes(second, 1)
				r.want(t, "passed twice", "10.0.0.1=1 10.0.0.2=1 10.0.0.1=1 10.0.0.2=1")
				r.stop()
			})
		})
	}
}
