package role

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/realserver/agent"
)

func prefixes(all ...string) (parsed []netip.Prefix) {
	for _, s := range all {
		parsed = append(parsed, netip.MustParsePrefix(s))
	}
	return parsed
}

// right is a host that fits every role of these tests, and what it has is changed.
func right() (Role, *snapshot, map[string]int) {
	r := Role{
		Methods: []Method{DR}, VIPs: prefixes("192.0.2.1/32", "2001:db8::1/128"), Interfaces: []string{"eth0"},
		Directors: prefixes("10.0.0.1/32"), Ports: []Port{{Number: 80, Network: "tcp"}},
	}.withDefaults()
	knobs := map[string]int{"all arp_ignore": 1, "all arp_announce": 2}
	s := &snapshot{
		links: []linkState{
			{name: "lo", index: 1, own: true, loopback: true, up: true, mtu: 65536, addresses: prefixes("127.0.0.1/8", "192.0.2.1/32", "2001:db8::1/128")},
			{name: "eth0", index: 2, up: true, mtu: 1600, addresses: prefixes("10.0.0.2/24")},
		},
		routes: []route{
			{to: netip.MustParsePrefix("0.0.0.0/0"), gateways: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, iface: "eth0"},
			{to: netip.MustParsePrefix("10.0.0.0/24"), iface: "eth0"},
		},
		knob: func(iface, name string) (int, bool) { return knobs[iface+" "+name], true },
		decap: decap.State{Interfaces: []decap.Running{{
			Interface: decap.Interface{Index: 2, Name: "eth0", Mode: decap.Native},
			Config:    decap.Config{Types: []decap.Type{decap.IPIP}, Ports: []uint16{6080}, To: prefixes("10.0.0.2/32"), From: prefixes("10.0.0.1/32"), Virtual: prefixes("192.0.2.1/32")},
		}}},
		listening: map[string][]netip.AddrPort{"tcp": {netip.MustParseAddrPort("[::]:80")}},
	}
	s.wanted = running(s.decap)
	return r, s, knobs
}

