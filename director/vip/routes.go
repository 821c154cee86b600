package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
)

// routeProtocol marks our routes: a number that neither the kernel nor a routing
// daemon has (kernel: include/uapi/linux/rtnetlink.h, RTPROT_*).
const routeProtocol = 83

// addRoute makes a local route of the prefix. A prefix that an address of the host
// is in is refused: the services would have the host's own packets.
func (h *Host) addRoute(p netip.Prefix) (bool, error) {
	for a, hosts := range h.hosts {
		for i := range hosts {
			if p.Contains(a) && !h.isOurs(&hosts[i]) {
				return false, fmt.Errorf("virtual addresses %s: %s is on %s, and the service would take the host's own packets: %w: choose a prefix without it",
					p, a, h.interfaceOf(&hosts[i]), director.ErrExists)
			}
		}
	}
	route := h.hostRoute(p)
	err := h.handle.RouteAdd(route)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("add local route %s: %w", p, err)
	}
	ours, err := h.Prefixes()
	if err != nil {
		return false, err
	}
	if !ours[p] {
		return false, fmt.Errorf("virtual addresses %s have a local route already: %w: remove it or set vip: external", p, director.ErrExists)
	}
	return false, nil
}

// removeRoute removes the prefix's route; one that is not there is gone.
func (h *Host) removeRoute(p netip.Prefix) error {
	if err := h.handle.RouteDel(h.hostRoute(p)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove local route %s: %w", p, err)
	}
	return nil
}

// Prefixes reads which prefixes of several addresses are on the host by our doing.
func (h *Host) Prefixes() (map[netip.Prefix]bool, error) {
	filter := &netlink.Route{
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Protocol: routeProtocol, LinkIndex: h.lo.Attrs().Index,
	}
	const mask = netlink.RT_FILTER_TABLE | netlink.RT_FILTER_TYPE | netlink.RT_FILTER_PROTOCOL | netlink.RT_FILTER_OIF
	ours := map[netip.Prefix]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.handle.RouteListFiltered(family, filter, mask)
		if err != nil {
			return nil, fmt.Errorf("list the host's local routes: %w", err)
		}
		for i := range routes {
			if dst := routes[i].Dst; dst != nil {
				a, _ := netip.AddrFromSlice(dst.IP)
				bits, _ := dst.Mask.Size()
				ours[netip.PrefixFrom(a.Unmap(), bits)] = true
			}
		}
	}
	return ours, nil
}

// hostRoute is ip route add local PREFIX dev lo.
func (h *Host) hostRoute(p netip.Prefix) *netlink.Route {
	route := &netlink.Route{
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Protocol: routeProtocol, LinkIndex: h.lo.Attrs().Index,
		Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
	}
	if p.Addr().Is4() {
		route.Scope = unix.RT_SCOPE_HOST
	}
	return route
}
