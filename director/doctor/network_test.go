package doctor_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/doctor"
	"github.com/shunt-lb/shunt/realserver"
)

func TestForwarding(t *testing.T) {
	b := newBed(t, directortest.OneArmed)
	b.cures("forwarding", "net.ipv4.ip_forward", doctor.Info, "there are services with method nat")
	b.cures("forwarding", "net.ipv6.conf.all.forwarding", doctor.Info, "there are services with method nat")
	t.Run("ipvs", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.host.Dataplane = director.PlaneIPVS
		b.cures("forwarding", "net.ipv4.ip_forward", doctor.Error, "there are services with method nat")
	})
	t.Run("dr_does_not_need_it", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		for n := range b.host.Services {
			b.host.Services[n].Servers[0].Method = realserver.DR
		}
		b.wantsNone("forwarding", "")
	})
}

func TestRPFilter(t *testing.T) {
	for _, where := range []string{"all", "eth0"} {
		t.Run(where, func(t *testing.T) {
			b := newBed(t, directortest.OneArmed)
			b.sysctl("net/ipv4/conf/"+where+"/rp_filter", "1")
			b.cures("rp-filter", "eth0", doctor.Warning, "rp_filter is strict on eth0")
		})
	}
	t.Run("loose", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.sysctl("net/ipv4/conf/all/rp_filter", "1")
		b.sysctl("net/ipv4/conf/eth0/rp_filter", "2") // the larger one holds
		b.wantsNone("rp-filter", "")
	})
	t.Run("interface_with_a_dot", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		if err := b.Director.AddVeth("eth0.5", b.Client, "vlan5", 0); err != nil {
			t.Fatal(err)
		}
		b.host.Interfaces = []string{"eth0.5"}
		b.sysctl("net/ipv4/conf/eth0.5/rp_filter", "1")
		b.cures("rp-filter", "eth0.5", doctor.Warning, "rp_filter is strict on eth0.5")
	})
}

func TestRedirects(t *testing.T) {
	for _, where := range []string{"all", "eth0"} {
		t.Run(where, func(t *testing.T) {
			b := newBed(t, directortest.OneArmed)
			b.sysctl("net/ipv4/conf/"+where+"/send_redirects", "1")
			b.wantsNone("send-redirects", "") // nothing is forwarded
			b.sysctl("net/ipv4/ip_forward", "1")
			b.cures("send-redirects", "eth0", doctor.Warning, "send_redirects is on for eth0")
		})
	}
	t.Run("two_arms", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		b.sysctl("net/ipv4/conf/all/send_redirects", "1")
		b.sysctl("net/ipv4/ip_forward", "1")
		b.wantsNone("send-redirects", "")
	})
}

func TestAcceptLocal(t *testing.T) {
	b := newBed(t, directortest.TwoArmed)
	b.host.Services[0].Servers[0].Method = realserver.DR
	b.cures("accept-local", "eth1", doctor.Warning, "accept_local is off for eth1")

	b = newBed(t, directortest.TwoArmed)
	s := &b.host.Services[0]
	s.Servers[0].Method = realserver.DR
	s.VIP = director.VIPExternal // and not on the host: nothing is taken for forged
	b.wantsNone("accept-local", "")
	shell(t, b.Director, "ip address add 192.0.2.10/32 dev lo")
	b.wants("accept-local", "eth1", doctor.Warning, "accept_local is off for eth1")

	b = newBed(t, directortest.OneArmed)
	b.host.Services[0].Servers[0].Method = realserver.DR
	b.wantsNone("accept-local", "") // replies do not cross the director
}

func TestARP(t *testing.T) {
	for _, where := range []string{"all", "eth0"} {
		t.Run(where, func(t *testing.T) {
			b := newBed(t, directortest.TwoArmed)
			b.sysctl("net/ipv4/conf/"+where+"/arp_ignore", "1")
			b.cures("arp", "eth0", doctor.Error, "arp_ignore is 1 on eth0")
		})
	}
}

func TestRoute(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		b.serve("far", "tcp://192.0.2.11:80", "203.0.113.7:80", realserver.NAT)
		b.cures("route", "203.0.113.7", doctor.Error, "there is no route to server 203.0.113.7")
	})
	t.Run("director_itself", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		s := b.serve("self", "tcp://192.0.2.11:80", "10.1.0.1:80", realserver.NAT)
		f := b.wants("route", "10.1.0.1", doctor.Error, "is an address of the director itself")
		if want := "shunt server edit self 10.1.0.1:80 --method local"; f.Fix != want {
			t.Errorf("fix %q, want %q", f.Fix, want)
		}
		s.Servers[0].Method = realserver.Local // what the fix does
		b.wantsNone("route", "")
	})
	t.Run("interface_not_named", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		b.host.Interfaces = []string{"eth0"}
		addr := b.Servers[0].Addr4.String()
		b.wants("route", addr, doctor.Error, "is reached by eth1, which is not named")
		b.host.Interfaces = append(b.host.Interfaces, "eth1")
		b.wantsNone("route", "")
	})
}

