package director_test

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Each feature is the XDP plane's or IPVS's, and none of them has what the other
// lacks besides: the difference is what a migration loses or wins.
func TestFeaturesOf(t *testing.T) {
	xdp := director.Features{Plane: "xdp", Ranges: true, Access: true, Timeouts: true, Rules: true, Kill: true, Decide: true, Limits: true, Guard: true, FullNAT: true, MSS: true, Tunnels: true, TruePath: true, Passive: true, MaxWeight: 65535}
	ipvs := director.Features{Plane: "ipvs", Marks: true, SCTP: true, Tunnels: true, Engines: true, Sync: true, OwnAddresses: true, MaxWeight: 2147483647}
	for _, want := range []director.Features{xdp, ipvs} {
		if diff := cmp.Diff(want, plane(t, want.Plane)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Plane, diff)
		}
	}
	for _, name := range []string{"", "XDP", "dpdk"} {
		_, err := director.FeaturesOf(name)
		if want := `data plane "` + name + `": not supported: want xdp or ipvs`; !errors.Is(err, director.ErrUnsupported) || err.Error() != want {
			t.Errorf("%q: error %v, want %s", name, err, want)
		}
	}
}

// lacking is a use of each feature that has one in a state, and how it is refused.
var lacking = map[string]struct {
	edit func(*director.State) // of web and dns
	want []string              // without the plane's name
}{
	"Marks": {
		func(s *director.State) { s.Services[0].Key = mustKey("fwmark://7") },
		[]string{`listen: services[0] "web": a service of a firewall mark`},
	},
	"SCTP": {
		func(s *director.State) { s.Services[1].Key.Protocol = conntrack.SCTP },
		[]string{`listen: services[1] sctp://[2001:db8::1]:53: sctp`},
	},
	"Tunnels": {
		func(s *director.State) { s.Services[0].Servers[1].Method = realserver.Tunnel },
		[]string{`method: services[0] "web": servers[1]: method tunnel`},
	},
	"Engines": {
		func(s *director.State) {
			s.Services[0].Persistence = director.Persistence{Timeout: time.Minute, Prefix: 32, Engine: director.EngineSIP}
		},
		[]string{`persistence: services[0] "web": a persistence engine`},
	},
	"Sync": {
		func(s *director.State) { s.Sync = []director.SyncDaemon{daemon(director.SyncMaster, "eth0", 0)} },
		[]string{`sync: sync: a sync daemon`},
	},
	"OwnAddresses": {
		func(s *director.State) {
			s.Services[0].Servers[2].Method = realserver.NAT
			s.Services[0].Servers[1].Address = netip.MustParseAddrPort("127.0.0.1:80")
			s.Services[1].Key.Address = netip.MustParseAddrPort("[::1]:53")
		},
		[]string{
			`address: services[0] "web": servers[1]: address 127.0.0.1 is a loopback address: only method local reaches it`,
			`address: services[0] "web": servers[2]: 192.0.2.1 is the service's own virtual address: only method local delivers there`,
			`listen: services[1] udp://[::1]:53: a loopback address as the virtual one`,
		},
	},
	"Ranges": {
		func(s *director.State) {
			s.Services[0].Key = mustKey("tcp://192.0.2.0/24:80")
			s.Services[1].Key.LastPort = 60
		},
		[]string{`listen: services[0] "web": a service of a prefix`, `listen: services[1] udp://[2001:db8::1]:53-60: a range of ports`},
	},
	"Access": {
		func(s *director.State) { s.Services[0].Access.Deny = prefixes("10.0.0.0/8") },
		[]string{`access: services[0] "web": an access list`},
	},
	"Timeouts": {
		func(s *director.State) { s.Services[1].Timeouts.UDP = time.Minute },
		[]string{`timeouts: services[1] udp://[2001:db8::1]:53: a service's own timeout`},
	},
	"Rules": {
		func(s *director.State) {
			s.Services[0].Rules = director.Rules{SloppyTCP: true, ExpireNoDestConn: true, ExpireQuiescentTemplate: true, ConnReuse: director.ReuseNever}
		},
		[]string{
			`sloppy-tcp: services[0] "web": sloppy-tcp by service (its sysctl is net.ipv4.vs.sloppy_tcp)`,
			`expire-nodest-conn: services[0] "web": expire-nodest-conn by service (its sysctl is net.ipv4.vs.expire_nodest_conn)`,
			`expire-quiescent-template: services[0] "web": expire-quiescent-template by service (its sysctl is net.ipv4.vs.expire_quiescent_template)`,
			`conn-reuse-mode: services[0] "web": conn-reuse-mode by service (its sysctl is net.ipv4.vs.conn_reuse_mode)`,
		},
	},
	"Limits": {
		func(s *director.State) {
			s.Services[0].Limits.Rate, s.Services[1].Limits.Source = 1, director.SourceLimits{Prefix: 64, Connections: 1}
		},
		[]string{`limits: services[0] "web": a limit of connections`, `limits: services[1] udp://[2001:db8::1]:53: a limit of connections`},
	},
	"Guard": {
		func(s *director.State) { s.Services[0].Guard.Mode = director.GuardOn },
		[]string{`guard: services[0] "web": a guard`},
	},
	"FullNAT": {
		func(s *director.State) { s.Services[0].Servers[0].Method = realserver.FullNAT },
		[]string{`method: services[0] "web": servers[0]: method fullnat`},
	},
	"MSS": {
		func(s *director.State) { s.Services[0].MSS = 1400 },
		[]string{`mss: services[0] "web": a limit of segments' size`},
	},
	"TruePath": {
		func(s *director.State) {
			s.Services[0].Health.Checks = []realserver.Check{{Kind: realserver.CheckTCP, Via: realserver.ViaServer}, {Kind: realserver.CheckHTTP, Via: realserver.ViaVirtual}}
			s.Services[1].Health.Checks = []realserver.Check{{Kind: realserver.CheckUDP}}
		},
		[]string{`check[1].via: services[0] "web": check[1]: a check by the way of clients' packets`},
	},
	"Passive": {
		func(s *director.State) { s.Services[1].Health.Passive.Resets = 1 },
		[]string{`health.passive: services[1] udp://[2001:db8::1]:53: passive evidence`},
	},
	"MaxWeight": {
		func(s *director.State) { s.Services[0].Servers[0].Weight = realserver.MaxWeight },
		[]string{`weight: services[0] "web": servers[0]: weight 2147483647: the xdp data plane has weights up to 65535`},
	},
	"Kill": {
		func(s *director.State) {
			s.Drains = []director.Drain{{Service: web().Key, Server: web().Servers[0].Address, Kill: true}}
		},
		[]string{`kill: drain of 10.0.0.1:8080 of tcp://192.0.2.1:80: the removal of connections`},
	},
}

