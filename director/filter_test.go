package director_test

import (
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// A client filter selects a template if it holds any of the filter's clients.
func TestConnectionFilterClient(t *testing.T) {
	connection := conntrack.Connection{Client: netip.MustParseAddrPort("10.1.2.200:4000")}
	template := conntrack.Connection{Client: netip.MustParseAddrPort("10.1.2.0:0"), Template: true, Prefix: 24}
	everyone := conntrack.Connection{Client: netip.MustParseAddrPort("0.0.0.0:0"), Template: true}
	for _, tt := range []struct {
		client string
		of     conntrack.Connection
		want   bool
	}{
		{"10.1.2.200/32", connection, true},
		{"10.1.2.128/25", connection, true},
		{"10.1.2.0/25", connection, false},
		{"2001:db8::/16", connection, false},
		{"10.1.2.2/32", template, true},
		{"10.1.2.0/25", template, true},
		{"10.1.2.128/25", template, true},
		{"10.1.0.0/16", template, true},
		{"10.1.3.0/24", template, false},
		{"2001:db8::/16", template, false},
		{"203.0.113.9/32", everyone, true},
	} {
		filter := director.ConnectionFilter{Client: netip.MustParsePrefix(tt.client)}
		if got := filter.Matches(web().Key, tt.of); got != tt.want {
			t.Errorf("%s selects %+v: %t", tt.client, tt.of, got)
		}
	}
}

// A state selects by its name, which protocols can have in common.
func TestConnectionFilterState(t *testing.T) {
	for _, state := range conntrack.AllStates() {
		for _, other := range conntrack.AllStates() {
			filter := director.ConnectionFilter{State: state.String()}
			want := state == other || state.String() == "ESTABLISHED" && (other == conntrack.Established || other == conntrack.SCTPEstablished)
			if got := filter.Matches(web().Key, conntrack.Connection{State: other}); got != want {
				t.Errorf("%s selects state %d: %t", filter.State, other, got)
			}
		}
	}
	if !(director.ConnectionFilter{}).Matches(web().Key, conntrack.Connection{State: conntrack.TimeWait}) {
		t.Error("no state selects TIME_WAIT: false")
	}
}
