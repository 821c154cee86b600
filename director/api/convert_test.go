package api_test

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/realserver"
)

// TestConfigurationAndState: nothing is lost on the way to JSON and back.
func TestConfigurationAndState(t *testing.T) {
	addr, prefix := netip.MustParseAddrPort, netip.MustParsePrefix
	for name, want := range map[string]director.State{
		"empty":                 {Services: []director.Service{}},
		"timeouts":              {Services: []director.Service{}, Timeouts: conntrack.DefaultTimeouts()},
		"a_timeout_is_left_out": {Services: []director.Service{}, Timeouts: conntrack.Timeouts{TCP: time.Hour, UDP: time.Second}},
		"settings_of_services_and_servers": {Services: []director.Service{
			{
				Key:       director.ServiceKey{Protocol: conntrack.TCP, Address: addr("192.0.2.0:8000"), Bits: 24, LastPort: 8999},
				Scheduler: director.LocalityLCReplicated, VIP: director.VIPExternal,
				Persistence: director.Persistence{Timeout: 5 * time.Minute, Prefix: 0},
				Timeouts:    conntrack.Timeouts{TCP: time.Hour, UDP: time.Second},
				Rules:       director.Rules{SloppyTCP: true, ExpireNoDestConn: true, ExpireQuiescentTemplate: true, ConnReuse: director.ReuseFinWait},
				Limits:      director.Limits{Rate: 5, Connections: 6, Source: director.SourceLimits{Prefix: 24, Rate: 7}},
				Guard:       director.SourceGuard{Mode: director.GuardAuto, On: 100, Off: 50},
				MSS:         1400,
				Servers: []realserver.Server{
					{Address: addr("10.0.0.11:0"), Method: realserver.DR, Weight: 1, Upper: 1000, Lower: 700},
					{Address: addr("10.0.0.12:80"), Method: realserver.NAT, Weight: 1, Upper: 5},
					{Address: addr("10.0.0.12:81"), Method: realserver.FullNAT, Weight: 1},
				},
			},
			{
				Key:       director.ServiceKey{Protocol: conntrack.UDP, Address: addr("[2001:db8::]:0"), Bits: 64},
				Scheduler: director.TwoRandomChoices, VIP: director.VIPManaged, OnePacket: true,
				Persistence: director.Persistence{Timeout: time.Second, Prefix: 128},
				Rules:       director.Rules{ConnReuse: director.ReuseNever},
			},
		}},
		"services_in_their_order": {Services: []director.Service{
			{
				Key: director.ServiceKey{Protocol: conntrack.UDP, Address: addr("[2001:db8::10]:53")}, Scheduler: director.Maglev,
				Flags: director.SchedulerFlags{Port: true, Fallback: true}, VIP: director.VIPExternal,
				Servers: []realserver.Server{{Address: addr("[2001:db8:1::1]:53"), Method: realserver.DR}},
			},
			{
				Key: webKey, Name: "web", Scheduler: director.RoundRobin, VIP: director.VIPManaged,
				Access: director.Access{Allow: []netip.Prefix{prefix("198.51.100.0/24")}, Deny: []netip.Prefix{prefix("198.51.100.7/32")}},
				Servers: []realserver.Server{
					{Address: addr("10.0.0.12:80"), Method: realserver.Local, Weight: 65535},
					{Address: addr("10.0.0.11:8080"), Method: realserver.NAT, Weight: 1},
				},
			},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(api.ConfigurationOf(want))
			if err != nil {
				t.Fatal(err)
			}
			var c api.Configuration
			if err := json.Unmarshal(text, &c); err != nil {
				t.Fatal(err)
			}
			got, err := c.State()
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			compared := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
			addresses := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
			if diff := cmp.Diff(want, got, compared, addresses, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