// Whatever a plane has it accepts, and what it has not it refuses, each thing at
// its place.
func TestFeaturesCheck(t *testing.T) {
	for _, name := range []string{director.PlaneXDP, director.PlaneIPVS} {
		features := reflect.ValueOf(plane(t, name))
		for i := range features.NumField() {
			feature := features.Type().Field(i).Name
			switch feature {
			case "Plane", "Decide": // asked, not configured
				continue
			case "NoLocal4", "NoLocal6": // of servers that register: TestFromPool
				continue
			}
			t.Run(name+"/"+feature, func(t *testing.T) {
				use, ok := lacking[feature]
				if !ok {
					t.Fatal("the feature is not tested")
				}
				state := director.State{Services: []director.Service{web(), dns()}}
				use.edit(&state)
				if err := plane(t, name).Check(director.State{Services: []director.Service{web(), dns()}}); err != nil {
					t.Errorf("without it: %v", err)
				}
				var got []string
				for _, p := range director.Problems(plane(t, name).Check(state)) {
					if !errors.Is(p, director.ErrUnsupported) {
						t.Errorf("%v is not %q", p, director.ErrUnsupported)
					}
					if p.Service >= 0 && !strings.HasPrefix(p.Where, "services["+string(rune('0'+p.Service))+"]") {
						t.Errorf("%v is at service %d", p, p.Service)
					}
					got = append(got, p.Field+": "+strings.TrimSuffix(p.Error(), " is not there on the "+name+" data plane"))
				}
				wanted := use.want
				if f := features.Field(i); f.Kind() == reflect.Bool && f.Bool() || feature == "MaxWeight" && name == director.PlaneIPVS {
					wanted = nil
				}
				want(t, "problems", wanted, got)
			})
		}
	}
}

