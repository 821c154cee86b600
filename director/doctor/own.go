package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// checkTunnels looks at whether what tunnels' packets come from leads back here.
func checkTunnels(i *inspection, r *report) {
	for _, p := range i.TunnelSources {
		if !i.reached(realserver.Tunnel, p.Addr().Is6()) {
			continue
		}
		local, err := i.isLocal(p)
		if err != nil {
			r.unknown(p.String(), err)
		} else if !local {
			r.add(Warning, p.String(), fmt.Sprintf("tunnels' packets come from %s, which is not of this host", p),
				"a router that finds one too long, or a server that does not take it, tells its source: what is told is lost, and long packets vanish without a word",
				addCommand(p, "lo"))
		}
	}
}

// checkFullNAT looks at the addresses that stand in for clients'.
func checkFullNAT(i *inspection, r *report) {
	vips, own := i.vips(), i.sources()
	for _, v6 := range []bool{false, true} {
		if !i.reached(realserver.FullNAT, v6) {
			continue
		}
		family := map[bool]string{false: "IPv4", true: "IPv6"}[v6]
		pool := slices.DeleteFunc(slices.Clone(i.LocalAddresses), func(p netip.Prefix) bool { return p.Addr().Is6() != v6 })
		if len(pool) == 0 {
			r.add(Error, family, "servers have method fullnat, and director.fullnat.addresses has no "+family+" address",
				"no address can stand in for a client's: all new connections to these servers are dropped as local-ports",
				"add an "+family+" address to director.fullnat.addresses that is this host's and used for nothing else, then: systemctl restart shuntd")
		}
		for _, p := range pool {
			i.checkLocal(r, p)
			for vip := range vips {
				if p.Contains(vip) {
					r.add(Error, p.String(), fmt.Sprintf("%s of full NAT has the virtual address %s", p, vip),
						"clients' packets and servers' replies come to one address: what the one sends can be taken for the other's",
						"name another address in director.fullnat.addresses, then: systemctl restart shuntd")
				}
			}
			for _, addr := range own {
				if p.Contains(addr) {
					r.add(Warning, p.String(), fmt.Sprintf("%s of full NAT has %s, which this host's own packets to servers come from", p, addr),
						"a connection of the host itself (a check, a shell) can have the port that stands in for a client's: its replies are then the client's",
						"name an address in director.fullnat.addresses that is used for nothing else, then: systemctl restart shuntd")
				}
			}
		}
	}
}

// checkLocal looks at whether servers' replies to the addresses come here. Shunt puts
// them on lo, but for those that are on the host by somebody else's doing.
func (i *inspection) checkLocal(r *report, p netip.Prefix) {
	if name := i.onLink(p.Addr()); p.Addr().Is6() && name != "" && !i.answersFor(p, name) {
		// Kernel: net/ipv6/ndisc.c, ndisc_recv_ns, knows addresses of the interface alone.
		fix := "name single addresses in director.fullnat.addresses and put them on " + name + ", or have a prefix routed to this host"
		if p.IsSingleIP() {
			fix = addCommand(p, name)
		}
		r.add(Error, p.String(), fmt.Sprintf("%s of full NAT is in the network of %s, and not on it", p, name),
			"a server of that network asks on the link who has the address, and IPv6 answers for addresses of the interface alone, not for those on lo: no reply comes", fix)
		return
	}
	local, err := i.isLocal(p)
	pins, pinsErr := i.pins() // checkVIP tells of an error
	switch {
	case err != nil:
		r.unknown(p.String(), err)
	case !local && (len(pins) > 0 || pinsErr != nil):
		fix := "systemctl restart shuntd"
		if p.IsSingleIP() {
			fix = addCommand(p, "lo")
		}
		r.add(Warning, p.String(), fmt.Sprintf("%s of full NAT is not on this host", p),
			"servers' replies to it come to nobody: no connection gets further than its first packet; a daemon that runs puts it back", fix)
	}
}

// isLocal reports whether the host takes packets to the prefix for its own: to its
// first and last address, which stand for all.
func (i *inspection) isLocal(p netip.Prefix) (bool, error) {
	for _, addr := range []netip.Addr{p.Addr(), lastOf(p)} {
		routes, err := i.route.RouteGet(addr.AsSlice())
		if err != nil && !isUnroutable(err) {
			return false, fmt.Errorf("ask for the route to %s: %w", addr, err)
		}
		if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_LOCAL {
			return false, nil
		}
	}
	return true, nil
}

// isUnroutable reports whether the kernel says that there is no route.
func isUnroutable(err error) bool {
	return slices.Contains([]error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL}, err)
}

// answersFor reports whether the address is the interface's.
func (i *inspection) answersFor(p netip.Prefix, name string) bool {
	addrs, err := i.addresses()
	return err == nil && p.IsSingleIP() && slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
		return a.IP.Equal(p.Addr().AsSlice()) && i.linkName(a.LinkIndex) == name
	})
}

// addCommand makes the address the interface's, or all of the prefix the host's.
func addCommand(p netip.Prefix, name string) string {
	family, flags := "", ""
	switch {
	case p.Addr().Is6() && name != "lo":
		// One that is preferred is taken for the host's own packets, too (RFC 6724 §5).
		family, flags = " -6", " nodad preferred_lft 0"
	case p.Addr().Is6():
		family, flags = " -6", " nodad"
	}
	if !p.IsSingleIP() {
		return fmt.Sprintf("ip%s route add local %s dev lo", family, p)
	}
	return fmt.Sprintf("ip%s address add %s dev %s%s", family, p, quote(name), flags)
}

// reached reports whether a server of the address family is reached by the method.
func (i *inspection) reached(method realserver.Method, v6 bool) bool {
	return slices.ContainsFunc(i.Services, func(s director.Service) bool {
		return slices.ContainsFunc(s.Servers, func(r realserver.Server) bool { return r.Method == method && r.Address.Addr().Is6() == v6 })
	})
}

// sources returns what the host's own packets to servers of full NAT come from.
func (i *inspection) sources() []netip.Addr {
	var all []netip.Addr
	for _, w := range i.paths() {
		if w.server.Method != realserver.FullNAT || w.err != nil || w.route.Type == unix.RTN_LOCAL {
			continue
		}
		if addr, ok := netip.AddrFromSlice(w.route.Src); ok && !slices.Contains(all, addr.Unmap()) {
			all = append(all, addr.Unmap())
		}
	}
	return all
}
