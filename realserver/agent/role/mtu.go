package role

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// clientMTU is that of most clients' packets, in octets.
const clientMTU = 1500

// judgeMTU says where clients' longest packets do not fit in their tunnel. That is no
// fault: the director tells clients so.
func judgeMTU(r Role, s *snapshot) []Finding {
	outer := netip.IPv4Unspecified()
	if slices.ContainsFunc(r.Directors, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		outer = netip.IPv6Unspecified()
	}
	overhead := 0
	for _, t := range r.types() {
		overhead = max(overhead, realserver.TunnelOptions{Type: t}.Overhead(outer))
	}
	if overhead == 0 {
		return nil
	}
	var all []Finding
	for _, name := range r.Interfaces {
		link := s.link(name)
		room := link.mtu - overhead
		if room >= clientMTU {
			continue
		}
		// IP and TCP without options (RFC 9293 §3.7.1).
		segment := room - 40
		if !r.hasIPv4() {
			segment = room - 60
		}
		all = append(all, Finding{
			Severity: Note, Subject: name,
			Text: fmt.Sprintf("its MTU of %d leaves clients' packets %d octets in their tunnels: the director tells clients, and those that do not heed it hang; an MTU of %d on the way from the director, or mss: %d of the service, spares them that",
				link.mtu, room, clientMTU+overhead, segment),
			Mend: fmt.Sprintf("ip link set %s mtu %d", name, clientMTU+overhead),
		})
	}
	return all
}
