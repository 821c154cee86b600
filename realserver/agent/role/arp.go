package role

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// silent are the values of arp_ignore that keep an interface from answering for an
// address of another, 3 to 7 do not (kernel: net/ipv4/arp.c, arp_ignore).
var silent = []int{1, 2, 8}

// judgeARP wants interfaces not to answer ARP for virtual addresses on lo, and not to ask
// in their name. Of the settings of all and of the interface the greater counts
// (kernel: include/linux/inetdevice.h, IN_DEV_MAXCONF); both are set, so that it stays
// true if one is set anew. IPv6 answers for the addresses of the interface alone (kernel:
// net/ipv6/ndisc.c, ndisc_recv_ns).
//
// DR wants that always, as director, clients' router and server share a network; a
// tunnel where the virtual address is in a network of the host.
func judgeARP(r Role, s *snapshot) []Finding {
	if !r.hasIPv4() {
		return nil
	}
	var all []Finding
	for _, name := range r.Interfaces {
		link := s.link(name)
		isNear := func(vip netip.Prefix) bool {
			return slices.ContainsFunc(link.addresses, func(p netip.Prefix) bool { return !p.IsSingleIP() && p.Overlaps(vip) })
		}
		if !r.has(DR) && !(r.tunnels() && slices.ContainsFunc(r.VIPs, isNear)) {
			continue
		}
		if value, ok := s.effective(name, "arp_ignore"); ok && !slices.Contains(silent, value) {
			all = append(all, knobFinding(s, name, "arp_ignore", value, "1",
				"it answers ARP for the virtual addresses: clients' packets pass the director by", func(v int) bool { return slices.Contains(silent, v) }))
		}
		if value, ok := s.effective(name, "arp_announce"); ok && value < 2 {
			all = append(all, knobFinding(s, name, "arp_announce", value, "2",
				"it asks by ARP in the name of virtual addresses, by which others learn that they are here", func(v int) bool { return v >= 2 }))
		}
	}
	return all
}

// knobFinding is of a setting that is wrong for all or for the interface.
func knobFinding(s *snapshot, iface, name string, value int, want, text string, isRight func(int) bool) Finding {
	f := Finding{
		Severity: Problem, Subject: iface, Text: fmt.Sprintf("%s is %d: %s", name, value, text),
		Mend: fmt.Sprintf("sysctl -w net/ipv4/conf/all/%s=%s net/ipv4/conf/%s/%[1]s=%[2]s", name, want, iface),
	}
	for _, of := range []string{"all", iface} {
		if value, ok := s.knob(of, name); ok && !isRight(value) {
			f.changes = append(f.changes, Change{Object: Object{kindSysctl, knobPath(of, name)}, Before: strconv.Itoa(value), After: want})
		}
	}
	return f
}

// judgePaths wants packets of clients not to be dropped by where they come from: the route
// back to them need not be by the interface that the director's packets come by.
func judgePaths(r Role, s *snapshot) []Finding {
	if !r.has(DR) && !r.tunnels() || !r.hasIPv4() {
		return nil
	}
	var all []Finding
	for _, name := range r.Interfaces {
		if value, ok := s.effective(name, "rp_filter"); ok && value == 1 {
			own, _ := s.knob(name, "rp_filter")
			all = append(all, Finding{
				Severity: Problem, Subject: name,
				Text:    "rp_filter is strict (1, the greater of all's and its own): packets of clients that the route back to is not by it are dropped",
				Mend:    fmt.Sprintf("sysctl -w net/ipv4/conf/%s/rp_filter=2", name),
				changes: []Change{{Object: Object{kindSysctl, knobPath(name, "rp_filter")}, Before: strconv.Itoa(own), After: "2"}},
			})
		}
	}
	return all
}
