package keepalived

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/director/config/translation"
)

// group is a virtual_server_group.
type group struct {
	name    string
	entries []entry
	has     map[family]bool // what families its addresses and marks have
}

// entry is what a line of a group stands for: addresses with one port, or a mark.
type entry struct {
	addresses []netip.Addr
	port      uint16 // 0: all ports
	mark      uint32 // of a service of a firewall mark
	family    family // of a mark; unknown: that of the servers
	taken     string // how the line was taken, if not as it stands
}

// family of addresses, unknown at first.
type family int

const (
	unknown family = 0
	inet    family = 4
	inet6   family = 6
)

func familyOf(addr netip.Addr) family {
	if addr.Is4() {
		return inet
	}
	return inet6
}

// parseFamily reads inet or inet6.
func parseFamily(word string) (family, bool) {
	switch word {
	case "inet":
		return inet, true
	case "inet6":
		return inet6, true
	}
	return unknown, false
}

// group reads a group. Lines that keepalived skips are skipped, and so are groups
// that it removes (keepalived: check_data.c, alloc_vsg_entry; check_parser.c,
// vsg_handler).
func (t *translator) group(n *node) {
	g := &group{name: n.word(1), has: make(map[family]bool)}
	familyless := false
	for _, line := range n.body {
		e, problem := parseEntry(line, maxAddresses-t.addresses)
		if problem != "" {
			t.note(translation.LeftOut, line, problem)
			continue
		}
		if e.taken != "" {
			t.note(translation.Assumed, line, e.taken)
		}
		t.addresses += len(e.addresses)
		g.entries = append(g.entries, e)
		switch {
		case len(e.addresses) > 0:
			g.has[familyOf(e.addresses[0])] = true
		case e.family == unknown:
			familyless = true
		default:
			g.has[e.family] = true
		}
	}
	switch {
	case g.name == "":
		t.note(translation.LeftOut, n, "the group has no name")
	case t.groups[g.name] != nil:
		t.note(translation.LeftOut, n, "there is a group of the name already, and keepalived takes the first one")
	case len(g.entries) == 0:
		t.note(translation.LeftOut, n, "the group has no addresses: keepalived removes it")
	case g.has[inet] && g.has[inet6] && familyless:
		t.note(translation.LeftOut, n, "the group has addresses of both families and a firewall mark of none: keepalived removes it")
	default:
		t.groups[g.name] = g
	}
}

// mismatch says why keepalived ignores a virtual server of the family that has the
// group: all the group's addresses must have the family, and only servers that are
// all reached by tunnels leave it open (keepalived: check_data.c, link_vsg_to_vs).
func (g *group) mismatch(f family) string {
	switch {
	case f == unknown:
		return ""
	case g.has[inet] && g.has[inet6]:
		return "the group has addresses of both families, and not all servers are reached by tunnels: keepalived ignores the virtual server"
	case g.has[inet] && f == inet6, g.has[inet6] && f == inet:
		return "the group's addresses are of another family than the servers: keepalived ignores the virtual server"
	}
	return ""
}

// maxAddresses is how many addresses all groups may have.
const maxAddresses = 4 * translation.MaxServices

// parseEntry reads a line of a group, which may have so many addresses; problem
// says why it is skipped.
func parseEntry(n *node, most int) (e entry, problem string) {
	if n.word(0) == "fwmark" {
		if e.mark, e.taken, problem = parseMark(n.word(1)); problem != "" {
			return entry{}, problem
		}
		if n.word(2) != "" {
			var ok bool
			if e.family, ok = parseFamily(n.word(2)); !ok {
				return entry{}, fmt.Sprintf("unknown family %q: want inet or inet6", n.word(2))
			}
		}
		return e, ""
	}
	if e.port, e.taken, problem = parsePort(n.word(1)); problem != "" {
		return entry{}, problem
	}
	first, last, problem := parseRange(n.word(0))
	if problem != "" {
		return entry{}, problem
	}
	for addr := first; ; addr = addr.Next() {
		if len(e.addresses) == min(most, translation.MaxServices) {
			return entry{}, fmt.Sprintf("these are more than %d addresses, or %d of all groups: a service of a prefix, tcp://192.0.2.0/24:80, is one on the XDP data plane",
				translation.MaxServices, maxAddresses)
		}
		e.addresses = append(e.addresses, addr)
		if addr == last {
			return e, ""
		}
	}
}

// parseRange reads an address, a prefix, or a range: 192.0.2.1-9, whose end is a
// last part, or 192.0.2.1-192.0.3.9.
func parseRange(s string) (first, last netip.Addr, problem string) {
	fail := func(format string, args ...any) (netip.Addr, netip.Addr, string) {
		return netip.Addr{}, netip.Addr{}, fmt.Sprintf(format, args...)
	}
	if strings.Contains(s, "/") {
		prefix, err := netip.ParsePrefix(s)
		switch {
		case err != nil || prefix.Bits() == 0:
			return fail("%q is not a prefix", s)
		case prefix != prefix.Masked():
			return fail("%s has bits beyond its prefix: keepalived skips it", s)
		}
		return prefix.Addr(), lastOf(prefix), ""
	}
	begin, end, isRange := strings.Cut(s, "-")
	first, _, ok := address(begin)
	switch {
	case !ok:
		return fail("%q is not an address: names are not looked up", begin)
	case !isRange:
		return first, first, ""
	case strings.Contains(end, ".") || strings.Contains(end, ":"):
		if last, _, ok = address(end); !ok || familyOf(last) != familyOf(first) {
			return fail("%q is not an address of the range's family", end)
		}
	case first.Is4():
		part, err := strconv.ParseUint(end, 10, 8)
		if err != nil {
			return fail("%q does not end a range: want an address or its last number", end)
		}
		b := first.As4()
		b[3] = byte(part)
		last = netip.AddrFrom4(b)
	default:
		part, err := strconv.ParseUint(end, 16, 16)
		if err != nil {
			return fail("%q does not end a range: want an address or its last number", end)
		}
		b := first.As16()
		binary.BigEndian.PutUint16(b[14:], uint16(part))
		last = netip.AddrFrom16(b)
	}
	if last.Less(first) {
		return fail("the range %s ends before it begins", s)
	}
	if last == first && !strings.ContainsAny(end, ".:") {
		return fail("the range %s ends where it begins: keepalived skips it", s)
	}
	return first, last, ""
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < p.Addr().BitLen(); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
