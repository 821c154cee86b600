package main

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
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
		Changes: 6, Suspensions: 2, Evidence: &director.Evidence{Unanswered: 1, Resets: 2, Unreachable: 3}, Load: &offer.LoadState{Value: 0.5, Share: 0.75},
		Steps: []offer.Step{{Name: offer.StepHealth, Weight: 3, Why: "tcp"}},
		Checks: []offer.CheckState{{
			Check: check, Key: health.Key{Target: health.Target{Server: server}},
			Status: health.Status{
				State: health.State{Up: true, Known: true}, Since: at, Reason: "connected", Successes: 7, Failures: 3, Warning: "soon", CertificateEnd: at, Overdue: true,
				Last: []health.Result{{At: at, Took: 1234567, Detail: "connected\twell\n10.0.0.12:8080  up"}, {At: at, Err: errors.New("refused"), Detail: "-"}},
			},
		}},
	})
	want := api.ServerHealth{
		Server: "10.0.0.11:8080", Origin: "lease", Up: true, Why: "tcp", Since: &at, Weight: 3, Withdrawn: true, Suspended: true, Held: &at,
		Changes: 6, Suspensions: 2, Evidence: &api.Evidence{Unanswered: 1, Resets: 2, Unreachable: 3}, Load: &api.LoadState{Value: 0.5, Share: 0.75},
		Steps: []api.HealthStep{{Step: "health", Weight: 3, Why: "tcp"}},
		Checks: []api.CheckHealth{{
			Check: api.Check{Kind: "tcp", Port: 81}, Target: "10.0.0.11:81", Known: true, Up: true, Since: &at, Reason: "connected", Warning: "soon", CertificateEnd: &at, Overdue: true,
			Successes: 7, Failures: 3, Last: []api.CheckResult{
				{At: at, Took: api.Duration(1235 * time.Microsecond), Passed: true, Text: "connected well"}, {At: at, Text: "refused"},
			},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
