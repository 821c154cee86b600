package ipvsadm

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/realserver"
)

// sample is a view with something for every column.
func sample() view {
	key := func(url string) director.ServiceKey {
		k, err := director.ParseServiceKey(url)
		if err != nil {
			panic(err)
		}
		return k
	}
	tunnel := func(address string, o realserver.TunnelOptions) server {
		return server{Server: realserver.Server{Address: netip.MustParseAddrPort(address), Method: realserver.Tunnel, Tunnel: o, Weight: 1}}
	}
	big := director.Counters{Connections: 99999999, InPackets: 100000000, OutPackets: 1000000000, InBytes: 100000000000, OutBytes: 100000000000000}
	fast := director.Rates{Connections: 1, InPackets: 99999999, OutPackets: 100000000, InBytes: 99999999, OutBytes: 1000000000}
	v := view{info: director.DataplaneInfo{Version: "1.2.1", TableSize: 4096}, services: map[director.ServiceKey]service{}}
	for _, s := range []service{
		{
			Service:  director.Service{Key: key("tcp://223.255.255.255:65535"), Scheduler: "wlc"},
			counters: big, rates: fast,
			servers: []server{
				{Server: realserver.Server{Address: netip.MustParseAddrPort("223.255.255.254:65535"), Method: realserver.NAT, Weight: 65535, Upper: 2147483647, Lower: 4294967295}, active: 4294967295, inactive: 12345678901, templates: 7, counters: big, rates: fast},
				{Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.2:80"), Method: realserver.DR, Weight: 3, Draining: true}},
				{Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.3:80"), Method: realserver.Local, Weight: 3}},
				{Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.4:80"), Method: realserver.Method(4)}},
				{Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.5:80"), Method: realserver.FullNAT, Weight: 2}},
			},
		},
		{Service: director.Service{Key: key("udp://[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:53"), Scheduler: "rr", OnePacket: true, Persistence: director.Persistence{Timeout: time.Minute, Prefix: 64, Engine: "sip"}}},
		{
			Service: director.Service{Key: key("sctp://192.0.2.1:9"), Scheduler: "sh", Flags: director.SchedulerFlags{Port: true, Fallback: true, Third: true}, Persistence: director.Persistence{Timeout: 300 * time.Second, Prefix: 24}},
			servers: []server{{Server: realserver.Server{Address: netip.MustParseAddrPort("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535"), Method: realserver.NAT, Weight: 1}}},
		},
		{Service: director.Service{Key: key("tcp://192.0.2.1:0"), Scheduler: "sh", Flags: director.SchedulerFlags{Third: true}, Persistence: director.Persistence{Timeout: 300 * time.Second, Prefix: 0}}},
		{
			Service: director.Service{Key: key("fwmark://4294967295"), Scheduler: "mh", Flags: director.SchedulerFlags{Port: true}, Persistence: director.Persistence{Timeout: time.Second, Prefix: 32}},
			servers: []server{
				tunnel("10.0.0.1:0", realserver.TunnelOptions{}),
				tunnel("10.0.0.2:0", realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 65535, Checksum: realserver.TunnelRemoteChecksum}),
				tunnel("10.0.0.3:0", realserver.TunnelOptions{Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn}),
			},
		},
		{Service: director.Service{Key: key("fwmark6://7"), Scheduler: "wrr", Flags: director.SchedulerFlags{Port: true, Fallback: true, Third: true}}},
		{Service: director.Service{Key: key("tcp://192.0.2.0/24:8000-8999"), Scheduler: "lc"}},
		{Service: director.Service{Key: key("tcp://[2001:db8::/64]:80"), Scheduler: "lc"}},
	} {
		v.services[s.Key] = s
		v.order = append(v.order, s.Key)
	}
	return v
}

// Widths, cuts and words are print_title's and print_service_entry's of ipvsadm.c.
func TestList(t *testing.T) {
	const (
		short = "Prot LocalAddress:Port Scheduler Flags\n"
		first = "IP Virtual Server version 1.2.1 (size=4096)\n"
	)
	for _, test := range []struct {
		name   string
		given  language.Option
		begins bool // so: the rest is as in the other lists
		want   string
	}{
		{"default", 0, false, first + short + "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n" + `
FWM  -1 mh (mh-port) persistent 1
  -> 10.0.0.1:0                   Tunnel  1      0          0         $
  -> 10.0.0.2:0                   Tunnel  1      0          0         $
  -> 10.0.0.3:0                   Tunnel  1      0          0         $
TCP  192.0.2.0/24:8000-8999 lc
TCP  192.0.2.1:0 sh () persistent 300 mask 0.0.0.0
TCP  223.255.255.255:65535 wlc
  -> 223.255.255.254:65535        Masq    65535  4294967295 12345678901
  -> 10.0.0.2:80                  Route   0      0          0         $
  -> 10.0.0.3:80                  Local   3      0          0         $
  -> 10.0.0.4:80                  (null)  0      0          0         $
  -> 10.0.0.5:80                  FullNAT 2      0          0         $
SCTP 192.0.2.1:9 sh (sh-fallback,sh-port) persistent 300 mask 255.255.255.0
  -> [2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535 Masq    1      0          0         $
TCP  [2001:db8::/64]:80 lc
UDP  [2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:53 rr persistent 60 mask 64 pe sip ops
FWM  7 IPv6 wrr (flag-1,flag-2,flag-3)
`},
		{"stats", language.OptStats | language.OptRate, false, first + `Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
` + `
FWM  -1                                  0        0        0        0        0
  -> 10.0.0.1:0                          0        0        0        0        0
  -> 10.0.0.2:0                          0        0        0        0        0
  -> 10.0.0.3:0                          0        0        0        0        0
TCP  192.0.2.0/24:8000-8999              0        0        0        0        0
TCP  192.0.2.1:0                         0        0        0        0        0
TCP  223.255.255.255:65535        99999999  100000K    1000M     100G     100T
  -> 223.255.255.254:65535        99999999  100000K    1000M     100G     100T
  -> 10.0.0.2:80                         0        0        0        0        0
  -> 10.0.0.3:80                         0        0        0        0        0
  -> 10.0.0.4:80                         0        0        0        0        0
  -> 10.0.0.5:80                         0        0        0        0        0
SCTP 192.0.2.1:9                         0        0        0        0        0
  -> [2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535        0        0        0        0        0
TCP  [2001:db8::/64]:80                  0        0        0        0        0
UDP  [2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:53        0        0        0        0        0
FWM  7 IPv6                              0        0        0        0        0
`},
		{"thresholds", language.OptThresholds | language.OptPersistentConn, true, first + `Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn $
  -> RemoteAddress:Port
` + `
FWM  -1 mh (mh-port) persistent 1
  -> 10.0.0.1:0                   0          0          0          0         $
  -> 10.0.0.2:0                   0          0          0          0         $
  -> 10.0.0.3:0                   0          0          0          0         $
TCP  192.0.2.0/24:8000-8999 lc
TCP  192.0.2.1:0 sh () persistent 300 mask 0.0.0.0
TCP  223.255.255.255:65535 wlc
  -> 223.255.255.254:65535        2147483647 4294967295 4294967295 12345678901
  -> 10.0.0.2:80                  0          0          0          0         $
  -> 10.0.0.3:80                  0          0          0          0         $
  -> 10.0.0.4:80                  0          0          0          0         $
  -> 10.0.0.5:80                  0          0          0          0         $
`},
		{"persistent-conn", language.OptPersistentConn | language.OptTunInfo, true, first + `Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn $
  -> RemoteAddress:Port
` + `
FWM  -1 mh (mh-port) persistent 1
  -> 10.0.0.1:0                   1         0           0          0         $
  -> 10.0.0.2:0                   1         0           0          0         $
  -> 10.0.0.3:0                   1         0           0          0         $
TCP  192.0.2.0/24:8000-8999 lc
TCP  192.0.2.1:0 sh () persistent 300 mask 0.0.0.0
TCP  223.255.255.255:65535 wlc
  -> 223.255.255.254:65535        65535     7           4294967295 12345678901
  -> 10.0.0.2:80                  0         0           0          0         $
  -> 10.0.0.3:80                  3         0           0          0         $
  -> 10.0.0.4:80                  0         0           0          0         $
  -> 10.0.0.5:80                  2         0           0          0         $
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			list{out: &out, given: test.given | language.OptNumeric}.all(sample(), director.ServiceKey{})
			// The head is followed by an empty line here, and a $ says where
			// blanks end a line.
			want := strings.ReplaceAll(strings.Replace(test.want, "\n\n", "\n", 1), "$\n", "\n")
			got := out.String()
			if test.begins {
				got = got[:min(len(want), len(got))]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The rates of a server are the only numbers that are never scaled.
func TestListRate(t *testing.T) {
	for _, test := range []struct {
		given language.Option
		want  string
	}{
		{0, `TCP  223.255.255.255:65535               1 99999999  100000K 99999999    1000M
  -> 223.255.255.254:65535               1 99999999 100000000 99999999    1000M
`},
		{language.OptExact, `TCP  223.255.255.255:65535               1 99999999 100000000 99999999 1000000000
  -> 223.255.255.254:65535               1 99999999 100000000 99999999 1000000000
`},
	} {
		var out bytes.Buffer
		s := sample().services[director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("223.255.255.255:65535")}]
		s.servers = s.servers[:1]
		list{out: &out, given: test.given | language.OptRate}.service(s)
		if diff := cmp.Diff(test.want, out.String()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestListTunnels(t *testing.T) {
	var out bytes.Buffer
	l := list{out: &out, given: language.OptTunInfo | language.OptNoSort}
	fmt.Fprint(&out, l.title())
	l.service(sample().services[director.MarkKey(4294967295, netip.IPv4Unspecified())])
	l.server(server{Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: realserver.DR, Weight: 1}}, conntrack.TCP)
	want := `Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn
FWM  -1 mh (mh-port) persistent 1
  -> 10.0.0.1:0                   Tunnel  ipip          1      0          0         $
  -> 10.0.0.2:0                   Tunnel  gue:65535:r+c 1      0          0         $
  -> 10.0.0.3:0                   Tunnel  gre:+c        1      0          0         $
  -> 10.0.0.1:80                  Route   n/a           1      0          0         $
`
	if diff := cmp.Diff(strings.ReplaceAll(want, "$\n", "\n"), out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Without --nosort addresses are compared by the sign of a 32-bit difference, and
// with it the server added last comes first.
func TestListOrder(t *testing.T) {
	s := service{Service: director.Service{Key: director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")}, Scheduler: "rr"}}
	for _, address := range []string{"10.0.0.2:80", "192.0.2.9:80", "10.0.0.2:8", "10.0.0.1:80"} {
		s.servers = append(s.servers, server{Server: realserver.Server{Address: netip.MustParseAddrPort(address)}})
	}
	for _, test := range []struct {
		given language.Option
		want  []string
	}{
		{0, []string{"192.0.2.9:80", "10.0.0.1:80", "10.0.0.2:8", "10.0.0.2:80"}},
		{language.OptNoSort, []string{"10.0.0.2:80", "192.0.2.9:80", "10.0.0.2:8", "10.0.0.1:80"}},
	} {
		var out bytes.Buffer
		list{out: &out, given: test.given}.service(s)
		var got []string
		for _, line := range strings.Split(out.String(), "\n")[1:5] {
			got = append(got, strings.Fields(line)[1])
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%d (-want +got):\n%s", test.given, diff)
		}
	}
}

// named knows one host and one port.
type named struct{ language.Names }

func (named) Host(a netip.Addr) (string, bool) {
	return "a-very-long-name-of-a-host.example.org", a == netip.MustParseAddr("10.0.0.1")
}

func (named) Service(port uint16, p conntrack.Protocol) (string, bool) {
	return "http", port == 80 && p == conntrack.TCP
}

// Names are cut where the columns are; a firewall mark's servers have no protocol,
// so that their ports have no names.
func TestListNames(t *testing.T) {
	one := []server{{Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: realserver.DR, Weight: 1}}}
	var out bytes.Buffer
	l := list{out: &out, names: language.Writer{Names: named{}}}
	l.service(service{Service: director.Service{Key: director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("10.0.0.1:80")}, Scheduler: "rr"}, servers: one})
	l.service(service{Service: director.Service{Key: director.MarkKey(7, netip.IPv4Unspecified()), Scheduler: "rr"}, servers: one})
	l.server(server{Server: realserver.Server{Address: netip.MustParseAddrPort("10.0.0.2:80"), Method: realserver.DR}}, 0)
	want := `TCP  a-very-long-name-of-a-host.e rr
  -> a-very-long-name-of-a-host.e Route   1      0          0         $
FWM  7 rr
  -> a-very-long-name-of-a-host.e Route   1      0          0         $
  -> 10.0.0.2:80                  Route   0      0          0         $
`
	if diff := cmp.Diff(strings.ReplaceAll(want, "$\n", "\n"), out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDaemonLine(t *testing.T) {
	for want, d := range map[string]api.FoundSync{
		"master sync daemon (mcast=eth0, syncid=0)\n": {Role: "master", Interface: "eth0"},
		"backup sync daemon (mcast=eth1, syncid=255, maxlen=1472, group=ff02::5, port=8848, ttl=1)\n": {
			Role: "backup", Interface: "eth1", ID: 255, MaxLength: 1472, Group: "ff02::5", Port: 8848, TTL: 1,
		},
	} {
		if got := daemonLine(d); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A mask that is no prefix, of a service that is somebody else's.
func TestMaskWithHoles(t *testing.T) {
	key, err := director.ParseServiceKey("udp://192.0.2.9:53")
	if err != nil {
		t.Fatal(err)
	}
	s := director.Service{Key: key, Scheduler: "rr", Persistence: director.Persistence{Timeout: time.Minute, Prefix: 16, Mask: 0xffff00ff}}
	if got, want := settings(s), "rr persistent 60 mask 255.255.0.255"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	saved, err := language.FromDirector(s)
	if err != nil || saved.Netmask != 0xffff00ff {
		t.Errorf("saved with netmask %#x, %v", saved.Netmask, err)
	}
}