// TestJudge: each thing that is wrong is said, with what mends it, and nothing that is right.
func TestJudge(t *testing.T) {
	const ignores, asks, strict = "eth0: arp_ignore is ", "eth0: arp_announce is ", "eth0: rp_filter is strict"
	via := func(gateway string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(gateway)} }
	for _, test := range []struct {
		name   string
		change func(r *Role, s *snapshot, knobs map[string]int)
		want   []string // what each finding begins with
		mends  string   // what is in the changes
	}{
		{"all is right", func(*Role, *snapshot, map[string]int) {}, nil, ""},
		{"answers ARP", func(_ *Role, _ *snapshot, k map[string]int) { k["all arp_ignore"] = 0 }, []string{ignores + "0"}, "all/arp_ignore=1 (was 0), eth0/arp_ignore=1 (was 0)"},
		{"answers ARP for addresses that are not of the host alone", func(_ *Role, _ *snapshot, k map[string]int) { k["eth0 arp_ignore"] = 3 }, []string{ignores + "3"}, "eth0/arp_ignore=1 (was 3)"},
		{"the interface's is right", func(_ *Role, _ *snapshot, k map[string]int) { k["all arp_ignore"], k["eth0 arp_ignore"] = 0, 2 }, nil, ""},
		{"asks by ARP", func(_ *Role, _ *snapshot, k map[string]int) { k["all arp_announce"] = 1 }, []string{asks + "1"}, "all/arp_announce=2 (was 1), eth0/arp_announce=2 (was 0)"},
		{"ARP is not IPv6's", func(r *Role, _ *snapshot, k map[string]int) {
			r.VIPs, k["all arp_ignore"], k["eth0 rp_filter"] = prefixes("2001:db8::1/128"), 0, 1
		}, nil, ""},
		{"nor of a tunnel's that comes from afar", func(r *Role, _ *snapshot, k map[string]int) { r.Methods, k["all arp_ignore"] = []Method{IPIP}, 0 }, nil, ""},
		{"but of one's in its network", func(r *Role, s *snapshot, k map[string]int) {
			r.Methods, k["all arp_ignore"], s.links[1].addresses = []Method{IPIP}, 0, prefixes("10.0.0.2/24", "192.0.2.7/24")
		}, []string{ignores + "0"}, "all/arp_ignore=1"},
		{"strict for all", func(_ *Role, _ *snapshot, k map[string]int) { k["all rp_filter"] = 1 }, []string{strict}, "eth0/rp_filter=2 (was 0)"},
		{"strict for it", func(_ *Role, _ *snapshot, k map[string]int) { k["eth0 rp_filter"] = 1 }, []string{strict}, "eth0/rp_filter=2 (was 1)"},
		{"strict for all, loose for it", func(_ *Role, _ *snapshot, k map[string]int) { k["all rp_filter"], k["eth0 rp_filter"] = 1, 2 }, nil, ""},
		{"no address", func(_ *Role, s *snapshot, _ map[string]int) { s.links[0].addresses = prefixes("127.0.0.1/8") }, []string{"192.0.2.1: it is not on this host", "2001:db8::1: it is not on this host"}, "address 192.0.2.1/32 on lo, address 2001:db8::1/128 on lo"},
		{"a dummy has it", func(_ *Role, s *snapshot, _ map[string]int) {
			s.links[0].addresses = nil
			s.links = append(s.links, linkState{name: "vips", own: true, addresses: prefixes("192.0.2.1/32", "2001:db8::1/128")})
		}, nil, ""},
		{"a local route has it", func(_ *Role, s *snapshot, _ map[string]int) {
			s.links[0].addresses, s.locals = prefixes("2001:db8::1/128"), prefixes("192.0.2.0/24")
		}, nil, ""},
		{"on the wrong interface", func(_ *Role, s *snapshot, _ map[string]int) {
			s.links[1].addresses = append(s.links[1].addresses, netip.MustParsePrefix("192.0.2.1/24"))
		}, []string{"192.0.2.1: it is on eth0, which tells its network"}, ""},
		{"of the wrong length", func(_ *Role, s *snapshot, _ map[string]int) {
			s.links[0].addresses = prefixes("192.0.2.1/24", "2001:db8::1/128")
		}, []string{"192.0.2.1: it is on lo with the length 24: the host takes all of 192.0.2.0/24"}, ""},
		{"lo is down", func(_ *Role, s *snapshot, _ map[string]int) { s.links[0].up = false }, []string{"lo: it is down"}, ""},
		{"a prefix", func(r *Role, _ *snapshot, _ map[string]int) { r.VIPs = prefixes("198.51.100.0/24") }, []string{"198.51.100.0/24: the host does not accept"}, "local-route 198.51.100.0/24"},
		{"a prefix with the gateway", func(r *Role, _ *snapshot, _ map[string]int) {
			r.VIPs, r.Directors = prefixes("10.0.0.0/31"), nil
		}, []string{"10.0.0.0/31: 10.0.0.1 is among them, a gateway's address, which the host could not reach"}, ""},
		{"a prefix with its own address", func(r *Role, _ *snapshot, _ map[string]int) { r.VIPs = prefixes("10.0.0.2/31") }, []string{"10.0.0.2/31: 10.0.0.2 is among them, the address of eth0"}, ""},
		{"the director's address", func(r *Role, _ *snapshot, _ map[string]int) {
			r.VIPs, r.Directors = prefixes("10.0.0.9/32"), prefixes("10.0.0.9/32")
		}, []string{"10.0.0.9: it is a director's own address"}, ""},
		{"nobody listens", func(_ *Role, s *snapshot, _ map[string]int) { s.listening = nil }, []string{"port 80/tcp: nobody listens on it at 192.0.2.1", "port 80/tcp: nobody listens on it at 2001:db8::1"}, ""},
		{"listens by IPv4 alone", func(_ *Role, s *snapshot, _ map[string]int) {
			s.listening["tcp"] = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}
		}, []string{"port 80/tcp: nobody listens on it at 2001:db8::1"}, ""},
		{"listens elsewhere", func(_ *Role, s *snapshot, _ map[string]int) {
			s.listening = map[string][]netip.AddrPort{"udp": s.listening["tcp"], "tcp": {netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("[2001:db8::1]:80")}}
		}, []string{"port 80/tcp: nobody listens on it at 192.0.2.1"}, ""},
		{"a tunnel", func(r *Role, _ *snapshot, _ map[string]int) { r.Methods = []Method{IPIP} }, nil, ""},
		{"a tunnel that does not fit", func(r *Role, s *snapshot, _ map[string]int) { r.Methods, s.links[1].mtu = []Method{IPIP}, 1500 }, []string{"eth0: its MTU of 1500 leaves clients' packets 1480 octets"}, ""},
		{"one of IPv6", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods, r.Directors, s.links[1].mtu = []Method{Tunnel}, prefixes("2001:db8:1::1/128"), 1551
		}, []string{"eth0: its MTU of 1551 leaves clients' packets 1499 octets"}, ""},
		{"no decapsulation", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods = []Method{IPIP}
			s.decap.Interfaces[0].IsGone = true
		}, []string{"decapsulation: it does not run"}, "decapsulation: ipip on eth0 for 192.0.2.1 (was: none)"},
		{"decapsulation for an address that is gone", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods = []Method{IPIP}
			s.decap.Interfaces[0].Config.To = prefixes("10.0.0.2/32", "10.0.0.9/32")
		}, []string{"decapsulation: it is for addresses that this host has no more"}, "decapsulation: ipip on eth0"},
		{"decapsulation that lacks much", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods = []Method{GUE}
			s.wanted.Types, s.wanted.Ports, s.wanted.Virtual, s.wanted.From = []string{"gue"}, []uint16{5555}, prefixes("192.0.2.2/32"), prefixes("10.0.0.9/32")
		}, []string{"decapsulation: it runs, but not of gue, for 192.0.2.2, from 10.0.0.9, at gue's port 5555"}, "decapsulation: gue, ipip on eth0 for 192.0.2.1, 192.0.2.2 (was: ipip on eth0 for 192.0.2.1)"},
		{"nat", func(r *Role, _ *snapshot, _ map[string]int) { r.Methods = []Method{NAT} }, nil, ""},
		{"nat without a route", func(r *Role, s *snapshot, _ map[string]int) { r.Methods, s.routes = []Method{NAT}, nil }, []string{"clients 0.0.0.0/0: there is no route to them, not by the director"}, ""},
		{"one that may be made", func(r *Role, s *snapshot, _ map[string]int) { r.Methods, r.Route, s.routes = []Method{NAT}, true, nil }, []string{"clients 0.0.0.0/0"}, "route 0.0.0.0/0 via 10.0.0.1"},
		{"one by another", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods, r.Route, s.routes[0].gateways = []Method{NAT}, true, via("10.0.0.254")
		}, []string{"clients 0.0.0.0/0: they are answered by 10.0.0.254"}, "route 0.0.0.0/1 via 10.0.0.1, route 128.0.0.0/1 via 10.0.0.1"},
		{"halves of it by the director", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods, s.routes[0].gateways = []Method{NAT}, via("10.0.0.254")
			for _, half := range prefixes("0.0.0.0/1", "128.0.0.0/1") {
				s.routes = append(s.routes, route{to: half, gateways: via("10.0.0.1")})
			}
		}, nil, ""},
		{"a half is another's", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods, r.Route, s.routes[0].gateways = []Method{NAT}, true, via("10.0.0.254")
			s.routes = append(s.routes, route{to: netip.MustParsePrefix("128.0.0.0/1"), gateways: via("10.0.0.254")})
		}, []string{"clients 0.0.0.0/0: they are answered by 10.0.0.254, not by the director, which then cannot put the virtual address in; a route"}, ""},
		{"by itself", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods, r.Route, r.Directors = []Method{NAT}, true, prefixes("10.0.0.2/32")
		}, []string{"clients 0.0.0.0/0: 10.0.0.2 is this host's own address, and no director's"}, ""},
		{"by one that is far", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods, r.Route, r.Directors = []Method{NAT}, true, prefixes("10.9.0.1/32")
		}, []string{"clients 0.0.0.0/0: they are answered by 10.0.0.1; 10.9.0.1 is in none of the host's networks"}, ""},
		{"some by another", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods = []Method{NAT}
			s.routes = append(s.routes, route{to: netip.MustParsePrefix("10.9.0.0/16"), gateways: via("10.0.0.254")})
		}, []string{"clients 10.9.0.0/16: they are answered by 10.0.0.254"}, ""},
		{"clients near", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods, r.Clients = []Method{NAT}, prefixes("10.0.0.0/24")
		}, []string{"clients 10.0.0.0/24: they are answered directly on eth0"}, ""},
		{"nat's port beside dr's", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods, r.Ports = []Method{NAT, DR}, []Port{{Number: 8080, Own: true}, {Number: 80}}
			s.listening["tcp"] = append(s.listening["tcp"], netip.MustParseAddrPort("10.0.0.2:8080"))
		}, nil, ""},
		{"nat, and nobody listens", func(r *Role, s *snapshot, _ map[string]int) {
			r.Methods, s.listening["tcp"] = []Method{NAT}, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}
		}, []string{"port 80/tcp: nobody listens"}, ""},
	} {
		r, s, knobs := right()
		test.change(&r, s, knobs)
		found := judge(r, s)
		var got, changes []string
		for _, f := range found {
			got = append(got, f.Subject+": "+f.Text)
			for _, c := range f.changes {
				changes = append(changes, strings.ReplaceAll(c.String(), "sysctl net/ipv4/conf/", ""))
				if err := c.validate(); err != nil {
					t.Errorf("%s: what it makes cannot be read again: %v", test.name, err)
				}
			}
			if f.Mend == "" && len(f.changes) > 0 {
				t.Errorf("%s: no command mends %s", test.name, f.Subject)
			}
		}
		if !slices.EqualFunc(got, test.want, strings.HasPrefix) {
			t.Errorf("%s: found %q, want %q", test.name, got, test.want)
		}
		if all := strings.Join(changes, ", "); !strings.Contains(all, test.mends) || (test.mends == "") != (all == "") {
			t.Errorf("%s: mended by %s, want %s", test.name, all, test.mends)
		}
	}
}

