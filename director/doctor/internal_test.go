package doctor

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

func attrs(name string, index, parent int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.Index, a.ParentIndex = name, index, parent
	return a
}

func key(url string) director.ServiceKey {
	k, err := director.ParseServiceKey(url)
	if err != nil {
		panic(err)
	}
	return k
}

// TestVLANs is about interfaces that the kernel of the tests may not be able to
// make (CONFIG_VLAN_8021Q): the checks are given their description.
func TestVLANs(t *testing.T) {
	web := director.Service{Key: key("tcp://192.0.2.10:80")}
	server := realserver.Server{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: realserver.DR}
	i := &inspection{
		Host: Host{Interfaces: []string{"eth0", "vlan5"}, Services: []director.Service{web}},
		byName: map[string]netlink.Link{
			"eth0":  &netlink.Dummy{LinkAttrs: attrs("eth0", 2, 0)},
			"vlan5": &netlink.Vlan{LinkAttrs: attrs("vlan5", 3, 2)},
			"vlan6": &netlink.Vlan{LinkAttrs: attrs("vlan6", 4, 2)},
		},
		waysRead: true,
		ways:     []way{{service: web, server: server, route: netlink.Route{LinkIndex: 4}}},
	}
	r := &report{}
	i.checkUpper(r, i.byName["eth0"])
	if len(r.findings) != 1 || r.findings[0].Severity != Error || !strings.Contains(r.findings[0].What, "eth0 and the VLAN vlan5 on it are both named") {
		t.Errorf("both named: %+v", r.findings)
	}
	i.Interfaces = []string{"eth0"}
	r = &report{}
	i.checkUpper(r, i.byName["eth0"])
	if len(r.findings) > 0 {
		t.Errorf("eth0 alone named: %+v", r.findings)
	}
	checkRoutes(i, r)
	if len(r.findings) != 1 || !strings.Contains(r.findings[0].What, "reached by vlan6") || !strings.Contains(r.findings[0].Why, "without a VLAN tag") {
		t.Errorf("server behind a VLAN: %+v", r.findings)
	}
}

func TestRangePrefixes(t *testing.T) {
	tests := []struct {
		first, last string
		want        string
	}{
		{"10.0.0.1", "10.0.0.1", "10.0.0.1/32"},
		{"10.0.0.0", "10.0.0.255", "10.0.0.0/24"},
		{"10.0.0.1", "10.0.0.6", "10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32"},
		{"0.0.0.0", "255.255.255.255", "0.0.0.0/0"},
		{"2001:db8::fffe", "2001:db8::1:0", "2001:db8::fffe/127 2001:db8::1:0/128"},
		{"10.0.0.2", "10.0.0.1", ""},
		{"10.0.0.2", "2001:db8::", ""},
	}
	for _, tt := range tests {
		var got []string
		for _, p := range rangePrefixes(netip.MustParseAddr(tt.first), netip.MustParseAddr(tt.last)) {
			got = append(got, p.String())
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s-%s (-want +got):\n%s", tt.first, tt.last, diff)
		}
	}
}

