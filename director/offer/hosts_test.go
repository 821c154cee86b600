package offer_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/snmp"
)

// hosts is a HostAsker whose answers the test says.
type hosts struct {
	mu     sync.Mutex
	asked  []snmp.Key
	errors map[netip.Addr]error
}

func (h *hosts) Set(keys []snmp.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = keys
}

func (h *hosts) Status(k snmp.Key) (snmp.Status, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return snmp.Status{Err: h.errors[k.Host]}, slices.Contains(h.asked, k)
}

func (h *hosts) keys() []snmp.Key {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

func (h *hosts) fail(host netip.Addr, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errors[host] = err
}

// measured is a service whose servers' hosts are asked each interval.
func measured(interval time.Duration, weights ...uint32) director.Service {
	return web(director.Health{Load: director.LoadPolicy{
		Kind: director.LoadLinear, SNMP: &realserver.SNMP{Version: realserver.SNMPv2c, Interval: interval},
	}}, weights...)
}

func startHosts(t *testing.T, services ...director.Service) (*rig, *hosts) {
	t.Helper()
	h := &hosts{errors: make(map[netip.Addr]error)}
	r := newRig(directortest.NewFake(director.State{}), &directortest.Store{}, func(o *offer.Options) { o.Hosts = h })
	return r.begin(t, services...), h
}

func loadWhy(t *testing.T, r *rig, server netip.AddrPort) string {
	t.Helper()
	return r.verdict(t, server).Steps[3].Why
}

// TestHostsAreAskedOnce: what is shared by services is one key, and who is not to be
// asked is not.
func TestHostsAreAskedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		one, other, plain := measured(0, 100, 100, 0), measured(0, 100), web(director.Health{Load: director.LoadPolicy{Kind: director.LoadLinear}}, 100)
		other.Key, plain.Key = mustKey("tcp://192.0.2.2:80"), mustKey("tcp://192.0.2.3:80")
		plain.Servers[0].Address = addr(9)
		r, h := startHosts(t, one, other, plain)
		defer r.stop()
		terms := one.Health.Load.SNMP.WithDefaults()
		want := []snmp.Key{{Host: first.Addr(), Terms: terms}, {Host: second.Addr(), Terms: terms}}
		if got := h.keys(); !slices.Equal(got, want) {
			t.Errorf("asked %+v, want %+v", got, want)
		}
		r.edit(t, func(s *director.Service) { s.Health.Load = director.LoadPolicy{} })
		r.weights(t)
		if got := h.keys(); !slices.Equal(got, want[:1]) {
			t.Errorf("asked %+v, want %+v", got, want[:1])
		}
	})
}

// TestHostLoadMovesWeights: only of configured servers that are asked so; and silence
// takes it back, for a reason.
func TestHostLoadMovesWeights(t *testing.T) {
	bubble(t, func(t *testing.T) {
		service := measured(20*time.Second, 100, 100)
		service.Health.Pool = "pool"
		r, h := startHosts(t, service)
		defer r.stop()
		r.SetLeases("pool", []realserver.Server{server(3, 100)})
		busy, idle := h.keys()[0], h.keys()[1]
		ask := func(times int) {
			for range times {
				time.Sleep(20 * time.Second)
				r.HostLoad(busy, 1, time.Now())
				r.HostLoad(idle, 0, time.Now())
				// Of agents, only the word of leased servers counts.
				for host, load := range map[netip.Addr]float64{first.Addr(): 0, second.Addr(): 1, third.Addr(): 1} {
					if err := r.ReportLoad("pool", host, offer.LoadReport{At: time.Now(), Load: load, Every: busy.Terms.Pace()}); err != nil {
						t.Error(err)
					}
				}
			}
		}
		r.want(t, "before any answer", "10.0.0.1=100 10.0.0.2=100 10.0.0.3=100")
		ask(60)
		r.want(t, "busy and idle", "10.0.0.1=10 10.0.0.2=200 10.0.0.3=10")
		stranger := busy
		stranger.Terms.Port = 1161
		r.HostLoad(stranger, 0, time.Now())
		if why := loadWhy(t, r, first); why != "load 1.00: 10 %" {
			t.Errorf("why: %s", why)
		}

		h.fail(first.Addr(), errors.New("no answer within 2s"))
		r.HostChanged(busy)
		if why := loadWhy(t, r, first); why != "load 1.00: 10 % (snmp: no answer within 2s)" {
			t.Errorf("why: %s", why)
		}
		// Three times 20 s with a tenth more, and the timeout.
		silence := 3 * (22*time.Second + 2*time.Second)
		time.Sleep(silence - time.Second)
		r.want(t, "before it is silent", "10.0.0.1=10 10.0.0.2=200 10.0.0.3=10")
		time.Sleep(time.Second)
		r.want(t, "silent", "10.0.0.1=100 10.0.0.2=100 10.0.0.3=100")
		if why := loadWhy(t, r, first); !strings.HasPrefix(why, "load: silent since 2000-01-01T00:20:00Z (snmp: no answer within 2s)") {
			t.Errorf("why: %s", why)
		}
		h.fail(first.Addr(), nil)
		ask(1)
		if why := loadWhy(t, r, first); why != "load 1.00: 100 %" {
			t.Errorf("why: %s", why)
		}
	})
}

// TestHostNeverHeard: why a server's weight does not follow its load is told.
func TestHostNeverHeard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, h := startHosts(t, measured(0, 100))
		defer r.stop()
		if why := loadWhy(t, r, first); why != "" {
			t.Errorf("why: %s", why)
		}
		h.fail(first.Addr(), errors.New("the host refuses user shunt"))
		r.HostChanged(h.keys()[0])
		if why := loadWhy(t, r, first); why != "load: never heard (snmp: the host refuses user shunt)" {
			t.Errorf("why: %s", why)
		}
		r.want(t, "never heard", "10.0.0.1=100")
	})
}
