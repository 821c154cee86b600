package nexthop

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/director/directortest"
)

var families = []struct {
	name                string
	left, right, beyond netip.Addr
}{{"IPv4", left4, right4, beyond4}, {"IPv6", left6, right6, beyond6}}

func TestGatewayChangesItsAddress(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			n := newNet2(t)
			must(t, n.director.AddRoute(beyondNet[f.beyond], f.left))
			w := newWatcher(t, n, Options{}).run(t)
			w.watch(f.beyond)
			before := n.hop(t, "eth0", n.left)
			w.wait(t, f.beyond, before)

			changed := net.HardwareAddr{2, 0, 0, 0, 0, 7}
			must(t, n.left.Netlink().LinkSetHardwareAddr(n.link(t, n.left, "eth0"), changed))
			after := before
			copy(after.Hop.Destination[:], changed)
			w.wait(t, f.beyond, after)
		})
	}
}

func TestNeighbourFailsAndReturns(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			n := newNet2(t)
			w := newWatcher(t, n, Options{}).run(t)
			w.watch(f.left)
			good := n.hop(t, "eth0", n.left)
			w.wait(t, f.left, good)
			if w.Failed(good.Hop.Interface, good.Hop.Destination) {
				t.Error("Failed while the neighbour answers")
			}

			host := netip.PrefixFrom(f.left, 24)
			if f.left.Is6() {
				host = netip.PrefixFrom(f.left, 64)
			}
			must(t, n.left.Netlink().AddrDel(n.link(t, n.left, "eth0"), &netlink.Addr{IPNet: prefixOf(host)}))
			w.wait(t, f.left, reason("no answer from "+f.left.String()+" on eth0 (neighbour failed)"))
			if !w.Failed(good.Hop.Interface, good.Hop.Destination) {
				t.Error("not Failed although the neighbour with that address does not answer")
			}
			if w.Failed(good.Hop.Interface, [6]byte{2, 9, 9, 9, 9, 9}) {
				t.Error("Failed for an address that no neighbour ever had")
			}

			must(t, n.left.AddAddress("eth0", host))
			w.wait(t, f.left, good)
			if w.Failed(good.Hop.Interface, good.Hop.Destination) {
				t.Error("Failed although the neighbour answers again")
			}
		})
	}
}

func prefixOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func TestRouteMoves(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			n := newNet2(t)
			w := newWatcher(t, n, Options{}).run(t)
			w.watch(f.beyond)
			w.wait(t, f.beyond, reason("no route to "+f.beyond.String()))
			must(t, n.director.AddRoute(beyondNet[f.beyond], f.left))
			w.wait(t, f.beyond, n.hop(t, "eth0", n.left))

			must(t, n.director.AddRoute(beyondNet[f.beyond], f.right))
			w.wait(t, f.beyond, n.hop(t, "eth1", n.right))
			if entry := n.neighbour(t, f.left); entry != nil && entry.FlagsExt&netlink.NTF_EXT_MANAGED != 0 {
				t.Errorf("the former gateway is still managed: %+v", entry)
			}

			// A rule is no change of a route.
			rule := netlink.NewRule()
			rule.Dst, rule.Type, rule.Family = prefixOf(beyondNet[f.beyond]), 8 /* FR_ACT_PROHIBIT */, netlink.FAMILY_V4
			if f.beyond.Is6() {
				rule.Family = netlink.FAMILY_V6
			}
			must(t, n.director.Netlink().RuleAdd(rule))
			w.wait(t, f.beyond, reason("route to "+f.beyond.String()+" is of type prohibit"))
			must(t, n.director.Netlink().RuleDel(rule))
			w.wait(t, f.beyond, n.hop(t, "eth1", n.right))
		})
	}
}

func TestRouteMovesToAnInterfaceThatIsNotAttached(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	must(t, n.director.AddRoute(beyondNet[beyond4], left4))
	w := newWatcher(t, n, Options{}, "eth0").run(t)
	w.watch(beyond4)
	w.wait(t, beyond4, n.hop(t, "eth0", n.left))
	must(t, n.director.AddRoute(beyondNet[beyond4], right4))
	w.wait(t, beyond4, reason("route leaves by eth1, which is not one of director.interfaces"))
	must(t, n.director.AddRoute(beyondNet[beyond4], left4))
	w.wait(t, beyond4, n.hop(t, "eth0", n.left))
}

func TestLinkGoesDownAndUp(t *testing.T) {
	t.Parallel()
	down := reason("interface eth0 is down")
	for _, tt := range []struct {
		name string
		ns   func(*net2) *directortest.Namespace
	}{
		{"set down here", func(n *net2) *directortest.Namespace { return n.director }},
		{"without carrier", func(n *net2) *directortest.Namespace { return n.left }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNet2(t)
			// Otherwise the addresses go with the link.
			must(t, n.director.Sysctl("net/ipv6/conf/eth0/keep_addr_on_down", "1"))
			must(t, n.left.Sysctl("net/ipv6/conf/eth0/keep_addr_on_down", "1"))
			w := newWatcher(t, n, Options{}).run(t)
			good := n.hop(t, "eth0", n.left)
			for _, addr := range []netip.Addr{left4, left6} {
				w.watch(addr)
				w.wait(t, addr, good)
			}
			ns := tt.ns(n)
			must(t, ns.Netlink().LinkSetDown(n.link(t, ns, "eth0")))
			w.wait(t, left4, down)
			w.wait(t, left6, down)
			if !w.Failed(good.Hop.Interface, good.Hop.Destination) {
				t.Error("not Failed although the interface is down")
			}
			must(t, ns.Netlink().LinkSetUp(n.link(t, ns, "eth0")))
			w.wait(t, left4, good)
			w.wait(t, left6, good)
		})
	}
}

func TestLinkChanges(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	w := newWatcher(t, n, Options{}).run(t)
	w.watch(left4)
	want := n.hop(t, "eth0", n.left)
	w.wait(t, left4, want)
	l := n.link(t, n.director, "eth0")

	want.Hop.MTU = 1400
	must(t, n.director.Netlink().LinkSetMTU(l, 1400))
	w.wait(t, left4, want)

	want.Hop.Source = [6]byte{2, 0, 0, 0, 0, 9}
	must(t, n.director.Netlink().LinkSetHardwareAddr(l, want.Hop.Source[:]))
	w.wait(t, left4, want)

	must(t, n.director.Netlink().LinkDel(l))
	w.wait(t, left4, reason("no route to 10.0.0.2"))
	if !w.Failed(want.Hop.Interface, want.Hop.Destination) {
		t.Error("not Failed although the interface is gone")
	}
}

func TestAddressBecomesOurOwn(t *testing.T) {
	t.Parallel()
	n := newNet2(t)
	must(t, n.director.AddRoute(beyondNet[beyond4], left4))
	w := newWatcher(t, n, Options{}).run(t)
	w.watch(beyond4)
	w.wait(t, beyond4, n.hop(t, "eth0", n.left))
	must(t, n.director.AddAddress("lo", netip.PrefixFrom(beyond4, 32)))
	w.wait(t, beyond4, reason(beyond4.String()+" is an address of this host: use method local"))
}
