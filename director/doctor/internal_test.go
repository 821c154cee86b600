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
