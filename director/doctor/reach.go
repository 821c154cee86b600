package doctor

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// checkRoutes looks at whether servers are reached by interfaces that the data
// plane uses.
func checkRoutes(i *inspection, r *report) {
	for _, w := range i.paths() {
		addr := w.server.Address.Addr().String()
		if w.err != nil {
			fix := ""
			if n := len(i.Interfaces); n > 0 {
				fix = fmt.Sprintf("ip route add %s/%d dev %s", addr, w.server.Address.Addr().BitLen(), quote(i.Interfaces[n-1]))
			}
			r.add(Error, addr, fmt.Sprintf("there is no route to server %s: %v", addr, w.err), "the server is shown as unreachable and gets no connections", fix)
			continue
		}
		if w.route.Type == unix.RTN_LOCAL {
			r.add(Error, addr, fmt.Sprintf("server %s with method %s is an address of the director itself", addr, w.server.Method),
				"packets to it leave by no interface: the server is unreachable. A process on the director is reached by method local",
				fmt.Sprintf("shunt server edit %s %s --method local", quote(ref(w.service)), quote(w.server.Address.String())))
			continue
		}
		name := w.link(i)
		if i.isNamed(name) {
			continue
		}
		why := "Shunt sends by the interfaces it is attached to: the server is unreachable"
		fix := fmt.Sprintf("add %s to director.interfaces, then: systemctl restart shuntd", quote(name))
		if l, found := i.byName[name]; found && l.Type() == "vlan" {
			why += ". A server must be reached without a VLAN tag, too"
			fix = "give the director an interface of its own in the servers' VLAN, and name that"
		}
		r.add(Error, addr, fmt.Sprintf("server %s is reached by %s, which is not named", addr, name), why, fix)
	}
}

// checkNeighbours looks at the neighbours that packets to servers go to.
func checkNeighbours(i *inspection, r *report) {
	type hop struct {
		link int
		addr netip.Addr
	}
	type table struct{ link, family int }
	seen := map[hop]bool{}
	states := map[table]map[netip.Addr]int{}
	for _, w := range i.paths() {
		h := hop{w.route.LinkIndex, w.hop()}
		if w.err != nil || w.route.Type == unix.RTN_LOCAL || seen[h] {
			continue
		}
		seen[h] = true
		t := table{h.link, netlink.FAMILY_V4}
		if h.addr.Is6() {
			t.family = netlink.FAMILY_V6
		}
		if _, read := states[t]; !read {
			states[t] = map[netip.Addr]int{}
			neighbours, err := i.route.NeighList(t.link, t.family)
			if err != nil {
				r.unknown(w.link(i), fmt.Errorf("list the neighbours of %s: %w", w.link(i), err))
			}
			for _, n := range neighbours {
				if addr, ok := netip.AddrFromSlice(n.IP); ok {
					states[t][addr.Unmap()] = n.State
				}
			}
		}
		i.reportNeighbour(r, w, states[t][h.addr])
	}
}

func (i *inspection) reportNeighbour(r *report, w way, state int) {
	addr, name := w.hop().String(), w.link(i)
	whom := "server " + addr
	if w.hop() != w.server.Address.Addr() {
		whom = fmt.Sprintf("%s, the router to server %s,", addr, w.server.Address.Addr())
	}
	switch {
	case state&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0:
		r.add(Error, addr, fmt.Sprintf("%s does not answer on %s", whom, name),
			"without its MAC address nothing can be sent to it: servers behind it are unreachable. Is it up, with this address, on this link?",
			// Has the kernel ask anew, and keep asking, as the daemon does.
			fmt.Sprintf("ip neigh replace %s dev %s managed", addr, quote(name)))
	case state&unix.NUD_PERMANENT != 0:
		r.add(Info, addr, fmt.Sprintf("the MAC address of %s is set by hand on %s", whom, name),
			"it is kept whatever happens: a server that fails or gets another card goes unnoticed", fmt.Sprintf("ip neigh del %s dev %s", addr, quote(name)))
	}
}
