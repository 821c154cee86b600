package director

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
)

// ParseServiceKey reads a service's URL: tcp://192.0.2.1:80,
// udp://[2001:db8::1]:53; tcp://192.0.2.0/24:80 for a prefix of addresses,
// tcp://192.0.2.1:8000-8999 for a range of ports, tcp://192.0.2.1:0 for all
// ports; fwmark://7 for IPv4 packets with a firewall mark, fwmark6://7 for IPv6
// ones. The key's String is the canonical form. The error names the text and
// wraps ErrInvalid. What a data plane lacks is Features.Check's to refuse.
func ParseServiceKey(s string) (ServiceKey, error) {
	key, err := ParseFoundKey(s)
	if err != nil {
		return ServiceKey{}, err
	}
	if problem := key.problem(); problem != nil {
		return ServiceKey{}, badKey(s, problem.Kind, "%s", problem.Text)
	}
	return key, nil
}

// ParseFoundKey is ParseServiceKey for what is found: it takes every address, also
// those that no service of Shunt's can have and one of others in the kernel's IPVS
// can, such as tcp://0.0.0.0:80.
func ParseFoundKey(s string) (ServiceKey, error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		return ServiceKey{}, badKey(s, ErrInvalid, "want protocol://address:port, such as tcp://192.0.2.1:80")
	}
	if family, ok := markFamily(scheme); ok {
		mark, err := strconv.ParseUint(rest, 10, 32)
		if err != nil || mark == 0 {
			return ServiceKey{}, badKey(s, ErrInvalid, "%q is not a firewall mark: want 1 to %d", rest, uint32(math.MaxUint32))
		}
		return ServiceKey{Mark: uint32(mark), Address: netip.AddrPortFrom(family, 0)}, nil
	}
	protocol, err := conntrack.ParseProtocol(scheme)
	if err != nil {
		return ServiceKey{}, badKey(s, ErrInvalid, "%v", err)
	}
	key, text := parseWide(rest)
	if text != "" {
		return ServiceKey{}, badKey(s, ErrInvalid, "%s", text)
	}
	key.Protocol = protocol
	return key, nil
}

// badKey says what is wrong with a service's URL.
func badKey(url string, kind error, format string, args ...any) error {
	return &ProblemError{
		Service: -1, Server: -1, Other: -1, Field: "listen",
		Where: fmt.Sprintf("service %q", url),
		Text:  fmt.Sprintf(format, args...), Kind: kind,
	}
}

// The schemes of services of a firewall mark, by the family of the packets.
const (
	markScheme4 = "fwmark"
	markScheme6 = "fwmark6"
)

// markFamily returns the unspecified address of the family that the scheme stands
// for, and whether it is one of a firewall mark.
func markFamily(scheme string) (netip.Addr, bool) {
	switch {
	case strings.EqualFold(scheme, markScheme4):
		return netip.IPv4Unspecified(), true
	case strings.EqualFold(scheme, markScheme6):
		return netip.IPv6Unspecified(), true
	default:
		return netip.Addr{}, false
	}
}

// parseWide reads what stands behind the protocol; text says what is wrong.
func parseWide(s string) (key ServiceKey, text string) {
	host, ports := s, ""
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, ']') {
		host, ports = s[:colon], s[colon+1:]
	}
	form := prefixForm(host)
	if whole := prefixForm(s); whole != "" || form != "" && ports == "" {
		return ServiceKey{}, fmt.Sprintf("the port is missing: write %s:80", cmp.Or(whole, form))
	}
	if form != "" && form != host {
		return ServiceKey{}, fmt.Sprintf("the brackets are wrong: write %s:%s", form, ports)
	}
	first, last, isRange := strings.Cut(ports, "-")
	address, bits, isPrefix := strings.Cut(strings.TrimSuffix(host, "]"), "/")
	if !isRange && !isPrefix || first == "" {
		addr, err := netip.ParseAddrPort(s)
		if err != nil {
			return ServiceKey{}, explainAddrPort(s)
		}
		return ServiceKey{Address: addr}, ""
	}
	if strings.HasPrefix(address, "[") && !strings.HasSuffix(address, "]") {
		address += "]"
	}
	addr, err := netip.ParseAddrPort(address + ":" + first)
	if err != nil {
		return ServiceKey{}, explainAddrPort(address + ":" + first)
	}
	key.Address = addr
	if isPrefix {
		n, err := strconv.ParseUint(bits, 10, 8)
		if err != nil || int(n) > addr.Addr().BitLen() || strconv.FormatUint(n, 10) != bits {
			return ServiceKey{}, fmt.Sprintf("%q is not the length of a prefix: want %d to %d", bits, minBits(addr.Addr()), addr.Addr().BitLen())
		}
		if key.Bits = uint8(n); int(n) == addr.Addr().BitLen() {
			key.Bits = 0
		} else if n == 0 {
			return ServiceKey{}, fmt.Sprintf("/0 is every address: want a prefix of at least %d bits", minBits(addr.Addr()))
		}
	}
	if isRange {
		n, err := strconv.ParseUint(last, 10, 16)
		if err != nil || addr.Port() == 0 || n < uint64(addr.Port()) {
			return ServiceKey{}, fmt.Sprintf("%q is not a range of ports: want FIRST-LAST within 1 to 65535", ports)
		}
		if key.LastPort = uint16(n); key.LastPort == addr.Port() {
			key.LastPort = 0
		}
	}
	return key, ""
}

