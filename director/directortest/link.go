package directortest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// xdpPass is enum xdp_action's XDP_PASS and xdpHasFrags BPF_F_XDP_HAS_FRAGS
// (kernel: include/uapi/linux/bpf.h).
const (
	xdpPass     = 2
	xdpHasFrags = 1 << 5
)

// sourceTable is the routing table of routes by source.
const sourceTable = 100

// AddVeth makes a pair of connected interfaces, link in n and peerLink in peer,
// and sets both up. An mtu of 0 is the kernel's 1500.
func (n *Namespace) AddVeth(name string, peer *Namespace, peerName string, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	err := n.route.LinkAdd(&netlink.Veth{
		LinkAttrs:     attrs,
		PeerName:      peerName,
		PeerMTU:       uint32(mtu),
		PeerNamespace: netlink.NsFd(peer.file.Fd()),
	})
	if err != nil {
		return fmt.Errorf("add veth %s in %s with peer %s in %s: %w", name, n.Name, peerName, peer.Name, err)
	}
	return errors.Join(n.up(name), peer.up(peerName))
}

// AddBridge makes a bridge over the named ports, which are links of n.
func (n *Namespace) AddBridge(name string, ports ...string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	snooping := false // no multicast groups: neighbour discovery goes everywhere
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := n.route.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge %s in %s: %w", name, n.Name, err)
	}
	for _, port := range ports {
		l, err := n.link(port)
		if err != nil {
			return err
		}
		if err := n.route.LinkSetMaster(l, bridge); err != nil {
			return fmt.Errorf("put %s into bridge %s in %s: %w", port, name, n.Name, err)
		}
	}
	return n.up(name)
}

// AddAddress puts an address on a link; one that is there stays.
func (n *Namespace) AddAddress(name string, prefix netip.Prefix) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(prefix), Flags: unix.IFA_F_NODAD}
	if prefix.Addr().Is4() {
		addr.Flags = 0
	}
	if err := n.route.AddrReplace(l, addr); err != nil {
		return fmt.Errorf("add address %s to %s in %s: %w", prefix, name, n.Name, err)
	}
	return nil
}

// AddRoute routes a destination through a gateway. 0.0.0.0/0 and ::/0 are the
// default routes.
func (n *Namespace) AddRoute(destination netip.Prefix, gateway netip.Addr) error {
	return n.replaceRoute(&netlink.Route{Dst: ipNet(destination), Gw: gateway.AsSlice()})
}

// SetPathMTU has the namespace know a small MTU towards a neighbour on a link: as a
// router it forwards nothing longer, and says so. 0 takes that back.
func (n *Namespace) SetPathMTU(neighbour netip.Addr, name string, mtu int) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	route := &netlink.Route{
		Dst: ipNet(netip.PrefixFrom(neighbour, neighbour.BitLen())), LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK,
	}
	if mtu == 0 {
		if err := n.route.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route %s in %s: %w", route, n.Name, err)
		}
		return nil
	}
	// Of IPv6 only a locked one is heeded by what is forwarded
	// (kernel: include/net/ip6_route.h, ip6_dst_mtu_maybe_forward).
	route.MTU, route.MTULock = mtu, true
	return n.replaceRoute(route)
}

// AddRouteFrom makes packets with the given source address reach a destination
// directly on a link, past the other routes. It uses routing table 100.
func (n *Namespace) AddRouteFrom(source netip.Addr, destination netip.Prefix, name string) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	route := &netlink.Route{
		Dst: ipNet(destination), LinkIndex: l.Attrs().Index, Table: sourceTable, Scope: netlink.SCOPE_LINK,
	}
	if err := n.replaceRoute(route); err != nil {
		return err
	}
	return n.addRuleFrom(source)
}

// AddRouteFromVia is AddRouteFrom by a gateway.
func (n *Namespace) AddRouteFromVia(source netip.Addr, destination netip.Prefix, gateway netip.Addr) error {
	route := &netlink.Route{Dst: ipNet(destination), Gw: gateway.AsSlice(), Table: sourceTable}
	if err := n.replaceRoute(route); err != nil {
		return err
	}
	return n.addRuleFrom(source)
}

func (n *Namespace) replaceRoute(route *netlink.Route) error {
	if err := n.route.RouteReplace(route); err != nil {
		return fmt.Errorf("add route %s in %s: %w", route, n.Name, err)
	}
	return nil
}

// addRuleFrom has packets with the source address look into the table of AddRouteFrom.
func (n *Namespace) addRuleFrom(source netip.Addr) error {
	rule := netlink.NewRule()
	rule.Src, rule.Table, rule.Family = ipNet(netip.PrefixFrom(source, source.BitLen())), sourceTable, unix.AF_INET
	if source.Is6() {
		rule.Family = unix.AF_INET6
	}
	if err := n.route.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add rule for packets from %s in %s: %w", source, n.Name, err)
	}
	return nil
}

// AttachPass attaches an XDP program that passes every packet in native mode: a
// veth needs one on its peer to deliver what XDP sends or redirects out of it.
// It stays until the returned link is closed.
func (n *Namespace) AttachPass(name string) (link.Link, error) {
	l, err := n.link(name)
	if err != nil {
		return nil, err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "lab_pass",
		Type:         ebpf.XDP,
		AttachType:   ebpf.AttachXDP, // so that another one can take its place
		Flags:        xdpHasFrags,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load the passing XDP program: %w", err)
	}
	defer program.Close() // the link holds it
	var attached link.Link
	err = n.Do(func() (err error) {
		attached, err = link.AttachXDP(link.XDPOptions{
			Program: program, Interface: l.Attrs().Index, Flags: link.XDPDriverMode,
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attach the passing XDP program to %s in %s: %w", name, n.Name, err)
	}
	return attached, nil
}

func (n *Namespace) up(name string) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.route.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up in %s: %w", name, n.Name, err)
	}
	return nil
}

func (n *Namespace) link(name string) (netlink.Link, error) {
	l, err := n.route.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s in %s: %w", name, n.Name, err)
	}
	return l, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