// knock sends a packet from the director, so that the kernel looks for the
// neighbour.
func (b *bed) knock(addr string) {
	b.Helper()
	to := netip.MustParseAddr(addr)
	if err := b.Director.Do(func() error { return sendUDP(netip.AddrPortFrom(to, 9)) }); err != nil {
		b.Fatal(err)
	}
}

func TestNeighbour(t *testing.T) {
	for name, address := range map[string]struct{ addr, key, server, add string }{
		"ipv4": {"10.2.1.77", "tcp://192.0.2.11:80", "10.2.1.77:80", "ip address add 10.2.1.77/24 dev eth0"},
		"ipv6": {"fd00:2:1::77", "tcp://[2001:db8::11]:80", "[fd00:2:1::77]:80", "ip -6 address add fd00:2:1::77/64 dev eth0 nodad"},
	} {
		t.Run("silent_"+name, func(t *testing.T) {
			b := newBed(t, directortest.TwoArmed)
			if name == "ipv6" { // by the lab's own plan of addresses
				address.addr = b.Servers[0].Addr6.Next().String()
				address.server = "[" + address.addr + "]:80"
				address.add = "ip -6 address add " + address.addr + "/64 dev eth0 nodad"
			}
			b.serve("silent", address.key, address.server, realserver.DR)
			b.wantsNone("neighbour", address.addr) // nobody has asked yet
			b.knock(address.addr)
			f := b.wants("neighbour", address.addr, doctor.Error, "does not answer on eth1")
			shell(t, b.Servers[0].Namespace, address.add)
			shell(t, b.Director, f.Fix)
			b.becomes("neighbour", address.addr, false)
		})
	}
	t.Run("router", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		b.serve("far", "tcp://192.0.2.11:80", "203.0.113.7:80", realserver.NAT)
		shell(t, b.Director, "ip route add 203.0.113.0/24 via 10.2.1.99")
		b.knock("203.0.113.7")
		b.wants("neighbour", "10.2.1.99", doctor.Error, "10.2.1.99, the router to server 203.0.113.7, does not answer")
	})
	t.Run("by_hand", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		addr := b.Servers[0].Addr4.String()
		shell(t, b.Director, "ip neigh replace "+addr+" lladdr 02:00:00:00:00:07 dev eth1 nud permanent")
		b.cures("neighbour", addr, doctor.Info, "is set by hand on eth1")
	})
}

func TestMTU(t *testing.T) {
	t.Run("narrow_side", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		b.host.Services = b.host.Services[:1]
		shell(t, b.Director, "ip link set dev eth1 mtu 1400")
		b.cures("mtu", "", doctor.Warning, "up to 1500 bytes; to server 10.2.1.2 (nat) by eth1 fit 1400")
	})
	t.Run("tunnel", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		b.host.Services[0].Servers[0].Method = realserver.Tunnel
		b.cures("mtu", "eth1 tunnel", doctor.Info, "(tunnel) by eth1 fit 1480")
	})
	t.Run("tunnel_ipv6", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		b.host.Services[1].Servers[0].Method = realserver.Tunnel
		b.cures("mtu", "eth1 tunnel", doctor.Info, "(tunnel) by eth1 fit 1460")
	})
	t.Run("tunnel_one_arm", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.host.Services[0].Servers[0].Method = realserver.Tunnel
		if f := b.wants("mtu", "eth0 tunnel", doctor.Info, "(tunnel) by eth0 fit 1480"); f.Fix != "shunt service edit web --mss 1440" {
			t.Errorf("fix %q: a wider interface takes wider packets in, too", f.Fix)
		}
		b.host.Services[0].MSS = 1440
		b.wantsNone("mtu", "")
		second := b.serve("more", "udp://192.0.2.11:53", b.Servers[0].Addr4.String()+":53", realserver.Tunnel)
		if f := b.wants("mtu", "eth0 tunnel", doctor.Info, "(tunnel) by eth0 fit 1480"); f.Fix != "" {
			t.Errorf("fix %q of UDP", f.Fix)
		}
		second.Servers[0].Tunnel = realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555}
		second.Servers[0].Address = netip.MustParseAddrPort("10.1.0.77:53")
		b.wants("mtu", "eth0 tunnel", doctor.Info, "10.1.0.77 (tunnel) by eth0 fit 1468")
	})
	t.Run("route", func(t *testing.T) {
		b := newBed(t, directortest.TwoArmed)
		addr := b.Servers[0].Addr4.String()
		shell(t, b.Director, "ip route add "+addr+"/32 dev eth1 mtu 1300")
		b.wants("mtu", "eth1 nat", doctor.Warning, "by eth1 fit 1300 (its route's MTU)")
		shell(t, b.Director, "ip route del "+addr+"/32 dev eth1 mtu 1300")
		b.wantsNone("mtu", "")
	})
	t.Run("one_buffer", func(t *testing.T) {
		since(t, 6, 3, "the netdev family tells what a driver can do with XDP")
		b := newBed(t, directortest.TwoArmed)
		shell(t, b.Director, "ip tuntap add tap0 mode tap && ip link set dev tap0 mtu 9000 up")
		b.host.Interfaces = []string{"tap0"} // tun's driver gives XDP one buffer
		b.cures("mtu", "tap0", doctor.Error, "tap0 has MTU 9000, and its driver gives XDP one buffer")
	})
}