// prefixForm returns how a prefix is written before a port, wherever the text has
// brackets; empty if the text is not one.
func prefixForm(text string) string {
	if !strings.Contains(text, "/") {
		return ""
	}
	bare := strings.NewReplacer("[", "", "]", "").Replace(text)
	prefix, err := netip.ParsePrefix(bare)
	switch {
	case err != nil:
		return ""
	case prefix.Addr().Is6():
		return "[" + bare + "]"
	default:
		return bare
	}
}

// minBits is the length of the shortest prefix a service may have: a shorter one
// is a mistake.
func minBits(addr netip.Addr) int {
	if addr.Is4() {
		return 8
	}
	return 16
}

// Prefix returns the service's addresses: a prefix of full length for one.
func (k ServiceKey) Prefix() netip.Prefix {
	addr := k.Address.Addr()
	if k.Bits == 0 {
		return netip.PrefixFrom(addr, addr.BitLen())
	}
	return netip.PrefixFrom(addr, int(k.Bits))
}

// Ports returns the first and the last port of the service; 0 and 65535 for all.
func (k ServiceKey) Ports() (first, last uint16) {
	switch first = k.Address.Port(); {
	case first == 0:
		return 0, math.MaxUint16
	case k.LastPort == 0:
		return first, first
	default:
		return first, k.LastPort
	}
}

// Contains reports whether packets to the address and port are for the service,
// if none is more specific.
func (k ServiceKey) Contains(to netip.AddrPort) bool {
	if k.IsMark() {
		return false // the address does not tell
	}
	first, last := k.Ports()
	return k.Prefix().Contains(to.Addr()) && first <= to.Port() && to.Port() <= last
}

// explainAddrPort says what is wrong with a text that is no address and port,
// in more useful words than netip's.
func explainAddrPort(s string) string {
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		if addr.Is6() {
			return fmt.Sprintf("the port is missing: write [%s]:80", addr)
		}
		return fmt.Sprintf("the port is missing: write %s:80", addr)
	}
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return fmt.Sprintf("%q is not an IP address and a port (names are not looked up)", s)
	}
	host, port := s[:colon], s[colon+1:]
	if bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"); bare == host && strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err == nil {
			return fmt.Sprintf("an IPv6 address is written in brackets: [%s]:%s", host, port)
		}
	} else if addr, err := netip.ParseAddr(bare); err == nil {
		if addr.Is4() && bare != host {
			return fmt.Sprintf("an IPv4 address is written without brackets: %s:%s", addr, port)
		}
		return fmt.Sprintf("%q is not a port: want 1 to 65535", port)
	}
	return fmt.Sprintf("%q is not an IP address (names are not looked up)", host)
}

