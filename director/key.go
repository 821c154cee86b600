package director

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
)

// ParseServiceKey reads a service's URL: tcp://192.0.2.1:80,
// udp://[2001:db8::1]:53. The key's String is the canonical form. The error
// names the text and wraps ErrInvalid, or ErrUnsupported for what IPVS has and
// this version does not (sctp, fwmark).
func ParseServiceKey(s string) (ServiceKey, error) {
	fail := func(kind error, format string, args ...any) (ServiceKey, error) {
		return ServiceKey{}, &ProblemError{
			Service: -1, Server: -1, Other: -1, Field: "listen",
			Where: fmt.Sprintf("service %q", s),
			Text:  fmt.Sprintf(format, args...), Kind: kind,
		}
	}
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		return fail(ErrInvalid, "want protocol://address:port, such as tcp://192.0.2.1:80")
	}
	if strings.EqualFold(scheme, "fwmark") {
		return fail(ErrUnsupported, "fwmark services need the ipvs data plane, which is not there yet")
	}
	protocol, err := conntrack.ParseProtocol(scheme)
	if err != nil {
		return fail(ErrInvalid, "%v", err)
	}
	addr, err := netip.ParseAddrPort(rest)
	if err != nil {
		return fail(ErrInvalid, "%s", explainAddrPort(rest))
	}
	key := ServiceKey{Protocol: protocol, Address: addr}
	if problem := key.problem(); problem != nil {
		return fail(problem.Kind, "%s", problem.Text)
	}
	return key, nil
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
	switch k.Protocol {
	case conntrack.TCP, conntrack.UDP:
	case conntrack.SCTP:
		return &ProblemError{Text: "sctp services are not there yet", Kind: ErrUnsupported}
	default:
		return invalid("unknown protocol %d: want tcp or udp", uint8(k.Protocol))
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
	case addr.IsLoopback():
		return invalid("virtual address %s is a loopback address: no client reaches it", addr)
	case addr.Is4() && addr.As4()[0] == 0:
		return invalid("virtual address %s is in 0.0.0.0/8: want a unicast address", addr)
	case k.Address.Port() == 0:
		return invalid("port 0 is reserved")
	default:
		return nil
	}
}

// Compare orders keys by address family, protocol, address and port, as ipvsadm
// sorts its list.
func (k ServiceKey) Compare(o ServiceKey) int {
	return cmp.Or(
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