func TestVIP(t *testing.T) {
	t.Run("managed_elsewhere", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		shell(t, b.Director, "ip address add 192.0.2.10/24 dev eth0")
		b.cures("vip", "192.0.2.10", doctor.Error, "is on eth0 already, by somebody else's doing, and web says vip: managed")
	})
	t.Run("managed_by_hand_on_lo", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		shell(t, b.Director, "ip address add 192.0.2.10/32 dev lo")
		b.cures("vip", "192.0.2.10", doctor.Error, "is on lo already")
	})
	t.Run("managed_missing", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.runs()
		b.cures("vip", "192.0.2.10", doctor.Warning, "virtual address 192.0.2.10 is managed and not on lo")
		b.cures("vip", "2001:db8::10", doctor.Warning, "virtual address 2001:db8::10 is managed and not on lo")
	})
	t.Run("external_in_the_network", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.serve("ext", "tcp://10.1.0.200:80", "10.2.0.11:80", realserver.NAT).VIP = director.VIPExternal
		b.cures("vip", "10.1.0.200", doctor.Warning, "is in the network of eth0 and not on the host")
	})
	t.Run("external_proxied", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.serve("ext", "tcp://10.1.0.200:80", "10.2.0.11:80", realserver.NAT).VIP = director.VIPExternal
		shell(t, b.Director, "ip neigh add proxy 10.1.0.200 dev eth0")
		b.wantsNone("vip", "")
	})
	t.Run("external_routed", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.host.Services[0].VIP = director.VIPExternal
		b.wants("vip", "192.0.2.10", doctor.Info, "not on the host, nor in the network of a named interface")
	})
	t.Run("external_local", func(t *testing.T) {
		for _, address := range []string{"192.0.2.11:80", "[2001:db8::11]:80"} {
			b := newBed(t, directortest.OneArmed)
			b.serve("ext", "tcp://"+address, address, realserver.Local).VIP = director.VIPExternal
			b.cures("vip", netip.MustParseAddrPort(address).Addr().String(), doctor.Error, "has servers with method local and is not on the host")
		}
	})
	t.Run("managed_ipv6_in_the_network", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		s := b.serve("near", "tcp://[fd00:1::200]:80", "[fd00:2::11]:80", realserver.NAT)
		f := b.wants("vip", "fd00:1::200", doctor.Warning, "virtual address fd00:1::200 is in the network of eth0, and on lo")
		// Of the fix, the first command is the CLI's, for a daemon.
		edit, add, _ := strings.Cut(f.Fix, " && ")
		if want := "shunt service edit near --vip external"; edit != want {
			t.Errorf("fix %q, want %q", edit, want)
		}
		s.VIP = director.VIPExternal
		shell(t, b.Director, add)
		b.wantsNone("vip", "fd00:1::200")
	})
	t.Run("duplicate", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		b.serve("twice", "tcp://[fd00:1::200]:80", "[fd00:2::11]:80", realserver.NAT).VIP = director.VIPExternal
		shell(t, b.Client, "ip -6 address add fd00:1::200/64 dev eth0 nodad")
		b.sysctl("net/ipv6/conf/all/accept_dad", "1")
		b.sysctl("net/ipv6/conf/eth0/accept_dad", "1")
		shell(t, b.Director, "ip -6 address add fd00:1::200/64 dev eth0")
		b.becomes("vip", "fd00:1::200", true)
		b.cures("vip", "fd00:1::200", doctor.Error, "is a duplicate: another host answered for it")
	})
}

