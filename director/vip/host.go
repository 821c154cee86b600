package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
)

// Host is the addresses of the host whose network namespace Open was called in.
// Not safe for concurrent use. The caller closes it.
type Host struct {
	handle *netlink.Handle
	lo     netlink.Link
	// hosts are the host's addresses while a run of changes lasts; nil: not read.
	hosts map[netip.Addr][]netlink.Addr
}

// Open returns the host's addresses: those of the calling thread's network
// namespace, wherever the methods are called later.
func Open() (*Host, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket for addresses: %w", err)
	}
	lo, err := handle.LinkByName("lo")
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("find the loopback interface: %w", err)
	}
	return &Host{handle: handle, lo: lo}, nil
}

// Close releases the socket; addresses stay.
func (h *Host) Close() { h.handle.Close() }

// Label marks our IPv4 addresses (ip -4 address show label lo:shunt).
const Label = "lo:shunt"

// Forget has the next Add read the host's addresses anew: call it before a run of
// changes.
func (h *Host) Forget() { h.hosts = nil }

// Add puts the address, or the prefix of several, on the host and says whether it
// did; what is there by our doing stays. What is there by somebody else's is
// refused: director.ErrExists.
func (h *Host) Add(p netip.Prefix) (bool, error) {
	if h.hosts == nil {
		if err := h.read(); err != nil {
			return false, err
		}
	}
	if !p.IsSingleIP() {
		return h.addRoute(p)
	}
	a := p.Addr()
	for i := range h.hosts[a] {
		if !h.isOurs(&h.hosts[a][i]) {
			return false, fmt.Errorf("virtual address %s is on %s already: %w: remove it there or set vip: external",
				a, h.interfaceOf(&h.hosts[a][i]), director.ErrExists)
		}
	}
	if len(h.hosts[a]) > 0 {
		return false, nil
	}
	added := hostAddress(a)
	if err := h.handle.AddrAdd(h.lo, added); err != nil && !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("add virtual address %s to lo: %w", a, err)
	}
	added.LinkIndex = h.lo.Attrs().Index
	h.hosts[a] = append(h.hosts[a], *added)
	return true, nil
}

// Addresses reads which single addresses are on the host by our doing, each as a
// prefix of full length.
func (h *Host) Addresses() (map[netip.Prefix]bool, error) {
	if err := h.read(); err != nil {
		return nil, err
	}
	ours := map[netip.Prefix]bool{}
	for a, hosts := range h.hosts {
		for i := range hosts {
			if h.isOurs(&hosts[i]) {
				ours[netip.PrefixFrom(a, a.BitLen())] = true
			}
		}
	}
	return ours, nil
}

// Remove takes the address or prefix off the host; one that is not there is gone.
// An IPv4 address with another label stays.
func (h *Host) Remove(p netip.Prefix) error {
	if !p.IsSingleIP() {
		return h.removeRoute(p)
	}
	err := h.handle.AddrDel(h.lo, hostAddress(p.Addr()))
	h.drop(p.Addr())
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove virtual address %s from lo: %w", p.Addr(), err)
	}
	return nil
}

func (h *Host) read() error {
	addrs, err := h.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the host's addresses: %w", err)
	}
	h.hosts = make(map[netip.Addr][]netlink.Addr, len(addrs))
	for _, have := range addrs {
		if a, ok := netip.AddrFromSlice(have.IP); ok {
			h.hosts[a.Unmap()] = append(h.hosts[a.Unmap()], have)
		}
	}
	return nil
}

// isOurs says whether an address is on the host by our doing. On lo, ours are
// known by their label; IPv6 addresses have none, so that a /128 on lo is taken
// for ours.
func (h *Host) isOurs(have *netlink.Addr) bool {
	a, ok := netip.AddrFromSlice(have.IP)
	if !ok {
		return false
	}
	a = a.Unmap()
	ones, _ := have.Mask.Size()
	return have.LinkIndex == h.lo.Attrs().Index && have.Label == hostAddress(a).Label && ones == a.BitLen()
}

func (h *Host) interfaceOf(have *netlink.Addr) string {
	if l, err := h.handle.LinkByIndex(have.LinkIndex); err == nil {
		return l.Attrs().Name
	}
	return fmt.Sprintf("interface %d", have.LinkIndex)
}

// drop forgets our address.
func (h *Host) drop(a netip.Addr) {
	if h.hosts == nil {
		return
	}
	h.hosts[a] = slices.DeleteFunc(h.hosts[a], func(have netlink.Addr) bool { return h.isOurs(&have) })
}

func hostAddress(a netip.Addr) *netlink.Addr {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD // nobody else may have it: it is ours by configuration
	} else {
		addr.Label = Label
	}
	return addr
}