// String returns the URL form of the key.
func (k ServiceKey) String() string {
	var b strings.Builder
	if k.IsMark() {
		scheme := markScheme4
		if k.Address.Addr().Is6() {
			scheme = markScheme6
		}
		return fmt.Sprintf("%s://%d", scheme, k.Mark)
	}
	b.WriteString(k.Protocol.String() + "://")
	addr := k.Address.Addr().String()
	if k.Bits != 0 {
		addr = fmt.Sprintf("%s/%d", addr, k.Bits)
	}
	if k.Address.Addr().Is6() {
		addr = "[" + addr + "]"
	}
	fmt.Fprintf(&b, "%s:%d", addr, k.Address.Port())
	if k.LastPort != 0 {
		fmt.Fprintf(&b, "-%d", k.LastPort)
	}
	return b.String()
}

// problem says why no service can have the key; nil if one can.
func (k ServiceKey) problem() *ProblemError {
	invalid := func(format string, args ...any) *ProblemError {
		return &ProblemError{Text: fmt.Sprintf(format, args...), Kind: ErrInvalid}
	}
	if k.IsMark() {
		if k != MarkKey(k.Mark, k.Address.Addr()) {
			return invalid("a service of a firewall mark has a family and no protocol, address or port")
		}
		return nil
	}
	switch k.Protocol {
	case conntrack.TCP, conntrack.UDP, conntrack.SCTP:
	default:
		return invalid("unknown protocol %d: want tcp, udp or sctp", uint8(k.Protocol))
	}
	addr := k.Address.Addr()
	switch {
	case !addr.IsValid():
		return invalid("the virtual address is missing")
	case addr.Zone() != "":
		return invalid("virtual address %s has a zone: a service is not bound to an interface", addr)
	case addr.Is4In6():
		return invalid("virtual address %s is an IPv4 address in IPv6 form: write %s", addr, addr.Unmap())
	case addr.IsMulticast():
		return invalid("virtual address %s is multicast: want a unicast address", addr)
	case addr.IsUnspecified():
		return invalid("virtual address %s is unspecified: want a unicast address", addr)
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return invalid("virtual address %s is the broadcast address: want a unicast address", addr)
	case addr.Is4() && addr.As4()[0] == 0:
		return invalid("virtual address %s is in 0.0.0.0/8: want a unicast address", addr)
	case k.Bits != 0 && int(k.Bits) < minBits(addr):
		return invalid("prefix length %d: want at least %d", k.Bits, minBits(addr))
	case int(k.Bits) > addr.BitLen():
		return invalid("prefix length %d: want at most %d", k.Bits, addr.BitLen())
	case k.Prefix() != k.Prefix().Masked():
		return invalid("virtual address %s/%d has bits beyond its prefix: write %s", addr, k.Bits, k.Prefix().Masked())
	case k.LastPort != 0 && k.LastPort <= k.Address.Port():
		return invalid("ports %d-%d: want a range of ports, the lower one first", k.Address.Port(), k.LastPort)
	default:
		return nil
	}
}

// Compare orders keys by firewall mark, address family, protocol, address and
// port, as ipvsadm sorts its list.
func (k ServiceKey) Compare(o ServiceKey) int {
	return cmp.Or(
		cmp.Compare(k.Mark, o.Mark),
		cmp.Compare(k.Address.Addr().BitLen(), o.Address.Addr().BitLen()),
		cmp.Compare(k.Protocol, o.Protocol),
		k.Address.Compare(o.Address),
		cmp.Compare(o.Bits, k.Bits),
		cmp.Compare(k.LastPort, o.LastPort),
	)
}

// ParseServerAddress reads a server's address as configured: 10.0.0.1:8080,
// [2001:db8::1]:80, or an address alone, whose port is 0 and means the
// service's. Only the form is judged; the error wraps ErrInvalid.
func ParseServerAddress(s string) (netip.AddrPort, error) {
	fail := func(text string) (netip.AddrPort, error) {
		return netip.AddrPort{}, &ProblemError{
			Service: -1, Server: -1, Other: -1, Field: "address",
			Where: fmt.Sprintf("server %q", s), Text: text, Kind: ErrInvalid,
		}
	}
	bare := s
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		bare = strings.TrimSuffix(inner, "]")
	}
	if addr, err := netip.ParseAddr(bare); err == nil && (bare == s || addr.Is6()) {
		return netip.AddrPortFrom(addr, 0), nil
	}
	addr, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return fail(explainAddrPort(s))
	case addr.Port() == 0:
		return fail("port 0 is reserved: leave it out for the service's port")
	default:
		return addr, nil
	}
}
