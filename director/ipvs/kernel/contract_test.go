package kernel_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

func TestGuestServicesAreWhatIpvsadmLists(t *testing.T) {
	type c struct {
		service kernel.Service
		want    string
	}
	cases := []c{
		{plain(web6, "wlc"), "TCP [2001:db8::1]:80 wlc"},
		{plain(dns, "rr"), "UDP 192.0.2.1:53 rr"},
		{plain(address(kernel.UDP, "[2001:db8::1]:53"), "rr"), "UDP [2001:db8::1]:53 rr"},
		{plain(address(kernel.SCTP, "192.0.2.1:2905"), "rr"), "SCTP 192.0.2.1:2905 rr"},
		{plain(address(kernel.SCTP, "[2001:db8::1]:2905"), "rr"), "SCTP [2001:db8::1]:2905 rr"},
		{plain(kernel.MarkID(7, kernel.IPv4), "rr"), "FWM 7 rr"},
		{plain(kernel.MarkID(7, kernel.IPv6), "rr"), "FWM 7 IPv6 rr"},
		{plain(kernel.MarkID(4294967295, kernel.IPv4), "rr"), "FWM -1 rr"}, // ipvsadm's
		{with(plain(web, "sh"), func(s *kernel.Service) { s.Flags = kernel.FlagScheduler1 | kernel.FlagScheduler2 }), "TCP 192.0.2.1:80 sh (sh-fallback,sh-port)"},
		{with(plain(web, "mh"), func(s *kernel.Service) { s.Flags = kernel.FlagScheduler2 }), "TCP 192.0.2.1:80 mh (mh-port)"},
		{with(plain(web, "rr"), func(s *kernel.Service) {
			s.Flags = kernel.FlagScheduler1 | kernel.FlagScheduler2 | kernel.FlagScheduler3
		}), "TCP 192.0.2.1:80 rr (flag-1,flag-2,flag-3)"},
		{with(plain(dns, "rr"), func(s *kernel.Service) { s.Flags = kernel.FlagOnePacket }), "UDP 192.0.2.1:53 rr ops"},
		{with(plain(web, "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout = kernel.FlagPersistent, 300*time.Second
		}), "TCP 192.0.2.1:80 wlc persistent 300"},
		{with(plain(web, "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix = kernel.FlagPersistent, 31*24*time.Hour, 20
		}), "TCP 192.0.2.1:80 wlc persistent 2678400 mask 255.255.240.0"},
		{with(plain(web, "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix = kernel.FlagPersistent, time.Second, 0
		}), "TCP 192.0.2.1:80 wlc persistent 1 mask 0.0.0.0"},
		{with(plain(web, "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix, s.OddMask = kernel.FlagPersistent, time.Second, 8, netip.MustParseAddr("255.0.255.0")
		}), "TCP 192.0.2.1:80 wlc persistent 1 mask 255.0.255.0"},
		{with(plain(web6, "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix = kernel.FlagPersistent, time.Second, 64
		}), "TCP [2001:db8::1]:80 wlc persistent 1 mask 64"},
		{with(plain(kernel.MarkID(9, kernel.IPv6), "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix = kernel.FlagPersistent, time.Second, 1
		}), "FWM 9 IPv6 wlc persistent 1 mask 1"},
		{with(plain(address(kernel.TCP, "192.0.2.1:0"), "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout = kernel.FlagPersistent, 5*time.Second
		}), "TCP 192.0.2.1:0 wlc persistent 5"},
		{with(plain(address(kernel.UDP, "[2001:db8::1]:0"), "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout = kernel.FlagPersistent, 5*time.Second
		}), "UDP [2001:db8::1]:0 wlc persistent 5"},
		{with(plain(address(kernel.UDP, "192.0.2.1:5060"), "rr"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Engine = kernel.FlagPersistent|kernel.FlagOnePacket, 60*time.Second, "sip"
		}), "UDP 192.0.2.1:5060 rr persistent 60 pe sip ops"},
	}
	for _, scheduler := range []string{"rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "sh", "dh", "mh", "lblc", "lblcr", "none"} {
		cases = append(cases, c{plain(web, scheduler), "TCP 192.0.2.1:80 " + scheduler})
	}
	forEach(t, func(f *fixture) {
		for _, c := range cases {
			f.must(f.NewService(f.ctx, c.service))
			f.equal("ipvsadm -Ln", []string{c.want}, f.judge())
			want := []kernel.ServiceEntry{{Service: c.service}}
			f.equal("listed", want, f.services())
			f.equal("got", want[0], f.service(c.service.ServiceID))
			f.must(f.DeleteService(f.ctx, c.service.ServiceID))
			f.equal("after DeleteService", []string{}, f.judge())
		}
		// All that may stand beside each other.
		for _, c := range cases[:8] {
			f.must(f.NewService(f.ctx, c.service))
		}
		if got := len(f.services()); got != 8 {
			t.Errorf("%d services are listed, want 8", got)
		}
		f.must(f.Flush(f.ctx))
		f.equal("after Flush", []string{}, f.judge())
		f.equal("after Flush", []kernel.ServiceEntry{}, f.services())
	})
}

