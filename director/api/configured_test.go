package api

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// TestConfigured: a service that a client was shown has all that the director's has.
func TestConfigured(t *testing.T) {
	addr, prefix := netip.MustParseAddrPort, netip.MustParsePrefix
	want := director.Service{
		Key:  director.ServiceKey{Protocol: conntrack.TCP, Address: addr("192.0.2.0:8000"), Bits: 24, LastPort: 8999},
		Name: "web", Scheduler: director.Maglev, Flags: director.SchedulerFlags{Port: true, Fallback: true}, VIP: director.VIPExternal,
		Access:      director.Access{Allow: []netip.Prefix{prefix("198.51.100.0/24")}, Deny: []netip.Prefix{prefix("198.51.100.7/32")}},
		Persistence: director.Persistence{Timeout: 5 * time.Minute, Prefix: 24, Engine: director.EngineSIP}, OnePacket: true,
		Timeouts: conntrack.Timeouts{TCP: time.Hour, TCPFin: time.Minute, UDP: time.Second},
		Rules:    director.Rules{SloppyTCP: true, ExpireNoDestConn: true, ExpireQuiescentTemplate: true, ConnReuse: director.ReuseFinWait},
		Servers: []realserver.Server{
			{Address: addr("10.0.0.11:0"), Method: realserver.DR, Weight: 0, Upper: 1000, Lower: 700, Draining: true},
			{Address: addr("10.0.0.12:80"), Method: realserver.NAT, Weight: 3},
			{Address: addr("10.0.0.13:0"), Method: realserver.Tunnel, Weight: 1, Tunnel: realserver.TunnelOptions{Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn}},
		},
	}
	// Whatever a service is given next has to come along too.
	for v, i := reflect.ValueOf(want), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the test does not set %s", v.Type().Field(i).Name)
		}
	}
	text, err := json.Marshal(observation{}.model(seen{service: want}))
	if err != nil {
		t.Fatal(err)
	}
	var shown Service
	if err := json.Unmarshal(text, &shown); err != nil {
		t.Fatal(err)
	}
	got, err := shown.Configured()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s\n%s", diff, text)
	}
	shown.Servers[1].Method = "carrier pigeon"
	if service, err := shown.Configured(); err == nil {
		t.Errorf("%+v", service)
	}
}
