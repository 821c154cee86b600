package xdp

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
)

// A managed prefix is a local route, of the services together.
func TestManagedPrefix(t *testing.T) {
	r := newRig(t, Options{})
	ours := func() map[netip.Prefix]bool {
		t.Helper()
		all, err := r.vips.Prefixes()
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, text := range []string{"192.0.2.0/24", "[2001:db8::/64]"} {
		first, second := wideService(wideKey(t, "tcp://"+text+":80"), 1), wideService(wideKey(t, "udp://"+text+":53"), 2)
		first.VIP, second.VIP = director.VIPManaged, director.VIPManaged
		prefix := first.Key.Prefix()
		r.add(first)
		r.add(second)
		if got := ours(); len(got) != 1 || !got[prefix] {
			t.Fatalf("on the host: %v, want %s", got, prefix)
		}
		r.must(director.RemoveService{Key: first.Key})
		if !ours()[prefix] {
			t.Errorf("%s is gone with the first service", prefix)
		}
		second.VIP = director.VIPExternal
		r.must(director.EditService{Service: second})
		if got := ours(); len(got) != 0 {
			t.Errorf("left on the host: %v", got)
		}
		r.must(director.RemoveService{Key: second.Key})

		// What is there by somebody else's doing is refused and stays.
		route := foreignRoute(t, r.ns, prefix)
		if err := r.ns.Netlink().RouteAdd(route); err != nil {
			t.Fatal(err)
		}
		if err := r.Apply(t.Context(), added(first)); !errors.Is(err, director.ErrExists) {
			t.Errorf("with a route of somebody else's: %v", err)
		}
		if err := r.ns.Netlink().RouteDel(route); err != nil {
			t.Errorf("the route of somebody else's is gone: %v", err)
		}
	}
	own := wideService(wideKey(t, "tcp://10.0.0.0/24:80"), 1)
	own.VIP = director.VIPManaged
	if err := r.Apply(t.Context(), added(own)); !errors.Is(err, director.ErrExists) {
		t.Errorf("a prefix with an address of the host: %v", err)
	}
	if len(ours()) != 0 || len(r.matchEntries()) != 0 {
		t.Errorf("left of what was refused: %v, %v", ours(), r.matchEntries())
	}
}

// foreignRoute is the prefix's local route as somebody else would make it.
func foreignRoute(t *testing.T, ns *directortest.Namespace, prefix netip.Prefix) *netlink.Route {
	t.Helper()
	lo, err := ns.Netlink().LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	route := &netlink.Route{
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Protocol: unix.RTPROT_STATIC, LinkIndex: lo.Attrs().Index,
		Dst: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())},
	}
	if prefix.Addr().Is4() {
		route.Scope = unix.RT_SCOPE_HOST
	}
	return route
}
