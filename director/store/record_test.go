package store

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// A shunt before limits and guards reads what has none of them, and refuses the rest
// by the version.
func TestRecordVersion(t *testing.T) {
	plain, limited, guarded := director.Service{Key: tcp("192.0.2.1:80")}, director.Service{Key: tcp("192.0.2.1:80")}, director.Service{Key: tcp("192.0.2.1:80")}
	limited.Limits.Source = director.SourceLimits{Prefix: 24, Connections: 5}
	guarded.Guard.Mode = director.GuardOn
	clamped, translated := guarded, limited
	clamped.MSS = 1400
	translated.Servers = []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: realserver.FullNAT}}
	checked := clamped
	checked.Health.Checks = []realserver.Check{{Kind: realserver.CheckTCP}}
	for _, tt := range []struct {
		name    string
		service director.Service
		want    byte
	}{{"plain", plain, 1}, {"limited", limited, 2}, {"guarded", guarded, 2}, {"clamped", clamped, 3}, {"translated", translated, 3}, {"checked", checked, 4}} {
		t.Run(tt.name, func(t *testing.T) {
			data, err := seal(revisionOf(7).RevisionInfo, encodeState(director.State{Services: []director.Service{tt.service, plain}}), wholeState, sum{})
			if err != nil || data[0] != tt.want {
				t.Errorf("version %d, %v, want %d", data[0], err, tt.want)
			}
			if _, err := unseal(7, data); err != nil {
				t.Error(err)
			}
		})
	}
}

// An override is nothing that a shunt before them may lose.
func TestOverrideVersion(t *testing.T) {
	overridden := director.State{Overrides: []director.Override{{Service: tcp("192.0.2.1:80")}}}
	for _, change := range [][2]director.State{{{}, overridden}, {overridden, {}}} {
		if change, _ := diff(change[0], change[1]); change.version() != recordVersion {
			t.Errorf("version %d of %+v", change.version(), change)
		}
	}
}

// What was written before there were limits and guards has none.
func TestOldRecord(t *testing.T) {
	const old = `{"timeouts":{"tcpNanoseconds":900000000000,"tcpFinNanoseconds":120000000000,"udpNanoseconds":300000000000},` +
		`"services":[{"key":{"protocol":6,"address":"192.0.2.1:80"},"scheduler":"wlc","vip":"managed","sloppyTCP":true}]}`
	var state stateJSON
	if err := decodeJSON(strings.NewReader(old), &state); err != nil {
		t.Fatal(err)
	}
	want := director.Service{Key: tcp("192.0.2.1:80"), Scheduler: "wlc", VIP: "managed", Rules: director.Rules{SloppyTCP: true}}
	if diff := cmp.Diff([]director.Service{want}, []director.Service{state.Services[0].decode()}, equal); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
}
