package director_test

import (
	"fmt"
	"testing"

	"github.com/shunt-lb/shunt/director"
)

func TestLimitsNormalize(t *testing.T) {
	ipv4, ipv6 := mustKey("tcp://192.0.2.1:80"), mustKey("tcp://[2001:db8::1]:80")
	source := func(prefix uint8, rate, connections uint32) director.Limits {
		return director.Limits{Source: director.SourceLimits{Prefix: prefix, Rate: rate, Connections: connections}}
	}
	for _, tt := range []struct {
		name     string
		key      director.ServiceKey
		in, want director.Limits
	}{
		{"none", ipv4, director.Limits{}, director.Limits{}},
		{"of_the_service_alone", ipv4, director.Limits{Rate: 1, Connections: 2}, director.Limits{Rate: 1, Connections: 2}},
		{"each_client_by_its_rate", ipv4, source(0, 5, 0), source(32, 5, 0)},
		{"each_client_by_its_connections", ipv6, source(0, 0, 5), source(128, 0, 5)},
		{"a_network", ipv6, source(64, 5, 6), source(64, 5, 6)},
		{"a_network_without_a_limit", ipv4, source(24, 0, 0), source(24, 0, 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := director.Service{Key: tt.key, Limits: tt.in}.Normalize().Limits
			if got != tt.want {
				t.Errorf("normalized %+v, want %+v", got, tt.want)
			}
			if again := (director.Service{Key: tt.key, Limits: got}).Normalize().Limits; again != got {
				t.Errorf("normalized again %+v, want %+v", again, got)
			}
		})
	}
}

func TestGuardNormalize(t *testing.T) {
	for _, tt := range []struct{ in, want director.SourceGuard }{
		{director.SourceGuard{}, director.SourceGuard{}},
		{director.SourceGuard{Mode: director.GuardOn}, director.SourceGuard{Mode: director.GuardOn}},
		{director.SourceGuard{Mode: director.GuardAuto}, director.SourceGuard{Mode: director.GuardAuto, On: 5000, Off: 1000}},
		{director.SourceGuard{Mode: director.GuardAuto, On: 100}, director.SourceGuard{Mode: director.GuardAuto, On: 100, Off: 20}},
		{director.SourceGuard{Mode: director.GuardAuto, Off: 100}, director.SourceGuard{Mode: director.GuardAuto, On: 5000, Off: 100}},
		// With a threshold of 0 it would never go off.
		{director.SourceGuard{Mode: director.GuardAuto, On: 4}, director.SourceGuard{Mode: director.GuardAuto, On: 4, Off: 1}},
		// Validate's to refuse.
		{director.SourceGuard{Mode: director.GuardOn, On: 4}, director.SourceGuard{Mode: director.GuardOn, On: 4}},
	} {
		got := director.Service{Guard: tt.in}.Normalize().Guard
		if got != tt.want {
			t.Errorf("%+v normalized %+v, want %+v", tt.in, got, tt.want)
		}
		if again := (director.Service{Guard: got}).Normalize().Guard; again != got {
			t.Errorf("%+v normalized again %+v", got, again)
		}
	}
}

