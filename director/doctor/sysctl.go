package doctor

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// checkForwarding looks at whether the stack can help with nat's replies.
func checkForwarding(i *inspection, r *report) {
	for _, family := range []struct {
		v6   bool
		knob string
		file string
		note string
	}{
		{false, "net.ipv4.ip_forward", "proc/sys/net/ipv4/ip_forward", ""},
		{true, "net.ipv6.conf.all.forwarding", "proc/sys/net/ipv6/conf/all/forwarding", "; and sets accept_ra to 2 where the default route comes from a router's advertisement"},
	} {
		if !i.uses(realserver.NAT, family.v6) && !i.uses(realserver.FullNAT, family.v6) {
			continue
		}
		on, err := i.number(family.file)
		if err != nil {
			r.unknown(family.knob, err)
		} else if on == 0 && i.Dataplane == director.PlaneIPVS {
			// Kernel: ip_vs_core.c, ip_vs_out's hook is FORWARD.
			r.add(Error, family.knob, family.knob+" is 0 and there are services with method nat",
				"the kernel's IPVS translates the servers' replies as they are forwarded: none comes to a client",
				"sysctl -w "+family.knob+"=1")
		} else if on == 0 {
			r.add(Info, family.knob, family.knob+" is 0 and there are services with method nat or fullnat",
				"a reply whose way back to the client is not known, or has failed, is dropped as no-route. With 1 it goes by the director's routes; who sets it makes the host a router for others too, and filters what it forwards"+family.note,
				"sysctl -w "+family.knob+"=1")
		}
	}
}

// checkRPFilter looks for interfaces that drop what does not come by the route
// back. The larger of all's and the interface's value holds.
func checkRPFilter(i *inspection, r *report) {
	for _, l := range i.named() {
		name := l.Attrs().Name
		all, own, err := i.conf(name, "rp_filter")
		if err != nil {
			r.unknown(name, err)
		} else if max(all, own) == 1 {
			r.add(Warning, name, fmt.Sprintf("rp_filter is strict on %s (all: %d, %s: %d; the larger one holds)", name, all, name, own),
				"what Shunt passes to the stack (method local, packets that are not the services', replies that go by the director's routes), and clients' ARP requests, are dropped without a word if the route back leads out of another interface",
				setConf("rp_filter", "2", name))
		}
	}
}

// checkRedirects looks for redirects that send servers past the director. They
// are sent if all or the interface says so.
func checkRedirects(i *inspection, r *report) {
	if !i.uses(realserver.NAT, false) {
		return
	}
	forward, err := i.number("proc/sys/net/ipv4/ip_forward")
	if err != nil {
		r.unknown("", err)
		return
	}
	servers, clients := i.sides()
	if forward == 0 || len(clients) > 0 {
		return // nothing is forwarded, or not out of the interface it came by
	}
	for _, l := range servers {
		name := l.Attrs().Name
		all, own, err := i.conf(name, "send_redirects")
		if err != nil {
			r.unknown(name, err)
		} else if all != 0 || own != 0 {
			r.add(Warning, name, fmt.Sprintf("send_redirects is on for %s, where clients and nat servers are", name),
				"when the stack forwards for a server, it tells the server to send to the client directly next time: past the director, which has to write the virtual address in",
				setConf("send_redirects", "0", "all", name))
		}
	}
}

// checkAcceptLocal looks at replies of dr servers that cross the director, which
// has their source address, the virtual one, itself.
func checkAcceptLocal(i *inspection, r *report) {
	_, clients := i.sides()
	if len(clients) == 0 {
		return
	}
	var looked []string
	for _, w := range i.paths() {
		if w.err != nil || w.server.Method != realserver.DR || !w.server.Address.Addr().Is4() {
			continue
		}
		name := w.link(i)
		if !i.isNamed(name) || slices.Contains(looked, name) {
			continue
		}
		held, err := i.holds(w.service)
		if err != nil {
			r.unknown(name, err)
			return
		}
		if !held {
			continue
		}
		looked = append(looked, name)
		all, own, err := i.conf(name, "accept_local")
		if err != nil {
			r.unknown(name, err)
		} else if all == 0 && own == 0 {
			r.add(Warning, name, fmt.Sprintf("accept_local is off for %s, behind which dr servers are, and the director has their virtual address", name),
				"if the director is these servers' router to the clients, it takes their replies for forged, since they come from its own address, and drops them; with another router it does not matter",
				setConf("accept_local", "1", name))
		}
	}
}

// holds reports whether the service's virtual address is, or will be, on the
// host.
func (i *inspection) holds(s director.Service) (bool, error) {
	if s.VIP != director.VIPExternal {
		return true, nil
	}
	addrs, err := i.addresses()
	return slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(s.Key.Address.Addr().AsSlice()) }), err
}

// checkARP looks for a director that keeps quiet about virtual addresses, as only
// dr's servers should. The larger of all's and the interface's value holds.
func checkARP(i *inspection, r *report) {
	vips := i.vips()
	if !slices.ContainsFunc(i.Services, func(s director.Service) bool {
		return s.Key.Address.Addr().Is4() && vips[s.Key.Address.Addr()].VIP != director.VIPExternal
	}) {
		return // those that are not ours may be on the interface, where arp_ignore does no harm
	}
	servers, clients := i.sides()
	if len(clients) == 0 {
		clients = servers
	}
	for _, l := range clients {
		name := l.Attrs().Name
		all, own, err := i.conf(name, "arp_ignore")
		if err != nil {
			r.unknown(name, err)
			continue
		}
		if ignore := max(all, own); ignore == 0 || ignore == 3 {
			continue // 3 keeps quiet about addresses of scope host, which ours are not
		}
		var set []string
		if all != 0 {
			set = append(set, "all")
		}
		if own != 0 {
			set = append(set, name)
		}
		r.add(Error, name, fmt.Sprintf("arp_ignore is %d on %s (all: %d, %s: %d; the larger one holds)", max(all, own), name, all, name, own),
			"virtual addresses are on lo: the director answers no ARP request for them, and what shares a link with it cannot reach them. The setting is for dr's servers",
			setConf("arp_ignore", "0", set...))
	}
}
