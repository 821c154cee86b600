package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
)

// printed returns the table's lines.
func printed(t *testing.T, fill func(*table)) []string {
	t.Helper()
	var out bytes.Buffer
	shown := &table{}
	fill(shown)
	if err := shown.print(&out); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func TestLimitRows(t *testing.T) {
	for _, tt := range []struct {
		name    string
		service api.Service
		want    []string
	}{
		{
			"all",
			api.Service{
				Limits: &api.Limits{Rate: new(uint32(5)), Connections: new(uint32(1)), Source: &api.SourceLimits{Prefix: new(uint8(24)), Rate: new(uint32(2)), Connections: new(uint32(3))}},
				Guard:  &api.SourceGuard{Mode: "auto", On: 50, Off: 10}, GuardStats: &api.GuardStats{On: true, Challenged: 7, Validated: 1},
				Refused: &api.Refused{"source-rate": 3, "service-rate": 0, "table-full": 4},
			},
			[]string{
				"limits   5/s, 1 connection; each /24 2/s, 3 connections",
				"guard    auto, on from 50/s, off below 10/s: on now",
				"guarded  7 first segments answered, 1 client real",
				"refused  3 by source-rate, 4 by table-full",
			},
		},
		{
			"of_each_client",
			api.Service{Limits: &api.Limits{Source: &api.SourceLimits{Rate: new(uint32(2))}}, Guard: &api.SourceGuard{Mode: "on"}, GuardStats: &api.GuardStats{On: true}},
			[]string{"limits   each 2/s", "guard    on", "guarded  0 first segments answered, 0 clients real"},
		},
		{
			"guard_that_is_off",
			api.Service{Guard: &api.SourceGuard{Mode: "auto", On: 50, Off: 10}, GuardStats: &api.GuardStats{Challenged: 1}},
			[]string{"guard    auto, on from 50/s, off below 10/s", "guarded  1 first segment answered, 0 clients real"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, printed(t, func(table *table) { limitRows(table, tt.service) })); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusOfTables(t *testing.T) {
	duration := func(d time.Duration) *api.Duration { return new(api.Duration(d)) }
	got := printed(t, func(table *table) {
		statusTable(table, api.Status{Guarding: []string{"tcp://192.0.2.1:80", "tcp://192.0.2.2:80"}, Tables: []api.Table{
			{
				Family: "ipv4", Limit: 1024, Keys: 1741, Slots: 5120, Bytes: 2048, Pressure: 0.85, FullIn: duration(35 * time.Minute),
				Refused: 3, LastFull: duration(72 * time.Hour), SweepPeriod: duration(2 * time.Second), SweepShare: 0.0123,
			},
			{Family: "ipv6", Limit: 256, Keys: 5, Slots: 1280, Bytes: 1024, Pressure: 0.01, SweepPeriod: duration(2 * time.Second), SweepShare: 0.0123},
		}})
	})
	at := 0
	for i, line := range got {
		if strings.HasPrefix(line, "timeouts") {
			at = i + 1
		}
	}
	want := []string{
		"guarding    tcp://192.0.2.1:80",
		"            tcp://192.0.2.2:80",
		"sweep       every 2s, 1.2% of a CPU",
		"",
		"TABLE  LIMIT  KEYS  SLOTS  PRESSURE  FULL-IN  NO-ROOM          MEMORY   EXPIRED  CORRECTED",
		"ipv4   1024   1741  5120   85.0%     35m0s    3 (72h0m0s ago)  2.0 KiB  0        0",
		"ipv6   256    5     1280   1.0%      -        0                1.0 KiB  0        0",
	}
	if diff := cmp.Diff(want, got[at:]); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestForwardingRows(t *testing.T) {
	got := printed(t, func(table *table) {
		forwardingRows(table, &api.Forwarding{Echo: "service", LocalPorts: "1024-65535"})
		forwardingRows(table, &api.Forwarding{
			Echo: "stack", TunnelSources: []string{"10.0.0.32/28", "2001:db8::/112"}, LocalAddresses: []string{"10.0.0.2/32"}, LocalPorts: "1024-65535",
		})
		forwardingRows(table, nil)
	})
	want := []string{
		"echo            service",
		"echo            stack",
		"tunnel sources  10.0.0.32/28, 2001:db8::/112",
		"fullnat         10.0.0.2/32, ports 1024-65535",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestMethodRow(t *testing.T) {
	got := printed(t, func(table *table) {
		for _, method := range methods {
			methodRow(table, api.Decision{Method: method})
		}
		methodRow(table, api.Decision{Method: "fullnat", Connection: &api.Connection{Local: "10.0.0.2:40001"}})
	})
	want := []string{
		"reached  packets go there wrapped, and the server answers the client itself",
		"reached  the server sees an address of this director's, and answers to that",
		"reached  the server sees 10.0.0.2:40001, and answers to that",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestConnectionRowsLocal(t *testing.T) {
	aged := agedConnections()
	aged[1].Method, aged[1].Local = "fullnat", netip.MustParseAddrPort("10.0.0.2:40002")
	for i := range aged {
		aged[i].Traffic = nil
	}
	var out bytes.Buffer
	rows := &connectionRows{}
	if err := rows.printAll(&out, aged); err != nil {
		t.Fatal(err)
	}
	const want = `PROTO  EXPIRES  STATE        CLIENT              VIRTUAL        SERVER          METHOD   LOCAL
tcp    05:00    ESTABLISHED  198.51.100.7:40001  192.0.2.10:80  10.0.0.11:8080  nat      -
tcp    14:59    ESTABLISHED  198.51.100.7:40002  192.0.2.10:80  10.0.0.12:80    fullnat  10.0.0.2:40002
tcp    15:00    ESTABLISHED  203.0.113.9:40003   192.0.2.10:80  10.0.0.12:80    nat      -
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}
