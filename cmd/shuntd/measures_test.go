package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/lease"
	"github.com/shunt-lb/shunt/director/metrics"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// TestServerMeasures: a metric says what the verdict does.
func TestServerMeasures(t *testing.T) {
	server := netip.MustParseAddrPort("10.0.0.11:8080")
	end := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	status := health.Status{CertificateEnd: end, Successes: 7, Failures: 3, Last: []health.Result{{Took: 2}, {Took: 1}}}
	v := offer.Verdict{
		Server: server, Up: true, Suspended: true, Changes: 6, Suspensions: 2, Evidence: &director.Evidence{Resets: 3}, Load: &offer.LoadState{Value: 0.5, Share: 0.75}, Steps: []offer.Step{{Name: offer.StepOverride, Why: "set up by someone"}, {Name: offer.StepHealth, Why: "tcp"}},
		Checks: []offer.CheckState{{Check: realserver.Check{Kind: realserver.CheckTCP}, Status: status}, {Check: realserver.Check{Kind: realserver.CheckHTTP}}},
	}
	want := metrics.ServerHealth{
		Address: server, Up: true, Overridden: true, Suspended: true, Changes: 6, Suspensions: 2,
		Evidence: &director.Evidence{Resets: 3}, Load: &metrics.Load{Value: 0.5, Share: 0.75},
		Checks: []metrics.CheckHealth{{Kind: "tcp", Passed: 7, Failed: 3, Took: 2, CertificateEnd: end}, {Kind: "http"}},
	}
	if diff := cmp.Diff(want, serverMeasures(v), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if v.Steps[0].Why = ""; serverMeasures(v).Overridden {
		t.Error("overridden without an order")
	}
}

// TestServiceMeasures: an address is told once, and what a service needs is.
func TestServiceMeasures(t *testing.T) {
	server := netip.MustParseAddrPort("10.0.0.11:8080")
	got := serviceMeasures([]offer.ServiceVerdict{{
		Quorum: true, Panic: true, Sorry: true, Weight: 3, Needed: 2, Servers: []offer.Verdict{{Server: server, Up: true}, {Server: server}},
	}})
	want := []metrics.ServiceHealth{{
		Quorum: true, Panic: true, Sorry: true, Weight: 3, Needed: 2, Servers: []metrics.ServerHealth{{Address: server, Up: true}},
	}}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}, director.ServiceKey{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestCheckMeasures(t *testing.T) {
	atMost := make([]uint64, len(health.TimingBounds()))
	atMost[0] = 7
	got := checkMeasures(health.Stats{
		Keys: 1, Running: 2, Overdue: 3, Waiting: 4, Lag: 5, Overruns: 6, Unasked: 7,
		Timings: []health.Timing{{Kind: realserver.CheckTCP, Passed: true, Count: 8, Sum: 9, AtMost: atMost}},
	})
	if n := got.Times[0].AtMost[health.TimingBounds()[0]]; n != 7 || len(got.Times[0].AtMost) != len(atMost) {
		t.Errorf("%d of %v", n, got.Times[0].AtMost)
	}
	got.Times[0].AtMost = nil
	want := metrics.Checks{
		Asked: 1, Running: 2, Overdue: 3, Waiting: 4, Lag: 5, Overruns: 6, Unasked: 7, Times: []metrics.Times{{Kind: "tcp", Passed: true, Count: 8, Sum: 9}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestLeaseMeasures(t *testing.T) {
	leases := lease.Open(lease.Options{})
	for i, draining := range []bool{false, false, true} {
		server := realserver.Server{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80), Method: realserver.NAT, Weight: 1, Draining: draining}
		_, err := leases.Register(lease.Registration{Pool: "web", Agent: fmt.Sprintf("a%d", i), Boot: "b", Sequence: 1, Lifetime: time.Minute, Server: server})
		if err != nil {
			t.Fatal(err)
		}
	}
	if leases.Deregister("web", "nobody", "b", 1) == nil {
		t.Fatal("nobody left")
	}
	got := leaseMeasures(leases)
	if got.Registered != 3 || got.Members["web"] != [2]int{2, 1} || got.Refused["no-member"] != 1 || len(got.Refused) != len(lease.Reasons()) {
		t.Errorf("%+v", got)
	}
}
