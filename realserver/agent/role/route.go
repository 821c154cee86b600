package role

import (
	"fmt"
	"net/netip"
	"slices"
)

// judgeRoutes wants NAT's replies to go back by the director, which puts the virtual
// address in. It looks at the main table.
func judgeRoutes(r Role, s *snapshot) []Finding {
	if !r.has(NAT) {
		return nil
	}
	var all []Finding
	for _, clients := range r.Clients {
		var directors []netip.Addr
		for _, a := range r.gateways() {
			if a.Is4() == clients.Addr().Is4() {
				directors = append(directors, a)
			}
		}
		if len(directors) == 0 {
			continue
		}
		all = append(all, judgeRoute(clients, directors, r.Route, s)...)
	}
	return all
}

func judgeRoute(clients netip.Prefix, directors []netip.Addr, isWanted bool, s *snapshot) []Finding {
	isBack := func(to route) bool {
		return len(to.gateways) > 0 && !slices.ContainsFunc(to.gateways, func(g netip.Addr) bool { return !slices.Contains(directors, g) })
	}
	var all []Finding
	for _, p := range parts(clients) {
		best, found := s.best(p)
		if found && isBack(best) {
			continue
		}
		back := "there is no route to them"
		if found {
			back = "they are answered " + best.String()
		}
		f := Finding{
			Severity: Problem, Subject: "clients " + text(clients),
			Text: back + ", not by the director, which then cannot put the virtual address in",
			Mend: fmt.Sprintf("ip route replace %s via %s", clients, directors[0]),
		}
		switch {
		case s.has(directors[0]):
			f.Text, f.Mend, f.blocks = fmt.Sprintf("%s is this host's own address, and no director's: a route by it leads nowhere", directors[0]), "", isWanted
		case !s.isNear(directors[0]):
			f.Text, f.Mend, f.blocks = fmt.Sprintf("%s; %s is in none of the host's networks, as a gateway has to be", back, directors[0]), "", isWanted
		case isWanted:
			f.changes, f.blocks = routesBack(clients, directors[0], s)
			if f.blocks {
				f.Text += "; a route of exactly these clients is another's, and is left alone"
			}
		}
		all = append(all, f)
		break
	}
	for _, to := range s.routes {
		if covers(clients, to.to) && to.to.Bits() > clients.Bits()+1 && len(to.gateways) > 0 && !isBack(to) {
			all = append(all, Finding{
				Severity: Note, Subject: "clients " + text(to.to), Text: "they are answered " + to.String() + ", not by the director",
			})
		}
	}
	return all
}

// routesBack are the routes to be added. What is there is not replaced: where there is a
// route of the same prefix, one of each half of it goes before that.
func routesBack(clients netip.Prefix, director netip.Addr, s *snapshot) (changes []Change, isTaken bool) {
	wanted := []netip.Prefix{clients}
	if s.hasRoute(clients) {
		wanted = parts(clients)
		if len(wanted) == 1 || slices.ContainsFunc(wanted, s.hasRoute) {
			return nil, true
		}
	}
	for _, p := range wanted {
		changes = append(changes, Change{Object: Object{kindRoute, p.String() + " via " + director.String()}, After: present})
	}
	return changes, false
}

// parts are the halves of a prefix, or the prefix if it has none.
func parts(p netip.Prefix) []netip.Prefix {
	if p.IsSingleIP() {
		return []netip.Prefix{p}
	}
	upper := p.Addr().AsSlice()
	upper[p.Bits()/8] |= 1 << (7 - p.Bits()%8)
	a, _ := netip.AddrFromSlice(upper)
	return []netip.Prefix{netip.PrefixFrom(p.Addr(), p.Bits()+1), netip.PrefixFrom(a, p.Bits()+1)}
}

// route is one of the main table.
type route struct {
	to       netip.Prefix
	gateways []netip.Addr // none: it is a network of the host's
	iface    string
	metric   int
}

// String says by what it leads.
func (r route) String() string {
	if len(r.gateways) == 0 {
		return "directly on " + r.iface
	}
	return fmt.Sprintf("by %s", r.gateways[0])
}

// best is the route that counts for all of the prefix.
func (s *snapshot) best(p netip.Prefix) (route, bool) {
	var best route
	found := false
	for _, r := range s.routes {
		if r.to.Addr().Is4() != p.Addr().Is4() || !covers(r.to, p) {
			continue
		}
		if !found || r.to.Bits() > best.to.Bits() || r.to.Bits() == best.to.Bits() && r.metric < best.metric {
			best, found = r, true
		}
	}
	return best, found
}

// isNear reports whether the address is in a network of the host's.
func (s *snapshot) isNear(a netip.Addr) bool {
	if to, found := s.best(netip.PrefixFrom(a, a.BitLen())); found && len(to.gateways) == 0 {
		return true
	}
	return slices.ContainsFunc(s.links, func(l linkState) bool {
		return slices.ContainsFunc(l.addresses, func(p netip.Prefix) bool { return !p.IsSingleIP() && p.Contains(a) })
	})
}

func (s *snapshot) hasRoute(p netip.Prefix) bool {
	return slices.ContainsFunc(s.routes, func(r route) bool { return r.to == p })
}