// What IPVS alone has is all right there, and refused by XDP with every part named.
func TestFeaturesCheckEverything(t *testing.T) {
	state := everything()
	if err := plane(t, "ipvs").Check(state); err != nil {
		t.Errorf("ipvs: %v", err)
	}
	var got []string
	for _, p := range director.Problems(plane(t, "xdp").Check(state)) {
		got = append(got, strings.TrimSuffix(p.Error(), " is not there on the xdp data plane"))
	}
	want(t, "xdp", []string{
		`services[0] "diameter": sctp`,
		"services[1] udp://[::1]:5060: a loopback address as the virtual one",
		"services[1] udp://[::1]:5060: a persistence engine",
		"services[1] udp://[::1]:5060: servers[0]: address ::1 is a loopback address: only method local reaches it",
		`services[2] "marked": a service of a firewall mark`,
		"services[3] fwmark6://7: a service of a firewall mark",
		"sync: a sync daemon",
	}, got)
}

// A service that only IPVS can have goes through the whole of the director's
// changes there.
func TestIPVSOnly(t *testing.T) {
	r := startOn(t, director.PlaneIPVS, everything())
	r.sameAsFound(t)
	wantState(t, "desired", everything().Normalize(), r.State())
	marked := mustKey("fwmark://7")
	if key, err := r.Resolve("FWMARK://7"); err != nil || key != marked {
		t.Errorf("resolved %v, %v", key, err)
	}
	outcome, err := r.EditServer(t.Context(), by, marked, netip.MustParseAddrPort("10.0.0.3:0"), func(s *realserver.Server) error {
		s.Tunnel = realserver.TunnelOptions{Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn}
		s.Weight = 0
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "steps", []string{"drain server 10.0.0.3:0 of fwmark://7: tunnel gue port 5555, remote checksum → gre, full checksum, weight 1 → 0"}, stepTexts(outcome.Steps))
	if _, err := r.AddServer(t.Context(), by, marked, server("10.0.0.1:8080", realserver.NAT, 1)); !errors.Is(err, director.ErrExists) {
		t.Errorf("a server added twice: %v", err)
	}
	if _, err := r.AddServer(t.Context(), by, marked, server("10.0.0.1:8081", realserver.NAT, 1)); err != nil {
		t.Errorf("another port of a server: %v", err)
	}
	if _, err := r.RemoveService(t.Context(), by, mustKey("fwmark6://7")); err != nil {
		t.Error(err)
	}
	r.sameAsFound(t)

	// What IPVS has not is refused, wherever it comes from.
	refused := []struct {
		want string
		do   func(context.Context) (director.Outcome, error)
	}{
		{
			`edit service sctp://192.0.2.1:3868: services[0] "diameter": an access list is not there on the ipvs data plane`,
			func(ctx context.Context) (director.Outcome, error) {
				return r.EditService(ctx, by, mustKey("sctp://192.0.2.1:3868"), func(s *director.Service) error {
					s.Access.Deny = prefixes("10.0.0.0/8")
					return nil
				})
			},
		},
		{
			"apply: services[0] tcp://192.0.2.0/24:80: a service of a prefix is not there on the ipvs data plane",
			func(ctx context.Context) (director.Outcome, error) {
				return r.Apply(ctx, director.Request{Force: true}, director.State{Services: []director.Service{{Key: mustKey("tcp://192.0.2.0/24:80")}}})
			},
		},
	}
	for _, tt := range refused {
		if _, err := tt.do(t.Context()); !errors.Is(err, director.ErrUnsupported) || err.Error() != tt.want {
			t.Errorf("error\n %v, want\n %s", err, tt.want)
		}
	}
	r.sameAsFound(t)
}

// A found service with all that is IPVS's is adopted without a step.
func TestAdoptIPVSOnly(t *testing.T) {
	r := startOn(t, director.PlaneIPVS, director.State{Services: []director.Service{web()}})
	for _, service := range everything().Services {
		r.appear(service)
	}
	adoption, err := r.Adopt(t.Context(), by)
	if err != nil || len(adoption.Steps) > 0 || len(adoption.Adopted) != len(everything().Services) || len(adoption.Refused) > 0 {
		t.Errorf("adoption %+v, error %v", adoption, err)
	}
	want(t, "operations", nil, texts(r.fake.Operations()))
	r.sameAsFound(t)
	r.reconcile(t)
	wantForeign(t, r)
}

// A revision that was made for the other data plane: what this one has serves, the
// rest is refused without being asked for, told once, and can be removed or left.
func TestRevisionOfTheOtherPlane(t *testing.T) {
	first := startOn(t, director.PlaneIPVS, everything())
	if _, err := first.AddService(t.Context(), by, web2()); err != nil {
		t.Fatal(err)
	}
	first.fake.Meddle(func(s *director.State) { s.Services, s.Sync = nil, nil }) // the host was started anew
	first.fake.SetFeatures(plane(t, director.PlaneXDP))
	r := first.restart()
	if err := r.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	held := r.held(t)
	if len(held.Services) != 1 || held.Services[0].Key != web2().Key || len(held.Services[0].Servers) != 3 || held.Sync != nil {
		t.Errorf("held %+v, want the service that XDP can have", held)
	}
	var pending []string
	for _, failure := range r.Drift().Pending {
		pending = append(pending, failure.Cause)
	}
	const add = " is not there on the xdp data plane"
	wanted := []string{
		"start sync daemon master: a sync daemon" + add,
		"start sync daemon backup: a sync daemon" + add,
		"add service sctp://192.0.2.1:3868: sctp" + add,
		"add service udp://[::1]:5060: a loopback address as the virtual one" + add + "\na persistence engine" + add,
		"add service fwmark://7: a service of a firewall mark" + add,
		"add service fwmark6://7: a service of a firewall mark" + add,
	}
	seen := make(map[string]bool)
	var causes []string
	for _, cause := range pending {
		if !seen[cause] {
			causes = append(causes, cause)
		}
		seen[cause] = true
	}
	want(t, "causes", wanted, causes)
	r.news()
	r.reconcile(t)
	want(t, "events of the next look", nil, r.news())

	// Changes of the rest are not refused for it.
	if _, err := r.EditService(t.Context(), by, web2().Key, func(s *director.Service) error { s.Scheduler = "lc"; return nil }); err != nil {
		t.Error(err)
	}
	if _, err := r.StopSync(t.Context(), by, director.SyncMaster); !errors.Is(err, director.ErrUnsupported) {
		t.Errorf("one of two daemons stopped: %v", err) // the other one is still wanted
	}
	if _, err := r.Apply(t.Context(), director.Request{Force: true}, director.State{Services: []director.Service{web2()}, Sync: []director.SyncDaemon{}}); err != nil {
		t.Error(err)
	}
	r.reconcile(t)
	r.sameAsFound(t)
	if pending := r.Drift().Pending; pending != nil {
		t.Errorf("pending %v, want nothing", pending)
	}
}

// web2 is web at an address apart from those of everything.
func web2() director.Service {
	s := web()
	s.Key, s.Name = mustKey("tcp://192.0.2.2:80"), "web2"
	s.Servers[2] = server("192.0.2.2:80", realserver.Local, 1)
	return s
}
