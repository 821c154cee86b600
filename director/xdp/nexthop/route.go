package nexthop

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// route is the kernel's answer to where packets to an address go.
type route struct {
	problem string // why they go nowhere; empty: the rest is good
	lost    bool   // the problem is that there is no route; iface was the last one's
	iface   int
	gateway netip.Addr // invalid: the address is on the link
	mtu     int        // of the route; 0: the link's
	source  netip.Addr // what the host itself would send from; invalid: not known
}

// neighbour returns who gets the packets to an address.
func (t route) neighbour(addr netip.Addr) neighbourKey {
	if t.gateway.IsValid() {
		addr = t.gateway
	}
	return neighbourKey{iface: t.iface, addr: addr.WithZone("")}
}

// limit returns the MTU of the route over a link.
func (t route) limit(linkMTU int) int {
	if t.mtu > 0 {
		return min(t.mtu, linkMTU)
	}
	return linkMTU
}

// lookup asks the kernel for the route to an address.
func (r *Resolver) lookup(addr netip.Addr) route {
	var options *netlink.RouteGetOptions
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		index := r.zoneIndex(addr.Zone())
		if index == 0 {
			return route{problem: fmt.Sprintf("%s is link-local: its interface must be given, as in fe80::1%%eth0", addr)}
		}
		options = &netlink.RouteGetOptions{OifIndex: index}
	}
	answers, err := r.routes.RouteGetWithOptions(addr.AsSlice(), options)
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return route{problem: fmt.Sprintf("no route to %s", addr), lost: true}
	case errors.Is(err, unix.EACCES):
		return route{problem: fmt.Sprintf("route to %s is of type prohibit", addr)}
	case errors.Is(err, unix.EINVAL):
		// kernel: net/ipv4/fib_semantics.c, fib_props[RTN_BLACKHOLE].error
		return route{problem: fmt.Sprintf("route to %s is of type blackhole", addr)}
	case err != nil:
		return route{problem: fmt.Sprintf("look up the route to %s: %v", addr, err)} // text is all that is kept
	case len(answers) == 0:
		return route{problem: fmt.Sprintf("no route to %s", addr), lost: true}
	}
	return readRoute(addr, &answers[0])
}

// readRoute judges an answer that is no error.
func readRoute(addr netip.Addr, answer *netlink.Route) route {
	switch answer.Type {
	case unix.RTN_UNICAST:
	case unix.RTN_LOCAL:
		return route{problem: fmt.Sprintf("%s is an address of this host: use method local", addr)}
	case unix.RTN_BROADCAST, unix.RTN_MULTICAST, unix.RTN_ANYCAST:
		return route{problem: fmt.Sprintf("%s is a broadcast, multicast or anycast address", addr)}
	default:
		return route{problem: fmt.Sprintf("route to %s is of type %d, which leads nowhere", addr, answer.Type)}
	}
	if answer.Encap != nil {
		return route{problem: fmt.Sprintf("route to %s needs an encapsulation (%s)", addr, answer.Encap)}
	}
	t := route{iface: answer.LinkIndex, mtu: answer.MTU}
	if answer.Src != nil {
		source, _ := netip.AddrFromSlice(answer.Src)
		t.source = source.Unmap()
	}
	if answer.Gw != nil {
		t.gateway, _ = netip.AddrFromSlice(answer.Gw)
	}
	if via, ok := answer.Via.(*netlink.Via); ok { // an IPv4 route by an IPv6 router
		t.gateway, _ = netip.AddrFromSlice(via.Addr)
	}
	return t
}

// zoneIndex returns the index of an interface by its name or number, or 0.
func (r *Resolver) zoneIndex(zone string) int {
	for index, l := range r.links {
		if l.name == zone {
			return index
		}
	}
	index, err := strconv.Atoi(zone)
	if err != nil {
		return 0
	}
	return index
}

// update asks for the route to a watched address and holds the neighbour it
// leads to in place of the former one.
func (r *Resolver) update(w *watch) {
	next := r.lookup(w.addr)
	if next.lost {
		next.iface = w.route.iface // for the reason, if that interface is down
	}
	if !r.mayHold(next) || !r.mayHold(w.route) || next.neighbour(w.addr) != w.route.neighbour(w.addr) {
		r.release(w)
	}
	w.route = next
	if r.mayHold(next) {
		r.retain(w)
	}
}

// mayHold reports whether the route leads to a neighbour of ours.
func (r *Resolver) mayHold(t route) bool { return t.problem == "" && r.isAttached(t.iface) }
