package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// TestEditsOfLimits: each edit changes what it names, in the order given.
func TestEditsOfLimits(t *testing.T) {
	h := newHandler(t, directortest.NewFake(director.State{}))
	source := func(prefix uint8, rate, connections uint32) director.SourceLimits {
		return director.SourceLimits{Prefix: prefix, Rate: rate, Connections: connections}
	}
	auto := func(on, off uint32) director.SourceGuard {
		return director.SourceGuard{Mode: director.GuardAuto, On: on, Off: off}
	}
	for _, step := range []struct {
		edit   string
		limits director.Limits
		guard  director.SourceGuard
	}{
		{`{"limits":{}}`, director.Limits{}, director.SourceGuard{}},
		{`{"limits":{"rate":5,"connections":7},"guard":{"mode":"auto"}}`, director.Limits{Rate: 5, Connections: 7}, auto(5000, 1000)},
		{`{"limits":{"rate":0,"source":{"rate":3}},"guard":{"mode":"auto","on":50}}`, director.Limits{Connections: 7, Source: source(32, 3, 0)}, auto(50, 10)},
		{`{"limits":{"source":{"prefix":24,"connections":9}}}`, director.Limits{Connections: 7, Source: source(24, 3, 9)}, auto(50, 10)},
		{`{"limits":{"source":{"prefix":0}},"guard":{"mode":"on"}}`, director.Limits{Connections: 7, Source: source(32, 3, 9)}, director.SourceGuard{Mode: director.GuardOn}},
		{`{"limits":{"source":{"rate":0}}}`, director.Limits{Connections: 7, Source: source(32, 0, 9)}, director.SourceGuard{Mode: director.GuardOn}},
		{`{"limits":{"source":{"connections":0}},"guard":{"mode":"off"}}`, director.Limits{Connections: 7}, director.SourceGuard{}},
		{`{"limits":{"connections":0}}`, director.Limits{}, director.SourceGuard{}},
	} {
		if w := ask(h, "PATCH", "/v1/services/web", step.edit); w.Code != 200 {
			t.Fatalf("%s: %d %s", step.edit, w.Code, w.Body)
		}
		shown, err := decoded[api.Service](t, ask(h, "GET", "/v1/services/web", "")).Configured()
		if err != nil {
			t.Fatal(err)
		}
		if shown.Limits != step.limits || shown.Guard != step.guard {
			t.Fatalf("after %s: %+v, %+v", step.edit, shown.Limits, shown.Guard)
		}
	}
}

func TestBadLimits(t *testing.T) {
	h := newHandler(t, directortest.NewFake(director.State{}))
	for edit, want := range map[string]string{
		`{"limits":{"rate":1000001}}`:                      "limit of the rate 1000001: want 1000000 new connections a second at most",
		`{"limits":{"rate":-1}}`:                           "limits.rate",
		`{"limits":{"source":{"connections":4294967296}}}`: "limits.source.connections",
		`{"limits":{"source":{"prefix":24}}}`:              "source prefix 24 without a limit of sources: give a rate, or a number of connections",
		`{"limits":{"source":{"prefix":33,"rate":1}}}`:     "source prefix 33: want 1 to 32",
		`{"limits":{"rates":1}}`:                           "rates",
		`{"guard":{}}`:                                     "guard: mode is required",
		`{"guard":{"mode":"always"}}`:                      `unknown guard \"always\": want auto, on or off`,
		`{"guard":{"mode":"on","on":5}}`:                   "guard on has no thresholds: they are auto's",
		`{"guard":{"mode":"auto","on":5,"off":6}}`:         "guard off below 6: it goes on from 5, want that at most",
		`{"guard":"auto"}`:                                 "guard",
	} {
		if w := ask(h, "PATCH", "/v1/services/web", edit); w.Code != 422 && w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s\nwant %s", edit, w.Code, w.Body, want)
		}
	}
	if shown := decoded[api.Service](t, ask(h, "GET", "/v1/services/web", "")); shown.Limits != nil || shown.Guard != nil {
		t.Errorf("refused, and there all the same: %+v", shown)
	}
}

// TestLimitsObserved: what was refused, what the guard does and how full the tables
// are is in every answer that it belongs to.
func TestLimitsObserved(t *testing.T) {
	fake := directortest.NewFake(director.State{})
	h := newHandler(t, fake)
	refused := map[string]uint64{"service-rate": 5, "table-full": 0}
	fake.SetStats(director.Stats{
		Services: []director.ServiceStats{{Key: webKey, Refused: refused, Guard: director.GuardStats{On: true, Challenged: 7, Validated: 3}}},
		Table: []director.TableStats{{
			Family: "ipv4", Limit: 1024, Keys: 1741, Slots: 5120, Pressure: 0.85, FullIn: 90*time.Second + time.Millisecond,
			Refused: 2, LastFull: time.Hour, SweepPeriod: 2 * time.Second, SweepShare: 0.01,
		}, {Family: "ipv6"}},
	})
	duration := func(d time.Duration) *api.Duration { return new(api.Duration(d)) }
	tables := []api.Table{{
		Family: "ipv4", Limit: 1024, Keys: 1741, Slots: 5120, Pressure: 0.85, FullIn: duration(90 * time.Second),
		Refused: 2, LastFull: duration(time.Hour), SweepPeriod: duration(2 * time.Second), SweepShare: 0.01,
	}, {Family: "ipv6"}}
	stats := decoded[api.Stats](t, ask(h, "GET", "/v1/stats", ""))
	if diff := cmp.Diff(tables, stats.Tables); diff != "" {
		t.Errorf("tables of the stats (-want +got):\n%s", diff)
	}
	guard := &api.GuardStats{On: true, Challenged: 7, Validated: 3}
	want := api.Refused(refused)
	if diff := cmp.Diff(&want, stats.Services[0].Refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(guard, stats.Services[0].GuardStats); diff != "" {
		t.Errorf("guard (-want +got):\n%s", diff)
	}
	status := decoded[api.Status](t, ask(h, "GET", "/v1/status", ""))
	if diff := cmp.Diff(tables, status.Tables); diff != "" {
		t.Errorf("tables of the status (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{webKey.String()}, status.Guarding); diff != "" {
		t.Errorf("guarding (-want +got):\n%s", diff)
	}
	service := decoded[api.Service](t, ask(h, "GET", "/v1/services/web", ""))
	if diff := cmp.Diff(&want, service.Refused); diff != "" {
		t.Errorf("refused of the service (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(guard, service.GuardStats); diff != "" {
		t.Errorf("guard of the service (-want +got):\n%s", diff)
	}
}
