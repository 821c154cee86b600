package main

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/metrics"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// TestServerHealth: what a Keeper says of a server is what the API shows.
func TestServerHealth(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	server := netip.MustParseAddrPort("10.0.0.11:8080")
	check := realserver.Check{Kind: realserver.CheckTCP, Port: 81}
	got := serverHealth(offer.Verdict{
		Server: server, Origin: offer.FromLease, Up: true, Why: "tcp", Since: at.In(time.FixedZone("", 3600)), Weight: 3, Withdrawn: true, Suspended: true, Held: at,
		Steps: []offer.Step{{Name: offer.StepHealth, Weight: 3, Why: "tcp"}},
		Checks: []offer.CheckState{{
			Check: check, Key: health.Key{Target: health.Target{Server: server}},
			Status: health.Status{
				State: health.State{Up: true, Known: true}, Since: at, Reason: "connected", Successes: 7, Failures: 3, Warning: "soon", Overdue: true,
				Last: []health.Result{{At: at, Took: 1234567, Detail: "connected"}, {At: at, Err: errors.New("refused"), Detail: "-"}},
			},
		}},
	})
	want := api.ServerHealth{
		Server: "10.0.0.11:8080", Origin: "lease", Up: true, Why: "tcp", Since: &at, Weight: 3, Withdrawn: true, Suspended: true, Held: &at,
		Steps: []api.HealthStep{{Step: "health", Weight: 3, Why: "tcp"}},
		Checks: []api.CheckHealth{{
			Check: api.Check{Kind: "tcp", Port: 81}, Target: "10.0.0.11:81", Known: true, Up: true, Since: &at, Reason: "connected", Warning: "soon", Overdue: true,
			Successes: 7, Failures: 3, Last: []api.CheckResult{
				{At: at, Took: api.Duration(1235 * time.Microsecond), Passed: true, Text: "connected"}, {At: at, Text: "refused"},
			},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestServerMeasures: a metric says what the verdict does.
func TestServerMeasures(t *testing.T) {
	server := netip.MustParseAddrPort("10.0.0.11:8080")
	status := health.Status{Successes: 7, Failures: 3, Last: []health.Result{{Took: 2}, {Took: 1}}}
	v := offer.Verdict{
		Server: server, Up: true, Suspended: true, Steps: []offer.Step{{Name: offer.StepOverride, Why: "set up by someone"}, {Name: offer.StepHealth, Why: "tcp"}},
		Checks: []offer.CheckState{{Check: realserver.Check{Kind: realserver.CheckTCP}, Status: status}, {Check: realserver.Check{Kind: realserver.CheckHTTP}}},
	}
	want := metrics.ServerHealth{
		Address: server, Up: true, Overridden: true, Suspended: true,
		Checks: []metrics.CheckHealth{{Kind: "tcp", Passed: 7, Failed: 3, Took: 2}, {Kind: "http"}},
	}
	if diff := cmp.Diff(want, serverMeasures(v), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if v.Steps[0].Why = ""; serverMeasures(v).Overridden {
		t.Error("overridden without an order")
	}
}
