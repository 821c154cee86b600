package ipvs

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// What somebody else changes between our reading and our write does not make an
// operation fail that can be done all the same.
func TestGuestOthersMeanwhile(t *testing.T) {
	web := service("tcp://192.0.2.1:80", realserver.DR, "10.0.0.1", "10.0.0.2")
	web.Scheduler = director.RoundRobin
	for _, test := range []struct {
		name     string
		before   []string // what the kernel has
		at       string   // the write that others come before
		script   string   // what they do
		ops      []director.Operation
		wantHeld director.Service
	}{
		{"service_added", nil, "new tcp://192.0.2.1:80", "-A -t 192.0.2.1:80 -s sh", adding(web), web},
		{
			"server_added", nil, "new 10.0.0.1:80 of tcp://192.0.2.1:80", "-a -t 192.0.2.1:80 -r 10.0.0.1 -m -w 9", adding(web), web,
		},
		{
			"server_removed",
			[]string{"-A -t 192.0.2.1:80 -s rr", "-a -t 192.0.2.1:80 -r 10.0.0.1 -g", "-a -t 192.0.2.1:80 -r 10.0.0.2 -g", "-a -t 192.0.2.1:80 -r 10.0.0.3 -g"},
			"delete 10.0.0.3:80 of tcp://192.0.2.1:80", "-d -t 192.0.2.1:80 -r 10.0.0.3",
			[]director.Operation{director.RemoveServer{Key: web.Key, Address: netip.MustParseAddrPort("10.0.0.3:80")}},
			web,
		},
		{
			"service_removed",
			[]string{"-A -t 192.0.2.1:80 -s rr"},
			"delete tcp://192.0.2.1:80", "-D -t 192.0.2.1:80",
			append([]director.Operation{director.RemoveService{Key: web.Key}}, adding(web)...), web,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.script(t, test.before...)
			came := false
			r.spy.fail = func(write string) error {
				if write == test.at && !came {
					came = true
					r.script(t, test.script)
				}
				return nil
			}
			r.apply(t, test.ops...)
			if !came {
				t.Errorf("%q was never written: %q", test.at, r.spy.writes)
			}
			r.holds(t, test.wantHeld)
		})
	}
}

// Marked packets are found with the service of their mark, template and connection.
func TestGuestMarkedConnections(t *testing.T) {
	l := startTraffic(t)
	s := service("fwmark://7", realserver.NAT)
	s.Scheduler, s.Persistence = director.RoundRobin, director.Persistence{Timeout: time.Minute, Prefix: 24}
	for _, server := range l.lab.Servers {
		s.Servers = append(s.Servers, realserver.Server{Address: netip.AddrPortFrom(server.Addr4, 8080), Method: realserver.NAT, Weight: 1})
	}
	l.apply(t, adding(s)...)
	if out, err := l.ns.Command(t.Context(), "ip", "route", "add", "198.51.100.0/24", "dev", "eth0").CombinedOutput(); err != nil {
		t.Fatalf("ip route: %v\n%s", err, out)
	}
	// From the director itself: its own packets are scheduled too (kernel: ip_vs_core.c,
	// the hook LOCAL_OUT), and a socket can mark them without a firewall.
	dialer := net.Dialer{Timeout: time.Minute, Control: func(_, _ string, c syscall.RawConn) error {
		var marked error
		err := c.Control(func(fd uintptr) { marked = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, 7) })
		if err == nil {
			err = marked
		}
		return err
	}}
	dialer.SetMultipathTCP(false)
	var conn net.Conn
	if err := l.ns.Do(func() (err error) {
		conn, err = dialer.DialContext(context.Background(), "tcp", "198.51.100.1:8080")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client := netip.MustParseAddrPort(conn.LocalAddr().String())
	network, _ := client.Addr().Prefix(24)

	var got []conntrack.Connection
	for c, err := range l.Connections(t.Context(), director.ConnectionFilter{Service: s.Key}) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Expires <= 0 {
			t.Errorf("%+v has expired", c)
		}
		c.Expires = 0
		if c.Template {
			got = append([]conntrack.Connection{c}, got...)
		} else {
			got = append(got, c)
		}
	}
	server := s.Servers[1].Address // the last one added is the first
	want := []conntrack.Connection{
		{
			Client: netip.AddrPortFrom(network.Addr(), 0), Virtual: s.Key.Address, Mark: 7, Server: server, Method: "nat",
			State: conntrack.Assured, Proven: true, Template: true, Prefix: 24,
		},
		{
			Protocol: conntrack.TCP, Client: client, Virtual: netip.MustParseAddrPort("198.51.100.1:8080"), Server: server, Method: "nat",
			State: conntrack.Established, Proven: true,
		},
	}
	if diff := cmp.Diff(want, got, equal...); diff != "" {
		t.Errorf("connections (-want +got):\n%s\n%s", diff, l.ipvsadm(t, "-L", "-n", "-c"))
	}
	if list := l.ipvsadm(t, "-L", "-n"); !strings.Contains(list, "FWM  7 rr persistent 60 mask 255.255.255.0") {
		t.Errorf("ipvsadm -Ln:\n%s", list)
	}
}
