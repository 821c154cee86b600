package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// label marks IPv4 addresses that Shunt has put on lo.
const label = "lo:shunt"

// checkVIP looks at whether the virtual addresses are where the services' owner
// and methods want them.
func checkVIP(i *inspection, r *report) {
	addrs, err := i.addresses()
	if err != nil {
		r.unknown("", err)
		return
	}
	pins, err := i.pins()
	if err != nil {
		r.unknown("", err)
	}
	vips := i.vips()
	var order []netip.Addr
	for vip := range vips {
		order = append(order, vip)
	}
	slices.SortFunc(order, netip.Addr.Compare)
	for _, vip := range order {
		s := vips[vip]
		var found []netlink.Addr
		for _, a := range addrs {
			if a.IP.Equal(vip.AsSlice()) {
				found = append(found, a)
				i.checkDuplicate(r, vip, a)
			}
		}
		if s.VIP == director.VIPExternal {
			i.checkExternal(r, s, found)
			continue
		}
		i.checkManaged(r, s, found, len(pins) > 0)
	}
}

// checkDuplicate looks at an IPv6 address that the kernel does not use because
// somebody else has it, or may have it.
func (i *inspection) checkDuplicate(r *report, vip netip.Addr, a netlink.Addr) {
	if a.Flags&unix.IFA_F_DADFAILED == 0 {
		return
	}
	bits, _ := a.Mask.Size()
	name := quote(i.linkName(a.LinkIndex))
	r.add(Error, vip.String(), fmt.Sprintf("virtual address %s on %s is a duplicate: another host answered for it", vip, i.linkName(a.LinkIndex)),
		"the kernel does not use the address: is another director up, or a dr server that does not keep quiet?",
		fmt.Sprintf("ip -6 address del %s/%d dev %s && ip -6 address add %s/%d dev %s nodad", vip, bits, name, vip, bits, name))
}

// checkManaged looks at an address that Shunt puts on lo.
func (i *inspection) checkManaged(r *report, s director.Service, found []netlink.Addr, attached bool) {
	vip := s.Key.Address.Addr()
	ours := false
	for _, a := range found {
		bits, _ := a.Mask.Size()
		name := i.linkName(a.LinkIndex)
		if name == "lo" && bits == vip.BitLen() && (vip.Is6() || a.Label == label) {
			ours = true
			continue
		}
		r.add(Error, vip.String(), fmt.Sprintf("virtual address %s is on %s already, by somebody else's doing, and %s says vip: managed", vip, name, ref(s)),
			"Shunt refuses the service: it would take the other's address away with it", fmt.Sprintf("ip address del %s/%d dev %s # or: shunt service edit %s --vip external", vip, bits, quote(name), quote(ref(s))))
		return
	}
	if !ours && attached {
		add := fmt.Sprintf("ip address add %s/32 dev lo label %s", vip, label)
		if vip.Is6() {
			add = fmt.Sprintf("ip -6 address add %s/128 dev lo nodad", vip)
		}
		r.add(Warning, vip.String(), fmt.Sprintf("virtual address %s is managed and not on lo", vip), "nobody answers for it on the links of the director; a daemon that runs puts it back", add)
	}
	if vip.Is6() {
		i.checkSolicited(r, s)
	}
}

// checkSolicited looks at a managed IPv6 address in the network of an interface.
// Unlike IPv4, neighbours are told of addresses of the interface they ask on
// alone (kernel: net/ipv6/ndisc.c, ndisc_recv_ns).
func (i *inspection) checkSolicited(r *report, s director.Service) {
	vip := s.Key.Address.Addr()
	name := i.onLink(vip)
	if name == "" || i.isProxied(vip, name) {
		return
	}
	r.add(Warning, vip.String(), fmt.Sprintf("virtual address %s is in the network of %s, and on lo", vip, name),
		"a host of that network asks on the link who has the address, and IPv6 answers for addresses of the interface alone: it must be routed to the director, or be on "+name,
		fmt.Sprintf("shunt service edit %s --vip external && ip -6 address add %s/128 dev %s nodad", quote(ref(s)), vip, quote(name)))
}

// checkExternal looks at an address that somebody else brings to the host.
func (i *inspection) checkExternal(r *report, s director.Service, found []netlink.Addr) {
	if len(found) > 0 {
		return
	}
	vip := s.Key.Address.Addr()
	add := fmt.Sprintf("ip address add %s/32 dev lo", vip)
	name := i.onLink(vip)
	if vip.Is6() {
		add = fmt.Sprintf("ip -6 address add %s/128 dev %s nodad", vip, quote(cmp.Or(name, "lo")))
	}
	local := slices.ContainsFunc(i.Services, func(s director.Service) bool {
		return s.Key.Address.Addr() == vip && slices.ContainsFunc(s.Servers, func(r realserver.Server) bool { return r.Method == realserver.Local })
	})
	switch {
	case local:
		r.add(Error, vip.String(), fmt.Sprintf("virtual address %s has servers with method local and is not on the host", vip),
			"the stack takes packets for addresses it has, and drops or forwards the others", add)
	case name != "" && !i.isProxied(vip, name):
		r.add(Warning, vip.String(), fmt.Sprintf("external virtual address %s is in the network of %s and not on the host", vip, name),
			"nobody on this host answers when that network asks who has the address: packets come only while another host says it is here", add)
	case name == "":
		r.add(Info, vip.String(), fmt.Sprintf("external virtual address %s is not on the host, nor in the network of a named interface", vip),
			"packets come if a router has a route to it by this host, and only then", "")
	}
}

// onLink returns the named interface in whose network the address is; empty if
// there is none.
func (i *inspection) onLink(vip netip.Addr) string {
	addrs, err := i.addresses()
	if err != nil {
		return "" // checkVIP has reported it
	}
	for _, a := range addrs {
		name := i.linkName(a.LinkIndex)
		bits, _ := a.Mask.Size()
		if i.isNamed(name) && bits < vip.BitLen() && a.IPNet.Contains(vip.AsSlice()) {
			return name
		}
	}
	return ""
}

// isProxied reports whether the host answers for the address on the interface
// without having it.
func (i *inspection) isProxied(vip netip.Addr, name string) bool {
	family := netlink.FAMILY_V4
	if vip.Is6() {
		family = netlink.FAMILY_V6
	}
	proxies, err := i.route.NeighProxyList(i.byName[name].Attrs().Index, family)
	return err == nil && slices.ContainsFunc(proxies, func(n netlink.Neigh) bool { return n.IP.Equal(vip.AsSlice()) })
}