// serverCases are servers of IPv4's web, unless six says otherwise.
var serverCases = []struct {
	six    bool
	server kernel.Server
	want   string // of --tun-info
}{
	{server: kernel.Server{Address: at("10.0.0.1:8080"), Weight: 1}, want: "-> 10.0.0.1:8080 Masq n/a 1 0 0"},
	{server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.DR, Weight: 0}, want: "-> 10.0.0.1:80 Route n/a 0 0 0"},
	{server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.DR, Weight: 2147483647}, want: "-> 10.0.0.1:80 Route n/a 2147483647 0 0"},
	{server: kernel.Server{Address: at("127.0.0.1:80"), Method: kernel.Local, Weight: 1}, want: "-> 127.0.0.1:80 Local n/a 1 0 0"},
	{server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1}, want: "-> 10.0.0.1:80 Tunnel ipip 1 0 0"},
	{
		server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 5555}},
		want:   "-> 10.0.0.1:80 Tunnel gue:5555:-c 1 0 0",
	},
	{
		server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 6080, Flags: kernel.Checksum}},
		want:   "-> 10.0.0.1:80 Tunnel gue:6080:+c 1 0 0",
	},
	{
		server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 6080, Flags: kernel.RemoteChecksum}},
		want:   "-> 10.0.0.1:80 Tunnel gue:6080:r+c 1 0 0",
	},
	{
		server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1, Tunnel: kernel.Tunnel{Type: kernel.GRE}},
		want:   "-> 10.0.0.1:80 Tunnel gre:-c 1 0 0",
	},
	{
		server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1, Tunnel: kernel.Tunnel{Type: kernel.GRE, Flags: kernel.Checksum}},
		want:   "-> 10.0.0.1:80 Tunnel gre:+c 1 0 0",
	},
	{server: kernel.Server{Address: at("[2001:db8:1::1]:80"), Method: kernel.Tunnelling, Weight: 1}, want: "-> [2001:db8:1::1]:80 Tunnel ipip 1 0 0"},
	{six: true, server: kernel.Server{Address: at("[2001:db8:1::1]:8080"), Weight: 9}, want: "-> [2001:db8:1::1]:8080 Masq n/a 9 0 0"},
	{six: true, server: kernel.Server{Address: at("[2001:db8:1::1]:80"), Method: kernel.DR, Weight: 9}, want: "-> [2001:db8:1::1]:80 Route n/a 9 0 0"},
	{six: true, server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 9}, want: "-> 10.0.0.1:80 Tunnel ipip 9 0 0"},
	{
		six:    true,
		server: kernel.Server{Address: at("[2001:db8:1::1]:80"), Method: kernel.Tunnelling, Weight: 9, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 1}},
		want:   "-> [2001:db8:1::1]:80 Tunnel gue:1:-c 9 0 0",
	},
}

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestGuestServersAreWhatIpvsadmLists(t *testing.T) {
	forEach(t, func(f *fixture) {
		f.must(f.NewService(f.ctx, plain(web, "wlc")))
		f.must(f.NewService(f.ctx, plain(web6, "wlc")))
		for _, c := range serverCases {
			id, service, i := web, "TCP 192.0.2.1:80 wlc", 1
			if c.six {
				id, service, i = web6, "TCP [2001:db8::1]:80 wlc", 2
			}
			c.server.Upper, c.server.Lower = 100, 20
			f.must(f.NewServer(f.ctx, id, c.server))
			f.equal("ipvsadm -Ln --tun-info", []string{service, c.want}, f.judge("--tun-info")[i-1:i+1])
			f.equal("ipvsadm -Ln --thresholds", fmt.Sprintf("-> %s 100 20 0 0", c.server.Address), f.judge("--thresholds")[i])
			want := []kernel.ServerEntry{{Server: c.server}}
			f.equal("listed", want, f.service(id).Servers)

			// A change of the weight changes nothing else: libipvs alone would lose tunnels.
			c.server.Weight, c.server.Upper, c.server.Lower = 77, 0, 0
			f.must(f.SetServer(f.ctx, id, c.server))
			f.equal("after SetServer", []kernel.ServerEntry{{Server: c.server}}, f.service(id).Servers)
			f.equal("ipvsadm -Ln --thresholds", fmt.Sprintf("-> %s 0 0 0 0", c.server.Address), f.judge("--thresholds")[i])

			f.must(f.DeleteServer(f.ctx, id, c.server.Address))
			f.equal("after DeleteServer", []kernel.ServerEntry{}, f.service(id).Servers)
		}
	})
}

