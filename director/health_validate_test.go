package director_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

func TestValidateHealth(t *testing.T) {
	server := func(address string, weight uint32) realserver.Server {
		return realserver.Server{Address: netip.MustParseAddrPort(address), Method: realserver.NAT, Weight: weight}
	}
	tcp := realserver.Check{Kind: realserver.CheckTCP}
	good := director.Health{
		Checks: []realserver.Check{tcp}, Initial: director.InitialUp, Down: director.DownRemove, Established: director.EstablishedCut,
		Quorum: 2, Hysteresis: 1, Sorry: []realserver.Server{server("10.0.0.99:80", 1)}, Panic: 100, SlowStart: time.Minute,
		Damping:     director.Damping{Changes: 2, Within: time.Second, Hold: time.Second},
		Passive:     director.Passive{Resets: 1, Within: time.Second, Suspend: time.Second},
		Maintenance: "/a", Notify: director.Notify{Up: []string{"/a", ""}, FIFO: "/b"},
		Load: director.LoadPolicy{Kind: director.LoadLinear, Minimum: 100, Maximum: 100}, Pool: "web",
	}
	for _, tt := range []struct {
		field string // "": nothing is wrong
		want  string
		edit  func(h *director.Health)
	}{
		{"", "", func(*director.Health) {}},
		{"", "", func(h *director.Health) { *h = director.Health{} }},
		{"", "", func(h *director.Health) { h.Passive = director.Passive{Resets: 1} }}, // with its defaults
		{"check[1].kind", `check[1]: unknown check "ftp"`, func(h *director.Health) { h.Checks = []realserver.Check{tcp, {Kind: "ftp"}} }},
		{"check", "17 checks", func(h *director.Health) { h.Checks = make([]realserver.Check, 17); fillChecks(h.Checks, tcp) }},
		{"check[0].tls.ca", "is not an absolute path", func(h *director.Health) {
			h.Checks = []realserver.Check{{Kind: realserver.CheckTCP, TLS: &realserver.TLSCheck{CA: "ca.pem"}}}
		}},
		{"sorry[0].address", "sorry[0]: 10.0.0.1:80 is one of the service's servers", func(h *director.Health) { h.Sorry[0].Address = netip.MustParseAddrPort("10.0.0.1:80") }},
		{"sorry[1].address", "is sorry[0] already", func(h *director.Health) { h.Sorry = append(h.Sorry, h.Sorry[0]) }},
		{"sorry[0].weight", "weight 0", func(h *director.Health) { h.Sorry[0].Weight = 0 }},
		{"sorry[0].address", "is not of the service's address family", func(h *director.Health) { h.Sorry[0].Address = netip.MustParseAddrPort("[2001:db8::1]:80") }},
		{"sorry[0].address", "method dr does not rewrite packets", func(h *director.Health) {
			h.Sorry[0] = realserver.Server{Address: netip.MustParseAddrPort("10.0.0.9:81"), Method: realserver.DR, Weight: 1}
		}},
		{"health.initial", `unknown initial state "on"`, func(h *director.Health) { h.Initial = "on" }},
		{"health.down", `unknown action "kill"`, func(h *director.Health) { h.Down = "kill" }},
		{"health.established", `unknown word "kill"`, func(h *director.Health) { h.Established = "kill" }},
		{"health.hysteresis", "want a sum of", func(h *director.Health) { h.Quorum, h.Hysteresis = 1<<32-1, 1 }},
		{"health.panic", "panic 101%", func(h *director.Health) { h.Panic = 101 }},
		{"health.slow-start", "out of range", func(h *director.Health) { h.SlowStart = -1 }},
		{"health.damping", "damping without changes", func(h *director.Health) { h.Damping.Changes = 0 }},
		{"health.damping.changes", "changes 1", func(h *director.Health) { h.Damping.Changes = 1 }},
		{"health.damping.hold", "hold is missing", func(h *director.Health) { h.Damping.Hold = 0 }},
		{"health.passive", "passive without a limit", func(h *director.Health) { h.Passive.Resets = 0 }},
		{"health.passive.suspend", "want 1h0m0s at most", func(h *director.Health) { h.Passive.Suspend = 2 * time.Hour }},
		{"health.passive.within", "out of range", func(h *director.Health) { h.Passive.Within = 32 * 24 * time.Hour }},
		{"health.load", "load without a kind", func(h *director.Health) { h.Load.Kind = "" }},
		{"health.load.kind", `unknown load policy "cpu"`, func(h *director.Health) { h.Load.Kind = "cpu" }},
		{"health.load.minimum", "minimum 101%", func(h *director.Health) { h.Load.Minimum = 101 }},
		{"health.load.maximum", "maximum 99%", func(h *director.Health) { h.Load.Maximum = 99 }},
		{"health.load.snmp.version", `load: snmp: unknown version "v1"`, func(h *director.Health) { h.Load.SNMP = &realserver.SNMP{Version: "v1"} }},
		{"health.load.snmp.auth-file", "is not an absolute path", func(h *director.Health) {
			h.Load.SNMP = &realserver.SNMP{Version: realserver.SNMPv3, User: "a", Auth: realserver.SNMPAuthSHA, AuthFile: "a"}
		}},
		{"", "", func(h *director.Health) { h.Load.SNMP = &realserver.SNMP{Version: realserver.SNMPv2c} }},
		{"health.load", "load without a kind", func(h *director.Health) {
			h.Load = director.LoadPolicy{SNMP: &realserver.SNMP{Version: realserver.SNMPv2c}}
		}},
		{"health.maintenance", "is not an absolute path", func(h *director.Health) { h.Maintenance = "a" }},
		{"health.notify.up", `notify up "a" is not an absolute path`, func(h *director.Health) { h.Notify.Up = []string{"a"} }},
		{"health.notify.down", "the program is missing", func(h *director.Health) { h.Notify.Down = []string{""} }},
		{"health.notify.quorum-up", "has a NUL byte", func(h *director.Health) { h.Notify.QuorumUp = []string{"/a", "\x00"} }},
		{"health.notify.fifo", "is not an absolute path", func(h *director.Health) { h.Notify.FIFO = "a" }},
		{"health.pool", "pool \"a b\"", func(h *director.Health) { h.Pool = "a b" }},
	} {
		service := director.Service{
			Key:     director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")},
			Servers: []realserver.Server{server("10.0.0.1:80", 1)}, Health: good,
		}.Normalize()
		service.Health.Sorry = append([]realserver.Server(nil), good.Sorry...)
		tt.edit(&service.Health)
		problems := director.Problems(director.State{Services: []director.Service{service}}.Validate())
		switch {
		case tt.field == "" && len(problems) == 0:
		case len(problems) != 1 || tt.field == "":
			t.Errorf("%s: %v", tt.field, problems)
		case problems[0].Field != tt.field || !strings.Contains(problems[0].Error(), tt.want) || problems[0].Service != 0 || problems[0].Server != -1:
			t.Errorf("%s: %s: %v, want %q", tt.field, problems[0].Field, problems[0], tt.want)
		}
	}
}

