package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
)

// Ports is a range of them, both ends included.
type Ports struct{ First, Last uint16 }

// String returns the range as 1024-65535, one port by itself.
func (p Ports) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// maxLocals is how many addresses of a family can stand in for clients'; of what
// sources of tunnels differ by, the outer header has maxSpread bits.
const (
	maxLocals = 2048 // LOCALS6 of bpf/src/abi.h
	maxSpread = 32   // struct tunnel's word
)

// tunnelSources reads the addresses that outer headers come from: one of them, or a
// prefix, of each family.
func (d *decoder) tunnelSources(n *yaml.Node, path string) []netip.Prefix {
	var given [2]int
	return d.ownPrefixes(n, path, func(p netip.Prefix, i int) error {
		family := familyOf(p)
		if given[family] > 0 {
			return fmt.Errorf("%s is %s already: want one of a family", sibling(path, given[family]-1), familyNames[family])
		}
		given[family] = i + 1
		if bits := p.Addr().BitLen() - p.Bits(); bits > maxSpread {
			return fmt.Errorf("%s leaves %d bits to differ: want a prefix of /%d or longer", p, bits, p.Addr().BitLen()-maxSpread)
		}
		return nil
	})
}

// localAddresses reads the addresses that stand in for clients'.
func (d *decoder) localAddresses(n *yaml.Node, path string) []netip.Prefix {
	var (
		seen   []netip.Prefix
		places []int
		room   = [2]uint64{maxLocals, maxLocals}
	)
	return d.ownPrefixes(n, path, func(p netip.Prefix, i int) error {
		for j, other := range seen {
			if p.Overlaps(other) {
				return fmt.Errorf("%s has addresses of %s, which is %s", written(p), written(other), sibling(path, places[j]))
			}
		}
		family, bits := familyOf(p), p.Addr().BitLen()-p.Bits()
		if bits > 11 || uint64(1)<<bits > room[family] {
			return fmt.Errorf("%s makes it more than %d addresses of %s", written(p), maxLocals, familyNames[family])
		}
		room[family] -= 1 << bits
		seen, places = append(seen, p), append(places, i)
		return nil
	})
}

// ownPrefixes reads prefixes of addresses of this host, each of which the function
// has looked at.
func (d *decoder) ownPrefixes(n *yaml.Node, path string, check func(netip.Prefix, int) error) []netip.Prefix {
	var all []netip.Prefix
	d.sequence(n, path, func(n *yaml.Node, path string, i int) {
		word(d, new(netip.Prefix), func(s string) (netip.Prefix, error) {
			p, err := parseOwnPrefix(s)
			if err == nil {
				err = check(p, i)
			}
			if err == nil {
				all = append(all, p)
			}
			return p, err
		})(n, path)
	})
	return all
}

// parseOwnPrefix reads an address that the host may have as its own in packets to
// servers, or a prefix of them.
func parseOwnPrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "%") {
		return netip.Prefix{}, fmt.Errorf("%q has a zone: want an address that servers can answer to", shortened(s))
	}
	p, err := director.ParsePrefix(s)
	if err != nil {
		if e := (*director.WordError)(nil); errors.As(err, &e) && strings.HasSuffix(e.Text, "is not a network") {
			err = fmt.Errorf("%q is no address: want one of this host, or a prefix such as 10.0.0.16/28", shortened(s))
		}
		return p, err
	}
	switch addr := p.Addr(); {
	case addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return p, fmt.Errorf("%s is not a unicast address", written(p))
	case addr.IsLoopback():
		return p, fmt.Errorf("%s is a loopback address: servers cannot answer to it", written(p))
	case addr.Is6() && addr.IsLinkLocalUnicast():
		return p, fmt.Errorf("%s is link-local: servers cannot answer to it but on one link", written(p))
	}
	return p, nil
}

// parsePorts reads a range such as 1024-65535, or one port.
func parsePorts(s string) (Ports, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	from, err := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	switch {
	case err != nil || err2 != nil || from == 0:
		return Ports{}, fmt.Errorf("%q is not a range of ports: want one such as 1024-65535", shortened(s))
	case from > to:
		return Ports{}, fmt.Errorf("%s ends before it begins", s)
	}
	return Ports{uint16(from), uint16(to)}, nil
}

var familyNames = [2]string{"IPv4", "IPv6"}

// familyOf returns the place of the prefix's family in familyNames.
func familyOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 0
	}
	return 1
}

// written is the prefix as the file has it: an address alone by itself.
func written(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// prefixList is the prefixes as the file has them.
func prefixList(all []netip.Prefix) string {
	texts := make([]string, len(all))
	for i, p := range all {
		texts[i] = written(p)
	}
	return strings.Join(texts, ", ")
}

// sibling names an element of the list by its last key, such as sources[0].
func sibling(path string, i int) string {
	return fmt.Sprintf("%s[%d]", path[strings.LastIndexByte(path, '.')+1:], i)
}
