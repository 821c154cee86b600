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

// vips adds virtual addresses to the loopback interface, where they are
// answered for on every interface and routed nowhere.
type vips struct {
	handle *netlink.Handle
	lo     netlink.Link
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
	return &vips{handle, lo}, nil
}

func (v *vips) close() { v.handle.Close() }

// label marks our IPv4 addresses.
const label = "lo:shunt"

// add puts the address on the host; one that is there by our doing stays, one
// that is there by somebody else's is refused.
func (v *vips) add(a netip.Addr) error {
	if owner, err := v.owner(a); err != nil {
		return err
	} else if owner != "" {
		return fmt.Errorf("virtual address %s is on %s already: %w: remove it there or set vip: external", a, owner, director.ErrExists)
	}
	if err := v.handle.AddrAdd(v.lo, hostAddress(a)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add virtual address %s to lo: %w", a, err)
	}
	return nil
}

// owner names the interface that has the address by somebody else's doing; empty
// if none has. On lo, ours are known by their label; IPv6 addresses have none, so
// that a /128 on lo is taken for ours.
func (v *vips) owner(a netip.Addr) (string, error) {
	addrs, err := v.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return "", fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, have := range addrs {
		if !have.IP.Equal(a.AsSlice()) {
			continue
		}
		ours := hostAddress(a)
		if ones, _ := have.Mask.Size(); have.LinkIndex == v.lo.Attrs().Index && have.Label == ours.Label && ones == a.BitLen() {
			continue
		}
		name := fmt.Sprintf("interface %d", have.LinkIndex)
		if l, err := v.handle.LinkByIndex(have.LinkIndex); err == nil {
			name = l.Attrs().Name
		}
		return name, nil
	}
	return "", nil
}

// remove takes the address off the host; one that is not there is gone.
func (v *vips) remove(a netip.Addr) error {
	err := v.handle.AddrDel(v.lo, hostAddress(a))
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove virtual address %s from lo: %w", a, err)
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