func TestDecapCommand(t *testing.T) {
	_, s, _ := right()
	d := running(s.decap)
	if got, want := d.command(decap.DefaultPinDir), "shunt-agent decap start --interface eth0 --vip 192.0.2.1 --from 10.0.0.1 --type ipip"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	d.Ports = []uint16{5555}
	if got := d.command("/sys/fs/bpf/x"); !strings.HasSuffix(got, "--gue-port 5555 --pin-dir /sys/fs/bpf/x") {
		t.Errorf("%s", got)
	}
	// One who lets all in goes on with it, and who lets some in gets no more unasked.
	open := d
	open.From = nil
	if got := open.with(d, s.has); len(got.From) != 0 {
		t.Errorf("from anywhere became %v", got.From)
	}
	if got := d.with(open, s.has); len(got.From) != 1 {
		t.Errorf("from one became %v", got.From)
	}
	if !same(kindDecap, d.value(), strings.Replace(d.value(), `"eth0"`, `"eth0"`+generic, 1)) {
		t.Error("the mode that was chosen makes it another's")
	}
}

func TestRole(t *testing.T) {
	r := FromSettings(agent.Settings{
		Members: []agent.MemberSettings{
			{Method: "dr", Address: "10.0.0.2"},
			{Method: "DR", Address: "10.0.0.2:8080"},
			{Method: "fullnat", Address: "10.0.0.2:8080"},
			{Method: "tunnel", Address: "10.0.0.2"},
			{Method: "local", Address: "10.0.0.2"},
			{Method: "nat", Address: "[fd00::2]:8443"},
		},
		Host: agent.HostSettings{VIPs: prefixes("192.0.2.1/32"), Directors: prefixes("10.0.0.1/32", "10.9.0.0/16"), Route: true},
	})
	want := Role{
		Methods: []Method{DR, Tunnel, NAT}, VIPs: prefixes("192.0.2.1/32"), Directors: prefixes("10.0.0.1/32", "10.9.0.0/16"),
		Route: true, Ports: []Port{{Number: 8080}, {Number: 8080, Own: true}, {Number: 8443, Own: true}},
	}
	if diff := cmp.Diff(want, r, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(r.withDefaults().Clients, r.types()); got != "[0.0.0.0/0] [ipip gue gre]" {
		t.Errorf("%s", got)
	}
	for want, r := range map[string]Role{
		"no virtual address":      {Methods: []Method{GRE}},
		"no director's address":   {Methods: []Method{NAT}, Directors: prefixes("10.0.0.0/24")},
		"the route back is nat's": {Methods: []Method{DR}, VIPs: prefixes("192.0.2.1/32"), Route: true},
		"9 gue ports: at most 8":  {GUEPorts: make([]uint16, 9)},
		"gue port 0 is reserved":  {GUEPorts: []uint16{0}},
		"virtual address 0.0.0.0/0: 0.0.0.0/8 of it is no service's":   {Methods: []Method{DR}, VIPs: prefixes("0.0.0.0/0")},
		"virtual address 224.0.0.5: 224.0.0.0/4 of it is no service's": {Methods: []Method{DR}, VIPs: prefixes("224.0.0.5/32")},
		"virtual address ::1: ::/127 of it is no service's":            {Methods: []Method{DR}, VIPs: prefixes("::1/128")},
	} {
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, bad := range []string{"", "0", "80/sctp", "65536", "http", "/tcp"} {
		if p, err := ParsePort(bad); err == nil {
			t.Errorf("%q is read as %v", bad, p)
		}
	}
	if p, err := ParsePort("53/udp"); err != nil || p.String() != "53/udp" {
		t.Errorf("%v, %v", p, err)
	}
}
