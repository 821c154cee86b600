package role

import (
	"net/netip"
	"slices"
)

// judgePorts wants someone to listen on the services' ports where packets come for: the
// virtual addresses, or the host's own with NAT.
func judgePorts(r Role, s *snapshot) []Finding {
	var all []Finding
	for _, port := range r.Ports {
		var heard []netip.Addr
		for network, listeners := range s.listening {
			for _, l := range listeners {
				if l.Port() == port.Number && (port.Network == "" || port.Network == network) {
					heard = append(heard, l.Addr())
				}
			}
		}
		if port.Own || !r.has(DR) && !r.tunnels() {
			if !slices.ContainsFunc(heard, func(a netip.Addr) bool { return !a.IsLoopback() }) {
				all = append(all, Finding{Severity: Problem, Subject: "port " + port.String(), Text: "nobody listens on it"})
			}
			continue
		}
		for _, vip := range r.VIPs {
			isIt := func(a netip.Addr) bool {
				// A socket of all addresses of IPv6 has those of IPv4 too (ipv6(7), IPV6_V6ONLY).
				return a == vip.Addr() || a == netip.IPv6Unspecified() || a.IsUnspecified() && vip.Addr().Is4()
			}
			if vip.IsSingleIP() && !slices.ContainsFunc(heard, isIt) {
				all = append(all, Finding{
					Severity: Problem, Subject: "port " + port.String(),
					Text: "nobody listens on it at " + text(vip) + ": have the server listen there, or at all addresses",
				})
			}
		}
	}
	return all
}