func TestGuestServersOfEveryKindOfService(t *testing.T) {
	forEach(t, func(f *fixture) {
		for _, s := range []kernel.Service{
			plain(kernel.MarkID(7, kernel.IPv4), "wlc"),
			with(plain(address(kernel.TCP, "192.0.2.1:0"), "wlc"), func(s *kernel.Service) { s.Flags, s.Timeout = kernel.FlagPersistent, time.Minute }),
			plain(address(kernel.SCTP, "192.0.2.1:2905"), "wlc"),
		} {
			f.must(f.NewService(f.ctx, s))
			first, second := kernel.Server{Address: at("10.0.0.1:0"), Weight: 1}, kernel.Server{Address: at("10.0.0.2:0"), Weight: 2}
			f.must(f.NewServer(f.ctx, s.ServiceID, first))
			f.must(f.NewServer(f.ctx, s.ServiceID, second))
			// The last one added comes first.
			f.equal("listed", []kernel.ServerEntry{{Server: second}, {Server: first}}, f.service(s.ServiceID).Servers)
			f.equal("ipvsadm", []string{"-> 10.0.0.1:0 Masq 1 0 0", "-> 10.0.0.2:0 Masq 2 0 0"}, f.judge()[1:])
			f.must(f.DeleteServer(f.ctx, s.ServiceID, first.Address))
			f.equal("after DeleteServer", []kernel.ServerEntry{{Server: second}}, f.service(s.ServiceID).Servers)
			f.must(f.DeleteService(f.ctx, s.ServiceID))
		}
	})
}

// TestGuestSetService: everything but the identity is replaced, servers stay, and what
// is written again stays as it was.
func TestGuestSetService(t *testing.T) {
	forEach(t, func(f *fixture) {
		sip := with(plain(address(kernel.UDP, "192.0.2.1:5060"), "rr"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix, s.Engine = kernel.FlagPersistent, time.Minute, 24, "sip"
		})
		server := kernel.Server{Address: at("10.0.0.1:5060"), Weight: 1, Method: kernel.Tunnelling, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 5555, Flags: kernel.Checksum}}
		f.must(f.NewService(f.ctx, sip))
		f.must(f.NewServer(f.ctx, sip.ServiceID, server))
		for _, step := range []struct {
			change func(*kernel.Service)
			want   string
		}{
			{func(s *kernel.Service) { s.Scheduler = "wlc" }, "UDP 192.0.2.1:5060 wlc persistent 60 mask 255.255.255.0 pe sip"},
			{func(s *kernel.Service) { s.Flags |= kernel.FlagOnePacket }, "UDP 192.0.2.1:5060 wlc persistent 60 mask 255.255.255.0 pe sip ops"},
			{func(s *kernel.Service) { s.Engine = "" }, "UDP 192.0.2.1:5060 wlc persistent 60 mask 255.255.255.0 ops"},
			{func(s *kernel.Service) { s.Flags, s.Timeout, s.Prefix = 0, 0, 32 }, "UDP 192.0.2.1:5060 wlc"},
			{func(s *kernel.Service) { s.Scheduler, s.Flags = "mh", kernel.FlagScheduler1 }, "UDP 192.0.2.1:5060 mh (mh-fallback)"},
		} {
			step.change(&sip)
			f.must(f.SetService(f.ctx, sip))
			f.equal("ipvsadm -Ln --tun-info", []string{step.want, "-> 10.0.0.1:5060 Tunnel gue:5555:+c 1 0 0"}, f.judge("--tun-info"))
			f.equal("listed", []kernel.ServiceEntry{{Service: sip, Servers: []kernel.ServerEntry{{Server: server}}}}, f.services())
		}
	})
}
