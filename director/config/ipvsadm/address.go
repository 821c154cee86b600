package ipvsadm

import (
	"encoding/binary"
	"math"
	"net/netip"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
)

// host is what ipvsadm reads as HOST[:PORT].
type host struct {
	addr    netip.Addr
	port    uint16
	hasPort bool
}

// parseHost reads HOST[:PORT], [IPv6]:PORT or an IPv6 address without a port
// (ipvsadm.c, parse_service). A number alone is no host. In brackets an IPv6
// address must be followed by a port; anything else in brackets is taken as if
// it were not, and what follows them is passed over.
func (p Parser) parseHost(text string, protocol conntrack.Protocol) (host, bool) {
	if strings.Trim(text, "0123456789") == "" {
		return host{}, false
	}
	port, hasPort := "", false
	if inner, ok := strings.CutPrefix(text, "["); ok {
		var after string
		if text, after, ok = strings.Cut(inner, "]"); !ok || !strings.HasPrefix(after, ":") {
			return host{}, false
		}
		port, hasPort = after[1:], true
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		port, hasPort = "", false
		if i := strings.LastIndexByte(text, ':'); i >= 0 {
			text, port, hasPort = text[:i], text[i+1:], true
		}
		var ok bool
		if addr, ok = p.parseIPv4(text); !ok {
			return host{}, false
		}
	}
	h := host{addr: addr, hasPort: hasPort}
	if !hasPort {
		return h, true
	}
	if number, ok := parseNumber(port, 0, math.MaxUint16); ok {
		h.port = uint16(number)
		return h, true
	}
	var ok bool
	h.port, ok = p.Names.Port(port, protocol)
	return h, ok
}

// parseIPv4 reads an address, or looks up a name.
func (p Parser) parseIPv4(text string) (netip.Addr, bool) {
	if addr, ok := parseNumbersAndDots(text); ok {
		return addr, true
	}
	return p.Names.Address(text)
}

// parseNumbersAndDots reads an IPv4 address as inet_aton does: a, a.b, a.b.c or
// a.b.c.d, each decimal, octal (0…) or hexadecimal (0x…), the last one filling
// what is left; what follows white space is passed over (glibc:
// resolv/inet_addr.c).
func parseNumbersAndDots(text string) (netip.Addr, bool) {
	if i := strings.IndexAny(text, space); i >= 0 {
		text = text[:i]
	}
	parts := strings.Split(text, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		most := uint64(math.MaxUint8)
		if i == len(parts)-1 {
			most = math.MaxUint32 >> (8 * i)
		}
		number, ok := parseAnyBase(part)
		if !ok || number > most {
			return netip.Addr{}, false
		}
		if i == len(parts)-1 {
			value |= number
		} else {
			value |= number << (24 - 8*i)
		}
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(value)))), true
}

func bigEndian(addr netip.Addr) uint32 {
	bytes := addr.As4()
	return binary.BigEndian.Uint32(bytes[:])
}
