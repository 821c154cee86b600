package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
)

// limited returns a configuration of one service with the settings.
func limited(settings string) string {
	return "services:\n- {listen: \"tcp://192.0.2.1:80\", servers: [], " + settings + "}\n"
}

func TestLimits(t *testing.T) {
	source := director.SourceLimits{Prefix: 24, Rate: 50, Connections: 1000}
	for _, tt := range []struct {
		text, written string // what Format makes of it: "" for nothing
		limits        director.Limits
		guard         director.SourceGuard
	}{
		{
			text: "limits: {rate: 5000, connections: 200000, source: {prefix: 24, rate: 50, connections: 1000}}", written: "same",
			limits: director.Limits{Rate: 5000, Connections: 200000, Source: source},
		},
		{text: "limits: {source: {connections: 3}}", written: "same", limits: director.Limits{Source: director.SourceLimits{Prefix: 32, Connections: 3}}},
		{text: "limits: {connections: 64Ki, source: {}}", written: "limits: {connections: 65536}", limits: director.Limits{Connections: 65536}},
		{text: "limits: {}"},
		{text: "guard: off"},
		{text: "guard: {mode: off}"},
		{text: "guard: on", written: `guard: "on"`, guard: director.SourceGuard{Mode: director.GuardOn}},
		{text: "guard: auto", written: "same", guard: director.SourceGuard{Mode: director.GuardAuto, On: 5000, Off: 1000}},
		{text: "guard: {mode: auto, on: 5000, off: 1000}", written: "guard: auto", guard: director.SourceGuard{Mode: director.GuardAuto, On: 5000, Off: 1000}},
		{text: "guard: {mode: auto, on: 500, off: 100}", written: "guard: {mode: auto, on: 500}", guard: director.SourceGuard{Mode: director.GuardAuto, On: 500, Off: 100}},
		{text: "guard: {mode: auto, on: 500, off: 1}", written: "same", guard: director.SourceGuard{Mode: director.GuardAuto, On: 500, Off: 1}},
	} {
		t.Run(tt.text, func(t *testing.T) {
			cfg, err := config.Parse("f", []byte(limited(tt.text)))
			if err != nil {
				t.Fatal(err)
			}
			service := cfg.State.Services[0]
			if service.Limits != tt.limits || service.Guard != tt.guard {
				t.Errorf("read %+v, %+v", service.Limits, service.Guard)
			}
			want := "services:\n  - listen: tcp://192.0.2.1:80\n    scheduler: wlc\n"
			switch tt.written {
			case "":
			case "same":
				want += "    " + tt.text + "\n"
			default:
				want += "    " + tt.written + "\n"
			}
			got, err := config.Format(cfg.State)
			if diff := cmp.Diff(want+"    servers: []\n", string(got)); diff != "" || err != nil {
				t.Errorf("written: %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestLimitsRefused(t *testing.T) {
	const at = "f:2:"
	for text, want := range map[string][]string{
		"limits: {rate: 0}":                       {at + "62: services[0].limits.rate: 0 is out of range: want 1 to 1000000"},
		"limits: {rate: 1000001}":                 {at + "62: services[0].limits.rate: 1000001 is out of range: want 1 to 1000000"},
		"limits: {connections: 4Gi}":              {at + "69: services[0].limits.connections: 4Gi is out of range: want 1 to 4294967295"},
		"limits: {rate: 5/s}":                     {at + `62: services[0].limits.rate: "5/s" is not a number: want digits and, if need be, Ki, Mi or Gi, such as 64Ki`},
		"limits: 5":                               {at + "55: services[0].limits: want a mapping (key: value)"},
		"limits: {rates: 5}":                      {at + `56: services[0].limits: unknown key "rates": want connections, rate, source; did you mean rate?`},
		"limits: {source: {prefix: 24}}":          {at + "73: services[0] tcp://192.0.2.1:80: source prefix 24 without a limit of sources: give a rate, or a number of connections"},
		"limits: {source: {prefix: 33, rate: 1}}": {at + "73: services[0] tcp://192.0.2.1:80: source prefix 33: want 1 to 32"},
		"limits: {source: {prefix: 0, rate: 1}}":  {at + `73: services[0].limits.source.prefix: "0" is not the length of a prefix: want 1 to 32, or 1 to 128 for IPv6`},
		"limits: {source: {prefix: 24, rate: x}}": {at + `83: services[0].limits.source.rate: "x" is not a number: want digits and, if need be, Ki, Mi or Gi, such as 64Ki`},
		"guard: atuo":                             {at + `54: services[0].guard: unknown guard "atuo": want auto, on or off; did you mean auto?`},
		"guard: [auto]":                           {at + "54: services[0].guard: want a mapping (key: value)"},
		"guard: {on: 5}":                          {at + "54: services[0].guard.mode: the key is missing: auto, on or off"},
		"guard: {mode: auto, on: 5, off: 6}":      {at + "79: services[0] tcp://192.0.2.1:80: guard off below 6: it goes on from 5, want that at most"},
		"guard: {mode: auto, off: 6000}":          {at + "72: services[0] tcp://192.0.2.1:80: guard off below 6000: it goes on from 5000, want that at most"},
		"guard: {mode: auto, on: x, off: 6}":      {at + `71: services[0].guard.on: "x" is not a number: want digits and, if need be, Ki, Mi or Gi, such as 64Ki`},
		"guard: {mode: on, on: 5}":                {at + "54: services[0] tcp://192.0.2.1:80: guard on has no thresholds: they are auto's"},
		"guard: {mode: off, off: 5}":              {at + "54: services[0] tcp://192.0.2.1:80: guard off has no thresholds: they are auto's"},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := config.Parse("f", []byte(limited(text)))
			wantErrors(t, err, want...)
		})
	}
	_, err := config.Parse("f", []byte("services:\n- {listen: \"udp://192.0.2.1:53\", one-packet: true, servers: [], guard: auto,\n   limits: {connections: 5, source: {connections: 6}}}\n"))
	wantErrors(
		t, err,
		"f:2:72: services[0] udp://192.0.2.1:53: a guard is for tcp",
		"f:3:26: services[0] udp://192.0.2.1:53: one-packet scheduling makes no connections: there are none to limit",
		"f:3:51: services[0] udp://192.0.2.1:53: one-packet scheduling makes no connections: a source has none to limit",
	)
}

func TestConnectionSettings(t *testing.T) {
	cfg, err := config.Parse("f", []byte("director: {connections: {counters: true, sources: 4Ki}}"))
	want := defaults()
	want.CountConnections, want.Sources = true, 4096
	if diff := cmp.Diff(want, cfg.Director); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	_, err = config.Parse("f", []byte("director: {connections: {counters: 1, sources: 0}}"))
	wantErrors(
		t, err,
		`f:1:36: director.connections.counters: "1": want true or false`,
		"f:1:48: director.connections.sources: 0 is out of range: want 1 to 16Mi",
	)
}