func TestLimitsValidate(t *testing.T) {
	tcp, udp := director.Service{Key: mustKey("tcp://192.0.2.1:80")}, director.Service{Key: mustKey("udp://[2001:db8::1]:53")}
	marked := director.Service{Key: mustKey("fwmark://7")}
	limited := func(s director.Service, l director.Limits) director.Service { s.Limits = l; return s }
	guarded := func(s director.Service, g director.SourceGuard) director.Service { s.Guard = g; return s }
	onePacket := udp
	onePacket.OnePacket = true
	all := director.Limits{
		Rate: director.MaxRate, Connections: 1<<32 - 1,
		Source: director.SourceLimits{Prefix: 1, Rate: director.MaxRate, Connections: 1<<32 - 1},
	}
	for _, tt := range []struct {
		name    string
		service director.Service
		want    []string // the field, and the message
	}{
		{"the_largest", guarded(limited(tcp, all), director.SourceGuard{Mode: director.GuardAuto, On: director.MaxRate, Off: director.MaxRate}), nil},
		{"of_udp", limited(udp, all), nil},
		{"of_a_mark", limited(marked, all), nil},
		{"rate_of_one_packet", limited(onePacket, director.Limits{Rate: 5, Source: director.SourceLimits{Rate: 5}}), nil},
		{"guard_on", guarded(tcp, director.SourceGuard{Mode: director.GuardOn}), nil},
		{
			"rates", limited(tcp, director.Limits{Rate: director.MaxRate + 1, Source: director.SourceLimits{Rate: 1<<32 - 1}}),
			[]string{
				"limits.rate: limit of the rate 1000001: want 1000000 new connections a second at most",
				"limits.source.rate: limit of a source's rate 4294967295: want 1000000 new connections a second at most",
			},
		},
		{
			"prefix_of_ipv4", limited(tcp, director.Limits{Source: director.SourceLimits{Prefix: 33, Rate: 1}}),
			[]string{"limits.source.prefix: source prefix 33: want 1 to 32"},
		},
		{
			"prefix_of_ipv6", limited(udp, director.Limits{Source: director.SourceLimits{Prefix: 129, Connections: 1}}),
			[]string{"limits.source.prefix: source prefix 129: want 1 to 128"},
		},
		{
			"prefix_alone", limited(tcp, director.Limits{Rate: 5, Source: director.SourceLimits{Prefix: 24}}),
			[]string{"limits.source.prefix: source prefix 24 without a limit of sources: give a rate, or a number of connections"},
		},
		{
			"connections_of_one_packet", limited(onePacket, director.Limits{Connections: 1, Source: director.SourceLimits{Connections: 1}}),
			[]string{
				"limits.connections: one-packet scheduling makes no connections: there are none to limit",
				"limits.source.connections: one-packet scheduling makes no connections: a source has none to limit",
			},
		},
		{"guard_of_udp", guarded(udp, director.SourceGuard{Mode: director.GuardOn}), []string{"guard: a guard is for tcp"}},
		{"guard_of_a_mark", guarded(marked, director.SourceGuard{Mode: director.GuardAuto}), []string{"guard: a guard is for tcp"}},
		{"unknown_guard", guarded(tcp, director.SourceGuard{Mode: "off"}), []string{`guard: unknown guard "off": want auto, on or off`}},
		{
			"thresholds_without_auto", guarded(tcp, director.SourceGuard{Mode: director.GuardOn, Off: 1}),
			[]string{"guard: guard on has no thresholds: they are auto's"},
		},
		{"thresholds_of_none", guarded(tcp, director.SourceGuard{On: 1}), []string{"guard: guard off has no thresholds: they are auto's"}},
		{
			"off_above_on", guarded(tcp, director.SourceGuard{Mode: director.GuardAuto, On: 10, Off: 11}),
			[]string{"guard.off: guard off below 11: it goes on from 10, want that at most"},
		},
		{
			"on_too_large", guarded(tcp, director.SourceGuard{Mode: director.GuardAuto, On: director.MaxRate + 1}),
			[]string{"guard.on: guard on from 1000001: want 1000000 connections a second at most"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, p := range director.Problems(tt.service.Normalize().Validate()) {
				if p.Kind != director.ErrInvalid || p.Where != "service "+tt.service.Key.String() {
					t.Errorf("%v: kind %v, where %q", p, p.Kind, p.Where)
				}
				got = append(got, p.Field+": "+p.Text)
			}
			want(t, "problems", tt.want, got)
		})
	}
}

func TestParseGuardMode(t *testing.T) {
	for _, m := range []director.GuardMode{director.GuardOff, director.GuardAuto, director.GuardOn} {
		if got, err := director.ParseGuardMode(m.String()); got != m || err != nil {
			t.Errorf("%q: %q, %v", m.String(), got, err)
		}
	}
	for _, text := range []string{"", "On", "always"} {
		if _, err := director.ParseGuardMode(text); err == nil || err.Error() != fmt.Sprintf("unknown guard %q: want auto, on or off", text) {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

// A step says what becomes of limits and guards in the words of the configuration.
func TestExplainLimits(t *testing.T) {
	plain, limited, other := web(), web(), web()
	limited.Limits = director.Limits{Rate: 5000, Connections: 200000, Source: director.SourceLimits{Prefix: 24, Rate: 50, Connections: 1000}}
	limited.Guard = director.SourceGuard{Mode: director.GuardAuto}
	other.Limits = director.Limits{Rate: 5001, Source: director.SourceLimits{Connections: 1000}}
	other.Guard = director.SourceGuard{Mode: director.GuardOn}
	state := func(s director.Service) director.State {
		return director.State{Services: []director.Service{s}}.Normalize()
	}
	for _, tt := range []struct {
		from, to director.Service
		want     string
	}{
		{
			plain, limited, "limit rate none → 5000/s, limit connections none → 200000, source prefix none → /24, source rate none → 50/s, " +
				"source connections none → 1000, guard none → auto, on from 5000/s, off below 1000/s",
		},
		{
			limited, other, "limit rate 5000/s → 5001/s, limit connections 200000 → none, source prefix /24 → /32, source rate 50/s → none, " +
				"guard auto, on from 5000/s, off below 1000/s → on",
		},
		{other, plain, "limit rate 5001/s → none, source prefix /32 → none, source connections 1000 → none, guard on → none"},
	} {
		want(t, "steps", []string{"edit service tcp://192.0.2.1:80: " + tt.want}, stepTexts(director.Between(state(tt.from), state(tt.to))))
	}
}
