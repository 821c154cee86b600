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
		Limits:   director.Limits{Rate: 5, Connections: 6, Source: director.SourceLimits{Prefix: 24, Rate: 7, Connections: 8}},
		Guard:    director.SourceGuard{Mode: director.GuardAuto, On: 100, Off: 50},
		MSS:      1400,
		Health:   fullHealth(),
		Servers: []realserver.Server{
			{Address: addr("10.0.0.11:0"), Method: realserver.DR, Weight: 0, Upper: 1000, Lower: 700, Draining: true},
			{Address: addr("10.0.0.12:80"), Method: realserver.NAT, Weight: 3},
			{Address: addr("10.0.0.12:81"), Method: realserver.FullNAT, Weight: 1},
			{Address: addr("10.0.0.13:0"), Method: realserver.Tunnel, Weight: 1, Tunnel: realserver.TunnelOptions{Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn}},
		},
	}
	// Whatever a service is given next has to come along too.
	for v, i := reflect.ValueOf(want), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the test does not set %s", v.Type().Field(i).Name)
		}
	}
	for v, i := reflect.ValueOf(want.Health), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the test does not set Health.%s", v.Type().Field(i).Name)
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

// fullHealth has each field, and each kind of check.
func fullHealth() director.Health {
	return director.Health{
		Checks: []realserver.Check{
			{Kind: realserver.CheckTCP, Port: 8080, Via: realserver.ViaVirtual, Interval: time.Second, Timeout: 500 * time.Millisecond, Retry: 200 * time.Millisecond, Rise: 4, Fall: 5},
			{Kind: realserver.CheckTCP, Exchange: &realserver.ExchangeCheck{Send: []byte("PING\r\n\x00\xff"), Expect: "^PONG"}, Via: realserver.ViaServer},
			{
				Kind: realserver.CheckHTTP,
				TLS: &realserver.TLSCheck{
					ServerName: "example.org", CA: "/etc/ca.pem", Certificate: "/etc/cert.pem", Key: "/etc/key.pem",
					SkipVerify: true, ExpiryWarning: time.Hour, RefuseWhenExpired: true,
				},
				HTTP: &realserver.HTTPCheck{
					Version: 2, Method: "HEAD", Path: "/healthz?full=1", Host: "example.org", Headers: []realserver.Header{{Name: "X-Probe", Value: "a: b"}},
					Status: []realserver.StatusRange{{First: 200, Last: 204}, {First: 301, Last: 301}}, Match: "ok$", Digest: "0123456789abcdef0123456789abcdef",
				},
			},
			{Kind: realserver.CheckHTTP, HTTP: &realserver.HTTPCheck{}},
			{Kind: realserver.CheckDNS, DNS: &realserver.DNSCheck{Name: "example.org", Type: "AAAA", Answer: "2001:db8::1", TCP: true}},
			{Kind: realserver.CheckUDP, Exchange: &realserver.ExchangeCheck{Send: []byte("ping")}},
			{Kind: realserver.CheckICMP},
			{Kind: realserver.CheckGRPC, GRPC: &realserver.GRPCCheck{Service: "shop"}},
			{Kind: realserver.CheckSMTP, SMTP: &realserver.SMTPCheck{Hello: "director", STARTTLS: true}},
			{Kind: realserver.CheckScript, Script: &realserver.ScriptCheck{Command: []string{"/usr/bin/check", "%h", "%p"}, User: "nobody", Status: realserver.StatusWeight}},
			{Kind: realserver.CheckFile, File: &realserver.FileCheck{Path: "/run/weight"}},
		},
		Initial: director.InitialUp, Down: director.DownRemove, Established: director.EstablishedCut, Quorum: 3, Hysteresis: 1,
		Sorry: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.99:80"), Method: realserver.NAT, Weight: 1}},
		Panic: 50, SlowStart: 30 * time.Second, Damping: director.Damping{Changes: 5, Within: time.Minute, Hold: 10 * time.Minute},
		Passive:     director.Passive{Unanswered: 3, Resets: 4, Unreachable: 5, Within: 10 * time.Second, Suspend: time.Minute},
		Maintenance: "/etc/shunt/maintenance",
		Notify: director.Notify{
			Up: []string{"/usr/bin/up", "now"}, Down: []string{"/usr/bin/down"}, QuorumUp: []string{"/usr/bin/quorum", "up"}, QuorumDown: []string{"/usr/bin/quorum", "down"}, FIFO: "/run/fifo",
		},
		Load: director.LoadPolicy{Kind: director.LoadLeastUsed, Minimum: 20, Maximum: 150, Silence: time.Minute, SNMP: &realserver.SNMP{
			Version: realserver.SNMPv3, CommunityFile: "/c", User: "shunt", Auth: realserver.SNMPAuthSHA512, AuthFile: "/a", Priv: realserver.SNMPPrivAES256, PrivFile: "/p",
			Port: 1161, Interval: 20 * time.Second, Timeout: time.Second, Measure: realserver.SNMPMeasureLoad5, Processors: 4, OID: "1.3.6.1", Scale: 800,
		}},
		Pool: "web",
	}
}

// TestConfiguredForeign: what is shown of somebody else's service is what the kernel
// has, although no configuration can have it.
func TestConfiguredForeign(t *testing.T) {
	addr := netip.MustParseAddrPort
	for _, address := range []string{"0.0.0.0:80", "224.0.0.5:80", "[::]:80", "[::ffff:1.2.3.4]:80"} {
		want := director.Service{
			Key:       director.ServiceKey{Protocol: conntrack.TCP, Address: addr(address)},
			Scheduler: "none", VIP: director.VIPExternal,
			Persistence: director.Persistence{Timeout: time.Minute, Prefix: 8, Mask: 0xff00ff00},
			Servers: []realserver.Server{
				{Address: addr("10.0.0.1:0"), Method: realserver.NAT, Weight: 1},
				{Address: addr("10.0.0.1:80"), Method: realserver.DR, Weight: 1},
				{Address: addr("10.0.0.2:81"), Method: 5},
				{Address: addr("10.0.0.3:81"), Method: realserver.Tunnel, Tunnel: realserver.TunnelOptions{Type: 9, Port: 7, Checksum: 3}},
			},
		}
		o := observation{stats: map[director.ServiceKey]director.ServiceStats{want.Key: {Servers: []director.ServerStats{
			{Server: want.Servers[0], Active: 3, Reachable: true}, {Server: want.Servers[1], Active: 4, Reachable: true},
		}}}}
		o.foreign = []director.Service{want}
		listed := o.model(o.all(true)[0])
		found := o.found(director.State{Services: o.foreign}, director.State{}).Services[0]
		if diff := cmp.Diff(listed, found); diff != "" {
			t.Errorf("listed (-) and found (+)\n%s", diff)
		}
		if found.Servers[0].Active != 3 || found.Servers[1].Active != 4 {
			t.Errorf("counts of servers: %+v", found.Servers)
		}
		got, err := found.Configured()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		found.Persistence = persistenceModel(director.Persistence{Engine: director.EngineSIP}) // ipvsadm --pe sip without -p
		if got, err = found.Configured(); err != nil || got.Persistence != (director.Persistence{Engine: director.EngineSIP}) {
			t.Errorf("an engine alone: %+v, %v", got.Persistence, err)
		}
	}
}
