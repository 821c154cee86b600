package xdp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
)

// vips adds virtual addresses to the loopback interface, where they are answered for
// on every interface and routed nowhere. A prefix becomes a local route there, which
// makes all its addresses the host's; of IPv6, no neighbour is told so: its routers
// need a route to this host.
type vips struct {
	handle *netlink.Handle
	lo     netlink.Link
	// hosts are the host's addresses while a run of changes lasts; nil: not read.
	hosts map[netip.Addr][]netlink.Addr
}

// newVIPs works in the network namespace of the calling thread.
func newVIPs() (*vips, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket for addresses: %w", err)
	}
	lo, err := handle.LinkByName("lo")
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("find the loopback interface: %w", err)
	}
	return &vips{handle: handle, lo: lo}, nil
}

func (v *vips) close() { v.handle.Close() }

// label marks our IPv4 addresses.
const label = "lo:shunt"

// forget has the host's addresses read anew.
func (v *vips) forget() { v.hosts = nil }

// add puts the address, or the prefix of several, on the host and says whether it
// did; what is there by our doing stays, what is there by somebody else's is refused.
func (v *vips) add(p netip.Prefix) (bool, error) {
	if v.hosts == nil {
		if err := v.read(); err != nil {
			return false, err
		}
	}
	if !p.IsSingleIP() {
		return v.addRoute(p)
	}
	a := p.Addr()
	for i := range v.hosts[a] {
		if !v.isOurs(&v.hosts[a][i]) {
			return false, fmt.Errorf("virtual address %s is on %s already: %w: remove it there or set vip: external",
				a, v.interfaceOf(&v.hosts[a][i]), director.ErrExists)
		}
	}
	if len(v.hosts[a]) > 0 {
		return false, nil
	}
	added := hostAddress(a)
	if err := v.handle.AddrAdd(v.lo, added); err != nil && !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("add virtual address %s to lo: %w", a, err)
	}
	added.LinkIndex = v.lo.Attrs().Index
	v.hosts[a] = append(v.hosts[a], *added)
	return true, nil
}

// list returns what is on the host by our doing; routes are looked for if any are
// expected.
func (v *vips) list(routes bool) (map[netip.Prefix]bool, error) {
	if err := v.read(); err != nil {
		return nil, err
	}
	ours := map[netip.Prefix]bool{}
	for a, hosts := range v.hosts {
		for i := range hosts {
			if v.isOurs(&hosts[i]) {
				ours[host(a)] = true
			}
		}
	}
	if routes {
		if err := v.listRoutes(ours); err != nil {
			return nil, err
		}
	}
	return ours, nil
}

func (v *vips) read() error {
	addrs, err := v.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the host's addresses: %w", err)
	}
	v.hosts = make(map[netip.Addr][]netlink.Addr, len(addrs))
	for _, have := range addrs {
		if a, ok := netip.AddrFromSlice(have.IP); ok {
			v.hosts[a.Unmap()] = append(v.hosts[a.Unmap()], have)
		}
	}
	return nil
}

// isOurs says whether an address is on the host by our doing. On lo, ours are
// known by their label; IPv6 addresses have none, so that a /128 on lo is taken
// for ours.
func (v *vips) isOurs(have *netlink.Addr) bool {
	a, ok := netip.AddrFromSlice(have.IP)
	if !ok {
		return false
	}
	a = a.Unmap()
	ones, _ := have.Mask.Size()
	return have.LinkIndex == v.lo.Attrs().Index && have.Label == hostAddress(a).Label && ones == a.BitLen()
}

func (v *vips) interfaceOf(have *netlink.Addr) string {
	if l, err := v.handle.LinkByIndex(have.LinkIndex); err == nil {
		return l.Attrs().Name
	}
	return fmt.Sprintf("interface %d", have.LinkIndex)
}

// remove takes the address or prefix off the host; one that is not there is gone.
func (v *vips) remove(p netip.Prefix) error {
	if !p.IsSingleIP() {
		return v.removeRoute(p)
	}
	err := v.handle.AddrDel(v.lo, hostAddress(p.Addr()))
	delete(v.hosts, p.Addr())
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove virtual address %s from lo: %w", p.Addr(), err)
	}
	return nil
}

func hostAddress(a netip.Addr) *netlink.Addr {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD // nobody else may have it: it is ours by configuration
	} else {
		addr.Label = label
	}
	return addr
}
