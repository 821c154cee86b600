package director_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// TestHealthSteps: a change of health alone is a step, though no data plane hears of it.
func TestHealthSteps(t *testing.T) {
	state := func(h director.Health, s director.Scheduler) director.State {
		return director.State{Services: []director.Service{{
			Key:    director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")},
			Health: h, Scheduler: s,
		}}}.Normalize()
	}
	http := director.Health{
		Checks: []realserver.Check{{Kind: realserver.CheckHTTP, HTTP: &realserver.HTTPCheck{Path: "/healthz"}, Interval: 2 * time.Second}},
		Quorum: 2, SlowStart: time.Minute,
	}
	for _, tt := range []struct {
		from, to director.State
		want     string
	}{
		{state(director.Health{}, "rr"), state(http, "rr"), "edit service tcp://192.0.2.1:80: check none → [{kind: http, interval: 2s, http: {path: /healthz}}], health none → {quorum: 2, slow-start: 1m0s}"},
		{state(http, "rr"), state(director.Health{Checks: http.Checks}, "rr"), "edit service tcp://192.0.2.1:80: health {quorum: 2, slow-start: 1m0s} → none"},
		{state(director.Health{Quorum: 1}, "rr"), state(director.Health{Quorum: 2}, "lc"), "edit service tcp://192.0.2.1:80: scheduler rr → lc, health {quorum: 1} → {quorum: 2}"},
	} {
		steps := director.Between(tt.from, tt.to)
		if len(steps) != 1 || steps[0].String() != tt.want {
			t.Errorf("%v\nwant %s", steps, tt.want)
		}
	}
	if steps := director.Between(state(http, "rr"), state(http, "rr")); len(steps) != 0 {
		t.Errorf("no change: %v", steps)
	}
}
