package role

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// judgeVIPs wants every virtual address on lo, alone in its prefix.
func judgeVIPs(r Role, s *snapshot) []Finding {
	if !r.has(DR) && !r.tunnels() {
		return nil
	}
	var all []Finding
	if lo := s.loopback(); lo != nil && !lo.up {
		all = append(all, Finding{
			Severity: Problem, Subject: lo.name, Text: "it is down: the host accepts no packets for addresses on it",
			Mend: "ip link set " + lo.name + " up", blocks: true,
		})
	}
	for _, vip := range r.VIPs {
		if whose := owner(vip, r, s); whose != "" {
			all = append(all, Finding{
				Severity: Problem, Subject: text(vip), Text: whose + ", which the host could not reach any more, or take packets from", blocks: true,
			})
		} else if vip.IsSingleIP() {
			all = append(all, judgeVIP(vip, s)...)
		} else if !slices.ContainsFunc(s.locals, func(p netip.Prefix) bool { return covers(p, vip) }) {
			all = append(all, Finding{
				Severity: Problem, Subject: text(vip), Text: "the host does not accept its packets", Mend: "ip route add local " + vip.String() + " dev lo",
				changes: []Change{{Object: Object{kindLocal, vip.String()}, After: present}},
			})
		}
	}
	return all
}

// owner says whose address is among virtual ones, and cannot be; "" if nobody's is.
func owner(vip netip.Prefix, r Role, s *snapshot) string {
	of := func(a netip.Addr, what string) string {
		if vip.IsSingleIP() {
			return "it is " + what
		}
		return fmt.Sprintf("%s is among them, %s", a, what)
	}
	for _, a := range r.gateways() {
		if vip.Contains(a) {
			return of(a, "a director's own address")
		}
	}
	for _, to := range s.routes {
		for _, a := range to.gateways {
			if vip.Contains(a) {
				return of(a, "a gateway's address")
			}
		}
	}
	for _, link := range s.links {
		for _, p := range link.addresses {
			// One alone that an interface has is judged as that.
			if !link.own && !vip.IsSingleIP() && vip.Contains(p.Addr()) {
				return of(p.Addr(), "the address of "+link.name)
			}
		}
	}
	return ""
}

func judgeVIP(vip netip.Prefix, s *snapshot) []Finding {
	var all []Finding
	there := false
	for _, link := range s.links {
		for _, p := range link.addresses {
			if p.Addr() != vip.Addr() {
				continue
			}
			there = true
			remove := fmt.Sprintf("ip address del %s dev %s", p, link.name)
			switch {
			case !link.own:
				all = append(all, Finding{
					Severity: Problem, Subject: text(vip), Text: "it is on " + link.name + ", which tells its network that it is there, whatever arp_ignore is: clients' packets pass the director by",
					Mend: remove + " && " + addVIP(vip), blocks: true,
				})
			case p.Bits() != vip.Bits():
				all = append(all, Finding{
					Severity: Problem, Subject: text(vip), Text: fmt.Sprintf("it is on %s with the length %d: the host takes all of %s for its own", link.name, p.Bits(), p.Masked()),
					Mend: remove + " && " + addVIP(vip), blocks: true,
				})
			}
		}
	}
	if there || slices.ContainsFunc(s.locals, func(p netip.Prefix) bool { return covers(p, vip) }) {
		return all
	}
	return append(all, Finding{
		Severity: Problem, Subject: text(vip), Text: "it is not on this host, which does not accept its packets", Mend: addVIP(vip),
		changes: []Change{{Object: Object{kindAddress, "lo " + vip.String()}, After: present}},
	})
}

// addVIP is the command. Duplicate address detection would keep an address of IPv6 from
// being used at first, and find the other servers.
func addVIP(vip netip.Prefix) string {
	command := []string{"ip address add", vip.String(), "dev lo"}
	if vip.Addr().Is6() {
		command = append(command, "nodad")
	}
	return strings.Join(command, " ")
}

// covers reports whether all of inner is in outer.
func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