func TestParseList(t *testing.T) {
	got, err := parseList("0-2,5,7-8\n")
	if diff := cmp.Diff([]int{0, 1, 2, 5, 7, 8}, got); err != nil || diff != "" {
		t.Errorf("error %v, list (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"", "a", "1-", "3-1", "-1", "0-99999999"} {
		if list, err := parseList(bad); err == nil {
			t.Errorf("%q: %v, no error", bad, list)
		}
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"eth0": "eth0", "/sys/fs/bpf": "/sys/fs/bpf", "tcp://192.0.2.1:80": "tcp://192.0.2.1:80",
		"$(reboot)": "'$(reboot)'", "a'b": `'a'\''b'`, "": "''", "[2001:db8::1]:80": "'[2001:db8::1]:80'",
	} {
		if got := quote(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// judged is what the firewall's checks need of a host.
func judged() (*inspection, []subject) {
	s := director.Service{
		Name: "web", Key: key("tcp://192.0.2.10:80"),
		Servers: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.1:8080"), Method: realserver.NAT}},
	}
	i := &inspection{Host: Host{Interfaces: []string{"eth0"}, Services: []director.Service{s}}}
	return i, i.bypassing()
}

// FuzzNft sees that no output of nft, nor of something that is not nft, ends the
// daemon.
func FuzzNft(f *testing.F) {
	f.Add(`{"nftables":[{"chain":{"family":"inet","table":"f","name":"input","hook":"input","policy":"drop"}},{"set":{"family":"inet","table":"f","name":"s","elem":["192.0.2.10",{"prefix":{"addr":"10.0.0.0","len":8}},{"range":["10.0.0.1","10.0.0.9"]}]}},{"rule":{"family":"inet","table":"f","chain":"input","handle":2,"expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":"@s"}},{"drop":null}]}}]}`,
		"table inet f {\n\tchain input {\n\t\tip daddr @s drop # handle 2\n")
	f.Add(`{"nftables":[{"chain":{"family":"ip","table":"f","name":"c","hook":"input"}},{"rule":{"family":"ip","table":"f","chain":"c","expr":[{"vmap":{"key":{"payload":{"protocol":"tcp","field":"dport"}},"data":{"set":[[80,{"jump":{"target":"c"}}]]}}},{"match":{"op":"in","left":{"concat":[{"meta":{"key":"nfproto"}},7]},"right":{"set":[{"concat":[1,2]}]}}}]}}]}`, "")
	f.Fuzz(func(t *testing.T, listing, texts string) {
		tables, err := parseNft([]byte(listing), nftTexts(texts))
		if err != nil {
			return
		}
		i, services := judged()
		i.strict = true
		r := &report{}
		for _, table := range tables {
			i.judge(r, table, services)
		}
		limitRules(r)
		if len(r.findings) > maxRules+1 {
			t.Errorf("%d findings", len(r.findings))
		}
	})
}

// FuzzIptables does the same for iptables-save.
func FuzzIptables(f *testing.F) {
	f.Add("*filter\n:INPUT DROP [0:0]\n:web - [0:0]\n-A INPUT -s 10.0.0.0/8 -p tcp -m multiport --dports 80,90:99 ! -i lo+ -j web\n-A web -m comment --comment \"a \\\"b\" -g INPUT\nCOMMIT\n")
	f.Add("*\n:\n-A\n: x\n-A INPUT -j\n-A  !\n")
	f.Fuzz(func(t *testing.T, listing string) {
		i, services := judged()
		i.strict = true
		r := &report{}
		for _, table := range parseIptables(listing, "iptables", ipv4) {
			i.judge(r, table, services)
		}
		limitRules(r)
		if len(r.findings) > maxRules+1 {
			t.Errorf("%d findings", len(r.findings))
		}
	})
}

// TestIptablesMatches reads what kernels may have no module for, as iptables-save
// prints it: strict names it for a move, usual for the doctor.
func TestIptablesMatches(t *testing.T) {
	for _, tt := range []struct {
		rule          string
		usual, strict bool
	}{
		{"-m ipvs --vaddr 192.0.2.10/32 --vport 80 -j MASQUERADE", true, true},
		{"-m ipvs --vaddr 192.0.2.10 --vport 80 --vproto 6 -j SNAT --to-source 10.0.0.9", true, true},
		{"-m ipvs --vproto 6 --vport 80 --vmethod masq -j MASQUERADE", true, true},
		{"-d 10.0.0.1/32 -m ipvs --vaddr 192.0.2.10 -j MASQUERADE", true, true},
		{"-m ipvs --ipvs -j MASQUERADE", false, true},
		{"-m ipvs ! --vaddr 192.0.2.77 -j MASQUERADE", false, true},
		{"-m ipvs --vaddr 192.0.2.11 --vport 80 -j MASQUERADE", false, false},
		{"-m ipvs --vaddr 192.0.2.10 --vport 81 -j MASQUERADE", false, false},
		{"-m ipvs --vaddr 10.0.0.1 -j MASQUERADE", false, false}, // the server is no virtual address
		{"-m ipvs --vproto 17 --vaddr 192.0.2.10 -j MASQUERADE", false, false},
		{"-m conntrack --ctorigdst 192.0.2.10 --ctorigdstport 80 -j LOG", true, true},
		{"-m conntrack --ctorigdst 192.0.2.11 -j MARK --set-xmark 0x1/0xffffffff", false, false},
		{"-m set --match-set vips dst -j MARK --set-xmark 0x1/0xffffffff", false, true},
		{"-m set --match-set vips dst -j LOG", false, true},
		{"-m set --match-set vips dst -j DROP", true, true},
		{"-m set --match-set vips dst -j ACCEPT", false, false},
		{"-m set --match-set vips dst -j other", false, false}, // its rules say what becomes of them
		{"! -d 192.0.2.77/32 -j RETURN", false, true},
		{"! -d 192.0.2.77/32 -j ACCEPT", false, false},
		{"-d 192.0.2.10/255.255.0.255 -j LOG", false, true},
		{"! -f -j DROP", true, true},
		{"-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j LOG --log-prefix \"-j DROP\"", false, false},
		{"-m comment --comment \"-j\" -p tcp -m tcp --dport 80 -j DROP", true, true},
		{"-p 132 -j DROP", false, false},
		{"-j NFQUEUE --queue-num 1", false, true},
		{"-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", false, true},
		{"-j CT --notrack", false, false},
		{"-d 203.0.113.1/32 -j DNAT --to-destination 192.0.2.10", false, true},
		{"-d 203.0.113.1/32 -j DNAT --to-destination 192.0.2.9-192.0.2.20:79-80", false, true},
		{"-d 203.0.113.1/32 -j DNAT --to-destination 192.0.2.10:81", false, false},
		{"-d 203.0.113.0/24 -j NETMAP --to 192.0.2.0/24", false, true},
		{"-d 203.0.113.0/24 -j NETMAP --to 192.0.3.0/24", false, false},
	} {
		listing := "*nat\n:CHAIN ACCEPT [0:0]\n:other - [0:0]\n-A CHAIN " + tt.rule + "\nCOMMIT\n"
		for _, strict := range []bool{false, true} {
			i, services := judged()
			i.strict = strict
			r := &report{}
			for _, table := range parseIptables(listing, "iptables", ipv4) {
				i.judge(r, table, services)
			}
			if want := map[bool]bool{false: tt.usual, true: tt.strict}[strict]; len(r.findings) > 0 != want || len(r.findings) > 1 {
				t.Errorf("%s: strict %v: named: want %v, have %+v", tt.rule, strict, want, r.findings)
			}
		}
	}
}

// TestNftMatches does the same for what nft prints of sets, of iptables' own and of
// maps, which rulesets of tests cannot have everywhere.
func TestNftMatches(t *testing.T) {
	for _, tt := range []struct {
		expr          string
		usual, strict bool
	}{
		{`{"xt":{"type":"match","name":"ipvs"}},{"xt":{"type":"target","name":"MASQUERADE"}}`, false, true},
		{`{"xt":{"type":"match","name":"set"}},{"xt":{"type":"target","name":"LOG"}}`, false, true},
		{`{"xt":{"type":"match","name":"set"}},{"accept":null}`, false, false},
		{`{"xt":{"type":"target","name":"REJECT"}}`, true, true},
		{`{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":"203.0.113.1"}},{"xt":{"type":"target","name":"DNAT"}}`, false, true},
		{`{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":"@missing"}},{"counter":null}`, false, true},
		{`{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":"@here"}},{"counter":null}`, true, true},
		{`{"match":{"op":"==","left":{"concat":[{"payload":{"protocol":"ip","field":"daddr"}},{"payload":{"protocol":"tcp","field":"dport"}}]},"right":{"set":[7]}}},{"mangle":null}`, false, true},
		{`{"vmap":{"key":{"payload":{"protocol":"ip","field":"daddr"}},"data":{"set":[["192.0.2.10",{"drop":null}],["192.0.2.11",{"accept":null}]]}}}`, true, true},
		{`{"match":{"op":"==","left":{"meta":{"key":"protocol"}},"right":"ip"}},{"drop":null}`, true, true},
		{`{"match":{"op":"==","left":{"meta":{"key":"protocol"}},"right":"ip6"}},{"drop":null}`, false, false},
		{`{"match":{"op":"!=","left":{"payload":{"protocol":"udp","field":"dport"}},"right":53}},{"drop":null}`, false, false},
		{`{"queue":{"num":1}}`, false, true},
		{`{"something new":{}}`, false, true},
		{`{"counter":null},{"log":null}`, false, false},
		{`{"dnat":{"addr":{"map":"@missing"}}}`, false, true},
	} {
		listing := `{"nftables":[{"chain":{"family":"ip","table":"f","name":"c","hook":"input"}},{"set":{"family":"ip","table":"f","name":"here","elem":["192.0.2.10"]}},` +
			`{"rule":{"family":"ip","table":"f","chain":"c","handle":2,"expr":[` + tt.expr + `]}}]}`
		tables, err := parseNft([]byte(listing), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, strict := range []bool{false, true} {
			i, services := judged()
			i.strict = strict
			r := &report{}
			i.judge(r, tables["ip f"], services)
			if want := map[bool]bool{false: tt.usual, true: tt.strict}[strict]; len(r.findings) > 0 != want || len(r.findings) > 1 {
				t.Errorf("%s: strict %v: named: want %v, have %+v", tt.expr, strict, want, r.findings)
			}
		}
	}
}

// TestNotAttached is about interfaces that another one has to stand for, which the
// kernel of the tests may not be able to make.
func TestNotAttached(t *testing.T) {
	port := &netlink.Dummy{LinkAttrs: attrs("eth1", 2, 0)}
	port.MasterIndex = 3
	i := &inspection{
		Host: Host{Interfaces: []string{"eth1", "eth0.5"}},
		byName: map[string]netlink.Link{
			"eth0": &netlink.Dummy{LinkAttrs: attrs("eth0", 1, 0)}, "eth0.5": &netlink.Vlan{LinkAttrs: attrs("eth0.5", 4, 1)},
			"eth1": port, "bond0": &netlink.Bond{LinkAttrs: attrs("bond0", 3, 0)},
		},
	}
	r := &report{}
	i.reportNoNative(r, i.byName["eth0.5"])
	i.checkMaster(r, port)
	var got []string
	for _, f := range r.findings {
		got = append(got, string(f.Severity)+": "+f.What+": "+f.Fix)
	}
	want := []string{
		"error: eth0.5 is a VLAN on eth0: VLAN interfaces have no native XDP: name eth0 in the place of eth0.5 in director.interfaces, then: ethtool -K eth0 rxvlan off; systemctl restart shuntd",
		"error: eth1 is a port of the bond bond0: name bond0 in director.interfaces in the place of its ports, then: systemctl restart shuntd",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	i.Interfaces = append(i.Interfaces, "bond0")
	r = &report{}
	if i.checkMaster(r, port); len(r.findings) != 1 || !strings.Contains(r.findings[0].What, "are both named") {
		t.Errorf("both named: %+v", r.findings)
	}
}

func TestOverhead(t *testing.T) {
	const gue = realserver.TunnelGUE
	for method, want := range map[realserver.Method]int{realserver.Tunnel: 32, realserver.DR: 0} {
		s := realserver.Server{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: method, Tunnel: realserver.TunnelOptions{Type: gue, Port: 5555}}
		if got := (&inspection{}).overhead(s); got != want {
			t.Errorf("%s: %d, want %d", method, got, want)
		}
	}
	remote := realserver.Server{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: realserver.Tunnel, Tunnel: realserver.TunnelOptions{Type: gue, Port: 5555, Checksum: realserver.TunnelRemoteChecksum}}
	if got := (&inspection{Host: Host{Dataplane: director.PlaneIPVS}}).overhead(remote); got != 40 {
		t.Errorf("%s on IPVS: %d, want 40", remote.Tunnel, got)
	}
}
