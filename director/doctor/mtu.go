package doctor

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// overhead is what the method adds to a packet.
func (i *inspection) overhead(s realserver.Server) int {
	if s.Method != realserver.Tunnel {
		return 0
	}
	n := s.Tunnel.Overhead(s.Address.Addr())
	if t := s.Tunnel; t.Type == realserver.TunnelGUE && t.Checksum == realserver.TunnelRemoteChecksum && i.Dataplane == director.PlaneIPVS {
		n += 8 // of packets whose checksum is left to a card (kernel: ip_vs_xmit.c, ipvs_gue_encap)
	}
	return n
}

// singleBufferMTU is about what fits into one page with XDP's headroom and the
// kernel's shared info; longer packets take several buffers.
const singleBufferMTU = 3498

// checkMTU looks at packets that come in and cannot go on.
func checkMTU(i *inspection, r *report) {
	for _, l := range i.named() {
		name, mtu := l.Attrs().Name, l.Attrs().MTU
		if can, err := features(l); err == nil && mtu > singleBufferMTU && !i.Generic && can&featureBasic != 0 && can&featureRXBuffers == 0 {
			r.add(Error, name, fmt.Sprintf("%s has MTU %d, and its driver gives XDP one buffer a packet", name, mtu),
				"attaching is refused above about 3500 bytes", fmt.Sprintf("ip link set dev %s mtu %d", quote(name), singleBufferMTU))
		}
	}
	_, clients := i.sides()
	widest := 0
	for _, l := range clients {
		widest = max(widest, l.Attrs().MTU)
	}
	told := map[string]bool{}
	for _, w := range i.paths() {
		l, found := i.byName[w.link(i)]
		if w.err != nil || !found || !i.isNamed(l.Attrs().Name) {
			continue
		}
		if subject := fmt.Sprintf("%s %s", l.Attrs().Name, w.server.Method); !told[subject] {
			told[subject] = i.checkWay(r, w, l, widest, subject)
		}
	}
}

// checkWay looks at what fits a way to a server, of packets that have up to the
// widest MTU of clients' interfaces, and reports whether it had something to say.
func (i *inspection) checkWay(r *report, w way, l netlink.Link, widest int, subject string) bool {
	name, mtu, where := l.Attrs().Name, l.Attrs().MTU, "MTU"
	if w.route.MTU > 0 && w.route.MTU < mtu {
		mtu, where = w.route.MTU, "its route's MTU"
	}
	from := widest
	if from == 0 {
		from = l.Attrs().MTU // one arm: clients' packets come by the same interface
	}
	fit := mtu - i.overhead(w.server)
	unclamped, left := i.unclamped(w.server, fit)
	if fit >= from || !left {
		return false
	}
	fix := fmt.Sprintf("ip link set dev %s mtu %d", quote(name), from+i.overhead(w.server))
	if l.Attrs().MTU >= from+i.overhead(w.server) || widest == 0 {
		fix = "" // the route's, or both ways by one interface: no command widens it
	}
	severity, why := Warning, "longer packets are answered by \"fragmentation needed\" or dropped as too-big: clients that do not hear the answer hang"
	if mtu >= from && w.server.Method == realserver.Tunnel { // it is as tunnels are
		severity, why = Info, "clients are told to send shorter ones. Those that do not hear it, behind a firewall that drops ICMP, hang: a wider link to the servers, or shorter segments of TCP, keep them from that"
		if unclamped != "" && fix == "" {
			fix = unclamped
		} else if unclamped != "" {
			fix += " # or: " + unclamped
		}
	}
	r.add(severity, subject, fmt.Sprintf("clients' packets have up to %d bytes; to server %s (%s) by %s fit %d (%s)",
		from, w.server.Address.Addr(), w.server.Method, name, fit, where), why, fix)
	return true
}

// unclamped returns the command that has TCP of a service, one that has the server,
// send segments that fit; empty where none can be told so. It reports whether there
// is a service that may send longer packets.
func (i *inspection) unclamped(server realserver.Server, fit int) (command string, left bool) {
	for _, s := range i.Services {
		if !slices.ContainsFunc(s.Servers, func(o realserver.Server) bool {
			return o.Address.Addr() == server.Address.Addr() && o.Method == server.Method
		}) {
			continue
		}
		size, least := fit-40, director.MinMSS // IPv4's and TCP's headers
		if s.Key.Address.Addr().Is6() {
			size, least = fit-60, director.MinMSSIPv6
		}
		if s.MSS != 0 && int(s.MSS) <= size {
			continue
		}
		left = true
		if s.Key.Protocol == conntrack.TCP && i.Dataplane != director.PlaneIPVS && size >= least {
			return fmt.Sprintf("shunt service edit %s --mss %d", quote(ref(s)), size), true
		}
	}
	return "", left
}
