package director_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

func TestValidateAccepts(t *testing.T) {
	states := []director.State{
		{},
		{Services: []director.Service{web(), dns()}, Timeouts: conntrack.DefaultTimeouts()},
		everything(),
		{Services: []director.Service{translated()}},
	}
	for i, state := range states {
		if err := state.Validate(); err != nil {
			t.Errorf("states[%d]: %v", i, err)
		}
	}
}

// translated has what method fullnat may have, the smallest segments included: ports
// of its own, or the client's.
func translated() director.Service {
	s := web()
	s.Key, s.MSS = mustKey("tcp://192.0.2.1:80-90"), director.MinMSS
	s.Servers = []realserver.Server{server("10.0.0.1:8080", realserver.FullNAT, 1), server("10.0.0.2:0", realserver.FullNAT, 1)}
	return s
}

func TestValidateRefuses(t *testing.T) {
	tests := []struct {
		name string
		edit func(*director.State) // of web and dns
		want []string
	}{
		{
			"duplicate_service", func(s *director.State) {
				s.Services[1] = web()
				s.Services[1].Name = "other"
			},
			[]string{`services[1] "other": tcp://192.0.2.1:80 is services[0] already`},
		},
		{
			"duplicate_name", func(s *director.State) { s.Services[1].Name = "web" },
			[]string{`services[1] "web": name "web" is that of services[0] already`},
		},
		{
			"bad_name", func(s *director.State) { s.Services[0].Name = "tcp://x" },
			[]string{`services[0] "tcp://x": name "tcp://x": want 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first`},
		},
		{
			"duplicate_server", func(s *director.State) { s.Services[0].Servers[1] = s.Services[0].Servers[0] },
			[]string{`services[0] "web": servers[1]: 10.0.0.1:8080 is servers[0] already`},
		},
		{
			"unknown_scheduler", func(s *director.State) { s.Services[1].Scheduler = "best" },
			[]string{`services[1] udp://[2001:db8::1]:53: unknown scheduler "best": want ` + allSchedulers()},
		},
		{
			"port_0_without_persistence", func(s *director.State) {
				s.Services[1].Key.Address = netip.MustParseAddrPort("[2001:db8::1]:0")
				s.Services[1].Servers[0].Address = netip.MustParseAddrPort("[2001:db8:1::1]:0")
			},
			[]string{`services[1] udp://[2001:db8::1]:0: port 0, all ports, is for persistent services: give persistence, or a range such as 1-65535`},
		},
		{
			"persistence", func(s *director.State) {
				s.Services[0].Persistence = director.Persistence{Timeout: 1500 * time.Millisecond, Prefix: 33}
				s.Services[1].Persistence = director.Persistence{Timeout: 1000 * time.Hour}
			},
			[]string{
				`services[0] "web": persistence timeout 1.5s: want whole seconds`,
				`services[0] "web": prefix 33: want 32 at most`,
				`services[1] udp://[2001:db8::1]:53: persistence timeout 1000h0m0s is out of range: want 1s to 744h (31 days)`,
				`services[1] udp://[2001:db8::1]:53: prefix 0: want 1 to 128`,
			},
		},
		{
			"prefix_without_timeout", func(s *director.State) { s.Services[0].Persistence.Prefix = 24 },
			[]string{`services[0] "web": persistence timeout 0s is out of range: want 1s to 744h (31 days)`},
		},
		{
			"rules_of_the_other_protocol", func(s *director.State) {
				s.Services[0].OnePacket = true
				s.Services[0].Timeouts.UDP = -time.Second
				s.Services[1].Rules = director.Rules{SloppyTCP: true, ConnReuse: director.ReuseNever}
			},
			[]string{
				`services[0] "web": one-packet scheduling is for udp`,
				`services[0] "web": udp timeout -1s is out of range: want 1s to 744h (31 days)`,
				`services[1] udp://[2001:db8::1]:53: sloppy-tcp is for tcp`,
				`services[1] udp://[2001:db8::1]:53: conn-reuse-mode is for tcp`,
			},
		},
		{
			"thresholds", func(s *director.State) {
				s.Services[0].Servers[0].Lower = 5
				s.Services[0].Servers[1].Upper, s.Services[0].Servers[1].Lower = 1<<32-1, 1<<32-1
			},
			[]string{
				`services[0] "web": servers[0]: lower threshold 5 is greater than the upper one (0)`,
			},
		},
		{
			"ports_of_a_wide_service", func(s *director.State) {
				s.Services[0].Key.LastPort = 90
				s.Services[0].Servers[2].Address = netip.MustParseAddrPort("192.0.2.1:0")
			},
			[]string{`services[0] "web": servers[1]: port 80: method dr does not rewrite packets, and the service has several ports: leave the port out`},
		},
		{
			"unknown_vip_owner", func(s *director.State) { s.Services[0].VIP = "mine" },
			[]string{`services[0] "web": unknown vip "mine": want managed or external`},
		},
		{
			"multicast_vip", func(s *director.State) { s.Services[1].Key.Address = netip.MustParseAddrPort("[ff02::1]:53") },
			[]string{`services[1] udp://[ff02::1]:53: virtual address ff02::1 is multicast: want a unicast address`},
		},
		{
			"rules_of_sctp", func(s *director.State) {
				s.Services[1].Key.Protocol = conntrack.SCTP
				s.Services[1].OnePacket = true
				s.Services[1].Rules.SloppyTCP = true
			},
			[]string{
				`services[1] sctp://[2001:db8::1]:53: one-packet scheduling is for udp`,
				`services[1] sctp://[2001:db8::1]:53: sloppy-tcp is for tcp`,
			},
		},
		{
			"mark_with_more", func(s *director.State) {
				s.Services[0].Key.Mark = 7
				s.Services[1].Key = director.ServiceKey{Mark: 7}
			},
			[]string{
				`services[0] "web": a service of a firewall mark has a family and no protocol, address or port`,
				`services[1] fwmark://7: a service of a firewall mark has a family and no protocol, address or port`,
			},
		},
		{
			"servers_of_a_mark", func(s *director.State) {
				s.Services[0].Key = mustKey("fwmark6://7")
				s.Services[1].Key = mustKey("fwmark://7")
				s.Services[1].Servers[0].Method = realserver.Tunnel
				s.Services[1].Servers[0].Tunnel.Port = 5555
			},
			[]string{
				`services[0] "web": servers[0]: 10.0.0.1 is not of the service's address family (::): only tunnels can mix them`,
				`services[0] "web": servers[1]: 10.0.0.2 is not of the service's address family (::): only tunnels can mix them`,
				`services[0] "web": servers[2]: 192.0.2.1 is not of the service's address family (::): only tunnels can mix them`,
				`services[1] fwmark://7: servers[0]: port 5555: only gue has a port`,
			},
		},
		{
			"engine", func(s *director.State) {
				s.Services[0].Persistence = director.Persistence{Timeout: time.Minute, Prefix: 24, Engine: "h323"}
				s.Services[1].Persistence = director.Persistence{Engine: director.EngineSIP, Prefix: 128}
			},
			[]string{
				`services[0] "web": unknown persistence engine "h323": want sip`,
				`services[1] udp://[2001:db8::1]:53: persistence engine sip without a persistence timeout: want 1s to 744h (31 days)`,
			},
		},
		{
			"no_key", func(s *director.State) { s.Services[0].Key = director.ServiceKey{} },
			[]string{`services[0] "web": unknown protocol 0: want tcp, udp or sctp`},
		},
		{
			"port_0", func(s *director.State) { s.Services[0].Servers[1] = server("10.0.0.2:0", realserver.DR, 1) },
			[]string{`services[0] "web": servers[1]: port 0 is reserved`},
		},
		{
			"weight", func(s *director.State) { s.Services[0].Servers[1].Weight = 2147483648 },
			[]string{`services[0] "web": servers[1]: weight 2147483648 is out of range: want 0 to 2147483647`},
		},
		{
			"family_mix", func(s *director.State) {
				s.Services[0].Servers[1] = server("[2001:db8::2]:80", realserver.NAT, 1)
			},
			[]string{`services[0] "web": servers[1]: 2001:db8::2 is not of the service's address family (192.0.2.1): only tunnels can mix them`},
		},
		{
			"tunnel_port", func(s *director.State) { s.Services[0].Servers[0].Method = realserver.Tunnel },
			[]string{`services[0] "web": servers[0]: port 8080: method tunnel does not rewrite packets, so the port must be the service's (80)`},
		},
		{
			"tunnel_port_of_a_wide_service", func(s *director.State) {
				s.Services[0].Key.LastPort = 90
				s.Services[0].Servers = s.Services[0].Servers[:1]
				s.Services[0].Servers[0].Method = realserver.Tunnel
			},
			[]string{`services[0] "web": servers[0]: port 8080: method tunnel does not rewrite packets, and the service has several ports: leave the port out`},
		},
		{
			"tunnel_options", func(s *director.State) {
				s.Services[0].Servers[0].Tunnel.Type = realserver.TunnelGRE
				s.Services[0].Servers[1].Method = realserver.Tunnel
				s.Services[0].Servers[1].Tunnel.Type = realserver.TunnelGUE
			},
			[]string{
				`services[0] "web": servers[0]: method nat has no tunnel`,
				`services[0] "web": servers[1]: gue wants a port`,
			},
		},
		{
			"dr_port", func(s *director.State) { s.Services[0].Servers[0].Method = realserver.DR },
			[]string{`services[0] "web": servers[0]: port 8080: method dr does not rewrite packets, so the port must be the service's (80)`},
		},
		{
			"local_port", func(s *director.State) { s.Services[0].Servers[0].Method = realserver.Local },
			[]string{`services[0] "web": servers[0]: port 8080: method local does not rewrite packets, so the port must be the service's (80)`},
		},
		{
			"timeouts", func(s *director.State) { s.Timeouts = conntrack.Timeouts{TCP: time.Second, UDP: time.Second / 2} },
			[]string{
				"timeouts: tcp-fin timeout 0s is out of range: want 1s to 744h (31 days)",
				"timeouts: udp timeout 500ms is out of range: want 1s to 744h (31 days)",
			},
		},
		{
			"everything_at_once", func(s *director.State) {
				s.Services[0].Key.Address = netip.MustParseAddrPort("224.0.0.1:80")
				s.Services[0].Servers[0].Weight = 2147483648
				s.Services[1].Scheduler = ""
				s.Sync = []director.SyncDaemon{{Role: "spare"}}
			},
			[]string{
				`services[0] "web": virtual address 224.0.0.1 is multicast: want a unicast address`,
				`services[0] "web": servers[0]: weight 2147483648 is out of range: want 0 to 2147483647`,
				`services[1] udp://[2001:db8::1]:53: unknown scheduler "": want ` + allSchedulers(),
				`sync[0]: unknown role "spare": want master or backup`,
				`sync[0]: "" is not an interface name: want 1 to 15 characters without spaces, '/' and ':'`,
			},
		},
	}
	tests = append(tests, []struct {
		name string
		edit func(*director.State)
		want []string
	}{
		{
			"mss", func(s *director.State) {
				s.Services[0].MSS = 535
				s.Services[1].MSS = 1400
				six := dns()
				six.Key, six.Servers, six.MSS = mustKey("tcp://[2001:db8::2]:80"), nil, 1219
				marked := director.Service{Key: mustKey("fwmark://7"), MSS: 1400}
				s.Services = append(s.Services, six, marked.Normalize())
			},
			[]string{
				`services[0] "web": mss 535: want 536 to 65535`,
				`services[1] udp://[2001:db8::1]:53: mss is for tcp`,
				`services[2] tcp://[2001:db8::2]:80: mss 1219: want 1220 to 65535`,
				`services[3] fwmark://7: mss is for tcp`,
			},
		},
		{
			"fullnat", func(s *director.State) {
				s.Services[0].Servers[0] = server("[2001:db8:1::1]:80", realserver.FullNAT, 1)
				s.Services[1].OnePacket = true
				s.Services[1].Servers = []realserver.Server{server("[2001:db8:1::1]:5353", realserver.FullNAT, 1)}
				s.Services[1].Health.Sorry = []realserver.Server{server("[2001:db8:1::2]:5353", realserver.FullNAT, 1)}
			},
			[]string{
				`services[0] "web": servers[0]: 2001:db8:1::1 is not of the service's address family (192.0.2.1): only tunnels can mix them`,
				`services[1] udp://[2001:db8::1]:53: servers[0]: method fullnat: one-packet scheduling makes no connection, by which replies would find their client`,
				`services[1] udp://[2001:db8::1]:53: sorry[0]: method fullnat: one-packet scheduling makes no connection, by which replies would find their client`,
			},
		},
	}...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			state := director.State{Services: []director.Service{web(), dns()}}
			tt.edit(&state)
			var got []string
			for _, problem := range director.Problems(state.Validate()) {
				if !errors.Is(problem, director.ErrInvalid) {
					t.Errorf("%v is not %q", problem, director.ErrInvalid)
				}
				got = append(got, problem.Error())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateLocates(t *testing.T) {
	state := director.State{Services: []director.Service{dns(), web(), web()}}
	state.Services[1].Servers[2].Weight = 2147483648
	state.Services[2].Access.Deny = prefixes("2001:db8::/32")
	problems := director.Problems(fmt.Errorf("apply: %w", state.Validate()))
	type place struct {
		Service, Server int
		Field           string
		Other           int
		Prefix          string
		Message         string
	}
	var got []place
	for _, p := range problems {
		at := place{p.Service, p.Server, p.Field, p.Other, "", p.Message("b.yaml:7")}
		if p.Prefix.IsValid() {
			at.Prefix = p.Prefix.String()
		}
		got = append(got, at)
	}
	want := []place{
		{1, 2, "weight", -1, "", "weight 2147483648 is out of range: want 0 to 2147483647"},
		{2, -1, "listen", 1, "", "tcp://192.0.2.1:80 is b.yaml:7 already"},
		{2, -1, "name", 1, "", `name "web" is that of b.yaml:7 already`},
		{2, -1, "access", -1, "2001:db8::/32", "2001:db8::/32 is not of the service's address family (192.0.2.1)"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if director.Problems(nil) != nil || director.Problems(errors.New("other")) != nil {
		t.Error("problems found where there are none")
	}
}

func TestValidateTooManyServers(t *testing.T) {
	service := web()
	service.Servers = nil
	for i := range director.MaxServers + 1 {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
		service.Servers = append(service.Servers, realserver.Server{Address: addr, Weight: 1})
	}
	err := service.Validate()
	if want := `service "web": 1025 servers: a service has at most 1024`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	service.Servers = service.Servers[1:]
	if err := service.Validate(); err != nil {
		t.Errorf("%d servers: %v", len(service.Servers), err)
	}
}

func TestNormalize(t *testing.T) {
	in := web()
	in.Scheduler, in.VIP = "", ""
	in.Servers[1] = server("10.0.0.2:0", realserver.DR, 2)
	before := in.Clone()
	got := director.State{Services: []director.Service{dns(), in}}.Normalize()
	want := web()
	want.Scheduler = director.WeightedLeastConnection
	if diff := cmp.Diff([]director.Service{want, dns()}, got.Services, cmpNetip); diff != "" {
		t.Errorf("normalized (-want +got):\n%s", diff)
	}
	// Servers of a mark keep port 0: the client's.
	mark := director.Service{Key: mustKey("fwmark://7"), Servers: []realserver.Server{server("10.0.0.2:0", realserver.NAT, 1)}}
	if got := mark.Normalize().Servers[0].Address.String(); got != "10.0.0.2:0" {
		t.Errorf("server of a mark: %s, want it as it was", got)
	}
	if diff := cmp.Diff(before, in, cmpNetip); diff != "" {
		t.Errorf("the argument changed (-before +after):\n%s", diff)
	}
}

func TestSchedulerFlagNames(t *testing.T) {
	got := director.SourceHash.FlagNames(director.SchedulerFlags{Port: true, Fallback: true})
	if want := "sh-fallback,sh-port"; strings.Join(got, ",") != want {
		t.Errorf("%v, want %s", got, want)
	}
	got = director.RoundRobin.FlagNames(director.SchedulerFlags{Port: true, Fallback: true, Third: true})
	if want := "flag-1,flag-2,flag-3"; strings.Join(got, ",") != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// allSchedulers is the list that messages give.
func allSchedulers() string {
	var names []string
	for _, s := range director.Schedulers() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}