// TestManagedIPv6IsNotAnsweredForOnTheLink holds what the doctor says about IPv6
// against the kernel: an address on lo is not answered for, one on the link is.
func TestManagedIPv6IsNotAnsweredForOnTheLink(t *testing.T) {
	b := newBed(t, directortest.OneArmed)
	shell(t, b.Director, "ip -6 address add fd00:1::200/128 dev lo nodad")
	ask := func() string {
		err := b.Client.Do(func() error { return sendUDP(netip.MustParseAddrPort("[fd00:1::200]:9")) })
		if err != nil {
			t.Fatal(err)
		}
		for ctx := t.Context(); ; time.Sleep(20 * time.Millisecond) {
			out, err := b.Client.Command(ctx, "ip", "neigh", "show", "fd00:1::200", "dev", "eth0").Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, state := range []string{"FAILED", "REACHABLE", "STALE", "DELAY", "PROBE"} {
				if strings.Contains(string(out), state) {
					return state
				}
			}
		}
	}
	if state := ask(); state != "FAILED" {
		t.Errorf("on lo: %s, want FAILED", state)
	}
	shell(t, b.Director, "ip -6 address add fd00:1::200/128 dev eth0 nodad")
	if state := ask(); state == "FAILED" {
		t.Errorf("on eth0: %s", state)
	}
}

func TestConntrack(t *testing.T) { // its limit is the machine's: a tree stands in
	const folder = "proc/sys/net/netfilter/nf_conntrack_"
	root := newTree(t, map[string]string{folder + "max": "1000", folder + "count": "799"})
	if found := of(root.here(t, doctor.Host{}), "conntrack", ""); len(found) > 0 {
		t.Errorf("below the limit: %+v", found)
	}
	root.write(t, folder+"count", "800")
	f := single(t, of(root.here(t, doctor.Host{}), "conntrack", ""), "conntrack", doctor.Warning, "holds 800 of at most 1000")
	root.run(t, f.Fix)
	if found := of(root.here(t, doctor.Host{}), "conntrack", ""); len(found) > 0 {
		t.Errorf("after %s: %+v", f.Fix, found)
	}
}

func TestIPVS(t *testing.T) { // this machine's kernel has none: a tree stands in
	b := newBed(t, directortest.OneArmed)
	const head = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
	b.host.Root = string(newTree(t, map[string]string{"proc/thread-self/net/ip_vs": head +
		"TCP  C000020A:0050 wlc \n  -> 0A02000B:1F90      Masq    1      0          0\nTCP  C000020A:0051 wlc \n  -> 0A02000B:1F90      Masq    1      0          0\n"}))
	if f := b.wants("ipvs", "tcp://192.0.2.10:80", doctor.Info, "IPVS has service tcp://192.0.2.10:80 too"); f.Fix != "shunt migrate ipvs-to-xdp tcp://192.0.2.10:80" {
		t.Errorf("fix %q", f.Fix)
	}
	b.wants("ipvs", "", doctor.Info, "tcp://192.0.2.10:80") // and not the other port
	b.host.Root = string(newTree(t, map[string]string{"proc/thread-self/net/ip_vs": head}))
	b.wantsNone("ipvs", "")
}

func TestCannotLook(t *testing.T) {
	root := newTree(t, nil)
	h := doctor.Host{Root: string(root), Interfaces: []string{"lo"}, Dataplane: "xdp"}
	findings := root.here(t, h)
	for _, check := range []string{"kernel", "clock", "queues", "irq", "rp-filter"} {
		if f := single(t, of(findings, check, ""), check, doctor.Unknown, "could not look: open "+string(root)); f.Fix != "" {
			t.Errorf("%s: fix %q for a file that is not there", check, f.Fix)
		}
	}
	seen := map[string]bool{}
	for _, f := range slices.Concat(findings, root.here(t, doctor.Host{Dataplane: "ipvs"})) {
		seen[f.Check] = true
	}
	for _, c := range doctor.Checks() {
		if !seen[c.ID] {
			t.Errorf("%s: no finding", c.ID)
		}
	}
}

func TestIPVSDataplaneIsNotAskedAboutXDP(t *testing.T) {
	root := newTree(t, nil)
	for _, f := range root.here(t, doctor.Host{Dataplane: "ipvs"}) {
		if f.Check == "xdp-mode" || f.Check == "jit" || f.Check == "nftables" {
			t.Errorf("%+v", f)
		}
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if findings, err := doctor.Inspect(ctx, doctor.Host{}); err == nil {
		t.Errorf("no error, %d findings", len(findings))
	}
}

// runs pins an attached program, as a daemon that runs has.
func (b *bed) runs() {
	b.Helper()
	ours := b.attachPassing("eth0")
	if err := ours.Pin(fmt.Sprintf("%s/link-%d", b.host.PinDir, b.index("eth0"))); err != nil {
		b.Fatal(err)
	}
}
