package ipvs

import (
	"context"
	"iter"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// canned is a driver that has services and the text of /proc/net/ip_vs_conn; for all
// else it is not to be asked.
type canned struct {
	kernel.Driver
	services []kernel.ServiceEntry
	text     string
}

func (c *canned) Services(context.Context) ([]kernel.ServiceEntry, error) { return c.services, nil }

func (c *canned) Connections(context.Context) iter.Seq2[kernel.Connection, error] {
	return kernel.ReadConnections(strings.NewReader(c.text))
}

func (c *canned) Close() error { return nil }

// entry is a service with servers by NAT.
func entry(url string, prefix uint8, servers ...string) kernel.ServiceEntry {
	k := key(url)
	e := kernel.ServiceEntry{Service: kernel.Service{
		ServiceID: kernel.ServiceID{Protocol: kernel.Protocol(k.Protocol), Mark: k.Mark, Address: k.Address},
		Scheduler: "rr", Prefix: prefix,
	}}
	for _, s := range servers {
		e.Servers = append(e.Servers, kernel.ServerEntry{Server: kernel.Server{Address: netip.MustParseAddrPort(s), Weight: 1}})
	}
	return e
}

const titles = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"

// Each connection is found with its service and server, whatever the kernel does not
// tell of them.
func TestConnectionsOf(t *testing.T) {
	tunnel := entry("tcp://192.0.2.1:80", 32, "10.0.0.1:80", "10.0.0.2:80")
	tunnel.Servers[1].Method = kernel.Tunnelling
	driver := &canned{services: []kernel.ServiceEntry{
		tunnel,
		entry("tcp://192.0.2.2:0", 24, "10.0.0.1:0", "10.0.0.3:8080"),
		entry("udp://192.0.2.1:5060", 32, "10.0.0.4:5060"),
		entry("sctp://192.0.2.1:2905", 32, "10.0.0.4:2905"),
		entry("fwmark://7", 16, "10.0.0.7:0"),
		entry("fwmark://8", 32, "10.0.0.7:0", "10.0.0.8:99"),
		entry("fwmark6://7", 64, "[2001:db8:1::7]:0"),
		entry("tcp://[2001:db8::1]:80", 64, "[2001:db8:1::1]:80"),
	}}
	d, err := open(driver)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	addr := netip.MustParseAddrPort
	const (
		client = "CB007107 C000 " // 203.0.113.7:49152
		vip    = "C0000201 0050 "
	)
	tests := []struct {
		name, line, service string
		want                conntrack.Connection
	}{
		{"nat", "TCP " + client + vip + "0A000001 0050 ESTABLISHED     899", "tcp://192.0.2.1:80", conntrack.Connection{
			Protocol: conntrack.TCP, Client: addr("203.0.113.7:49152"), Virtual: addr("192.0.2.1:80"), Server: addr("10.0.0.1:80"),
			Method: "nat", State: conntrack.Established, Proven: true, Expires: 899 * time.Second,
		}},
		{"tunnel", "TCP " + client + vip + "0A000002 0050 SYN_RECV        59", "tcp://192.0.2.1:80", conntrack.Connection{
			Protocol: conntrack.TCP, Client: addr("203.0.113.7:49152"), Virtual: addr("192.0.2.1:80"), Server: addr("10.0.0.2:80"),
			Method: "tunnel", State: conntrack.SynRecv, Expires: 59 * time.Second,
		}},
		{"server_removed", "TCP " + client + vip + "0A000009 0050 FIN_WAIT        9", "tcp://192.0.2.1:80", conntrack.Connection{
			Protocol: conntrack.TCP, Client: addr("203.0.113.7:49152"), Virtual: addr("192.0.2.1:80"), Server: addr("10.0.0.9:80"),
			State: conntrack.FinWait, Proven: true, Expires: 9 * time.Second,
		}},
		{"service_removed", "TCP " + client + "C0000263 0050 0A000009 0050 CLOSE        9", "", conntrack.Connection{
			Protocol: conntrack.TCP, Client: addr("203.0.113.7:49152"), Virtual: addr("192.0.2.99:80"), Server: addr("10.0.0.9:80"),
			State: conntrack.Close, Proven: true, Expires: 9 * time.Second,
		}},
		{"template_of_a_service_removed", "IP  CB007107 0000 00000063 0000 0A000009 0000 NONE 60", "", conntrack.Connection{
			Client: addr("203.0.113.7:0"), Virtual: addr("0.0.0.0:0"), Mark: 99, Server: addr("10.0.0.9:0"),
			State: conntrack.None, Template: true, Prefix: 32, Expires: time.Minute,
		}},
		{"all_ports", "TCP " + client + "C0000202 0016 0A000001 0016 ESTABLISHED 1", "tcp://192.0.2.2:0", conntrack.Connection{
			Protocol: conntrack.TCP, Client: addr("203.0.113.7:49152"), Virtual: addr("192.0.2.2:22"), Server: addr("10.0.0.1:0"),
			Method: "nat", State: conntrack.Established, Proven: true, Expires: time.Second,
		}},
		{"all_ports_template", "TCP CB007100 0000 C0000202 0000 0A000003 0000 ASSURED 300", "tcp://192.0.2.2:0", conntrack.Connection{
			Protocol: conntrack.TCP, Client: addr("203.0.113.0:0"), Virtual: addr("192.0.2.2:0"), Server: addr("10.0.0.3:8080"),
			Method: "nat", State: conntrack.Assured, Proven: true, Template: true, Prefix: 24, Expires: 5 * time.Minute,
		}},
		{"all_ports_not_rewritten", "TCP " + client + "C0000202 0016 0A000003 0016 ESTABLISHED 1", "tcp://192.0.2.2:0", conntrack.Connection{
			Protocol: conntrack.TCP, Client: addr("203.0.113.7:49152"), Virtual: addr("192.0.2.2:22"), Server: addr("10.0.0.3:22"),
			Method: "nat", State: conntrack.Established, Proven: true, Expires: time.Second,
		}},
		{"mark_not_rewritten", "TCP " + client + "C6336401 0016 0A000008 0016 ESTABLISHED 1", "fwmark://8", conntrack.Connection{
			Protocol: conntrack.TCP, Client: addr("203.0.113.7:49152"), Virtual: addr("198.51.100.1:22"), Server: addr("10.0.0.8:22"),
			Method: "nat", State: conntrack.Established, Proven: true, Expires: time.Second,
		}},
		{"engine", "UDP CB007107 0000 C0000201 13C4 0A000004 13C4 NONE 90 sip call-1", "udp://192.0.2.1:5060", conntrack.Connection{
			Protocol: conntrack.UDP, Client: addr("203.0.113.7:0"), Virtual: addr("192.0.2.1:5060"), Server: addr("10.0.0.4:5060"),
			Method: "nat", State: conntrack.None, Template: true, Prefix: 32, Engine: "sip", EngineData: "call-1", Expires: 90 * time.Second,
		}},
		{"sctp", "SCTP " + client + "C0000201 0B59 0A000004 0B59 ESTABLISHED 900", "sctp://192.0.2.1:2905", conntrack.Connection{
			Protocol: conntrack.SCTP, Client: addr("203.0.113.7:49152"), Virtual: addr("192.0.2.1:2905"), Server: addr("10.0.0.4:2905"),
			Method: "nat", State: conntrack.SCTPEstablished, Proven: true, Expires: 15 * time.Minute,
		}},
		{"mark", "UDP " + client + "C6336401 0035 0A000008 0063 UDP 300", "fwmark://8", conntrack.Connection{
			Protocol: conntrack.UDP, Client: addr("203.0.113.7:49152"), Virtual: addr("198.51.100.1:53"), Server: addr("10.0.0.8:99"),
			Method: "nat", State: conntrack.UDPNormal, Expires: 5 * time.Minute,
		}},
		{"first_of_two_marks", "UDP " + client + "C6336401 0035 0A000007 0035 UDP 300", "fwmark://7", conntrack.Connection{
			Protocol: conntrack.UDP, Client: addr("203.0.113.7:49152"), Virtual: addr("198.51.100.1:53"), Server: addr("10.0.0.7:0"),
			Method: "nat", State: conntrack.UDPNormal, Expires: 5 * time.Minute,
		}},
		{"mark_template", "IP  CB000000 0000 00000007 0000 0A000007 0000 NONE 60", "fwmark://7", conntrack.Connection{
			Client: addr("203.0.0.0:0"), Virtual: addr("0.0.0.0:0"), Mark: 7, Server: addr("10.0.0.7:0"),
			Method: "nat", State: conntrack.None, Template: true, Prefix: 16, Expires: time.Minute,
		}},
		{
			"mark_template_ipv6",
			"IP  2001:0db8:0002:0000:0000:0000:0000:0000 0000 0000:0007:0000:0000:0000:0000:0000:0000 0000 2001:0db8:0001:0000:0000:0000:0000:0007 0000 NONE 60",
			"fwmark6://7",
			conntrack.Connection{
				Client: addr("[2001:db8:2::]:0"), Virtual: addr("[::]:0"), Mark: 7, Server: addr("[2001:db8:1::7]:0"),
				Method: "nat", State: conntrack.None, Template: true, Prefix: 64, Expires: time.Minute,
			},
		},
		{
			"ipv6",
			"TCP 2001:0db8:0002:0000:0000:0000:0000:0001 C000 2001:0db8:0000:0000:0000:0000:0000:0001 0050 2001:0db8:0001:0000:0000:0000:0000:0001 0050 TIME_WAIT 60",
			"tcp://[2001:db8::1]:80",
			conntrack.Connection{
				Protocol: conntrack.TCP, Client: addr("[2001:db8:2::1]:49152"), Virtual: addr("[2001:db8::1]:80"), Server: addr("[2001:db8:1::1]:80"),
				Method: "nat", State: conntrack.TimeWait, Proven: true, Expires: time.Minute,
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			driver.text = titles + test.line + "\n"
			filters := []director.ConnectionFilter{{}, {Server: test.want.Server}, {Client: netip.PrefixFrom(test.want.Client.Addr(), test.want.Client.Addr().BitLen())}}
			if test.service != "" {
				filters = append(filters, director.ConnectionFilter{Service: key(test.service)})
			}
			for _, filter := range filters {
				var got []conntrack.Connection
				for c, err := range d.Connections(t.Context(), filter) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, c)
				}
				if diff := cmp.Diff([]conntrack.Connection{test.want}, got, equal...); diff != "" {
					t.Errorf("filter %+v (-want +got):\n%s", filter, diff)
				}
			}
			for c, err := range d.Connections(t.Context(), director.ConnectionFilter{Service: key("tcp://192.0.2.200:1")}) {
				t.Errorf("found of another service: %+v, %v", c, err)
			}
		})
	}
	for text, want := range map[string]string{
		"TCP " + client + vip + "0A000001 0050 DREAMING 899": "connection of 203.0.113.7:49152 to 192.0.2.1:80: unknown connection state \"DREAMING\"",
		"TCP nonsense": "2 columns",
	} {
		driver.text = titles + text + "\n"
		var last error
		for _, err := range d.Connections(t.Context(), director.ConnectionFilter{}) {
			last = err
		}
		if last == nil || !strings.Contains(last.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, last, want)
		}
	}
}

func TestIsProven(t *testing.T) {
	proven := map[conntrack.State]bool{}
	for _, state := range conntrack.AllStates() {
		if isProven(state) {
			proven[state] = true
		}
	}
	want := map[conntrack.State]bool{}
	for _, state := range []conntrack.State{
		conntrack.Established, conntrack.FinWait, conntrack.TimeWait, conntrack.Close, conntrack.CloseWait, conntrack.LastAck,
		conntrack.SCTPEstablished, conntrack.SCTPShutdownSent, conntrack.SCTPShutdownReceived, conntrack.SCTPShutdownAckSent, conntrack.SCTPClosed,
		conntrack.Assured,
	} {
		want[state] = true
	}
	if diff := cmp.Diff(want, proven); diff != "" {
		t.Errorf("proven states (-want +got):\n%s", diff)
	}
}