// TestValidateTruePath: what could never pass by the way of clients is refused.
func TestValidateTruePath(t *testing.T) {
	type check = realserver.Check
	local := realserver.Server{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: realserver.Local, Weight: 1}
	for _, tt := range []struct {
		listen string
		check  check
		server realserver.Server
		want   string // "": nothing is wrong
	}{
		{"tcp://192.0.2.1:80", check{Kind: realserver.CheckHTTP, Port: 80}, realserver.Server{}, ""},
		{"udp://192.0.2.1:53", check{Kind: realserver.CheckDNS, DNS: &realserver.DNSCheck{Name: "a"}}, realserver.Server{}, ""},
		{"tcp://192.0.2.1:53", check{Kind: realserver.CheckDNS, DNS: &realserver.DNSCheck{Name: "a", TCP: true}}, realserver.Server{}, ""},
		{"tcp://192.0.2.1:80", check{Kind: realserver.CheckTCP, Port: 81}, realserver.Server{}, "clients' packets come by port 80, not 81"},
		{"udp://192.0.2.1:53", check{Kind: realserver.CheckTCP}, realserver.Server{}, "the check is by tcp, and clients of the service come by udp"},
		{"tcp://192.0.2.1:53", check{Kind: realserver.CheckDNS, DNS: &realserver.DNSCheck{Name: "a"}}, realserver.Server{}, "the check is by udp"},
		{"tcp://192.0.2.0/24:80", check{Kind: realserver.CheckTCP}, realserver.Server{}, "more than one address or port"},
		{"tcp://192.0.2.1:80-81", check{Kind: realserver.CheckTCP}, realserver.Server{}, "more than one address or port"},
		{"tcp://192.0.2.1:80", check{Kind: realserver.CheckTCP}, local, "no packet leaves for server 10.0.0.1:80 by method local"},
	} {
		tt.check.Via = realserver.ViaVirtual
		service := director.Service{Key: mustKey(tt.listen), Health: director.Health{Checks: []check{{Kind: realserver.CheckICMP}, tt.check}}}
		if tt.server != (realserver.Server{}) {
			service.Servers = []realserver.Server{tt.server}
		}
		problems := director.Problems(director.State{Services: []director.Service{service.Normalize()}}.Validate())
		switch {
		case tt.want == "" && len(problems) == 0:
		case tt.want == "" || len(problems) != 1 || problems[0].Field != "check[1].via" || !strings.Contains(problems[0].Error(), "via virtual: ") || !strings.Contains(problems[0].Error(), tt.want):
			t.Errorf("%s, %+v: %v, want %q", tt.listen, tt.check, problems, tt.want)
		}
		service.Health.Checks[1].Via = realserver.ViaAuto
		if err := (director.State{Services: []director.Service{service.Normalize()}}).Validate(); err != nil {
			t.Errorf("%s, without via: %v", tt.listen, err)
		}
	}
}

func fillChecks(checks []realserver.Check, check realserver.Check) {
	for i := range checks {
		checks[i] = check
	}
}

// TestSorryLacks: the data plane is asked of sorry servers as of others.
func TestSorryLacks(t *testing.T) {
	service := director.Service{
		Key:    director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")},
		Health: director.Health{Sorry: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: realserver.FullNAT, Weight: 1}}},
	}.Normalize()
	problems := director.Problems(director.IPVSFeatures().Check(director.State{Services: []director.Service{service}}))
	if len(problems) != 1 || problems[0].Field != "sorry[0].method" || !strings.Contains(problems[0].Error(), "sorry[0]: method fullnat is not there") {
		t.Errorf("%v", problems)
	}
}
