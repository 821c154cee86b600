package realserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Problem is one thing wrong with a server, and the field it is in.
type Problem struct {
	Field string // "address", "method", "tunnel", "weight", "upper" or "lower"
	Text  string
}

// Error returns the text.
func (p *Problem) Error() string { return p.Text }

// Validate returns nil, or the joined *Problems of the server. What depends on
// the service (address family, port) is not looked at.
func (s Server) Validate() error {
	var problems []error
	report := func(field, format string, args ...any) {
		problems = append(problems, &Problem{Field: field, Text: fmt.Sprintf(format, args...)})
	}
	if text := addressProblem(s.Address.Addr(), s.Method); text != "" {
		report("address", "%s", text)
	}
	if !slices.Contains(Methods(), s.Method) {
		report("method", "unknown forwarding method %d", uint8(s.Method))
	}
	if s.Method != Tunnel && s.Tunnel != (TunnelOptions{}) {
		report("tunnel", "method %s has no tunnel", s.Method)
	} else if err := s.Tunnel.Validate(); err != nil {
		problems = append(problems, err)
	}
	if s.Weight > MaxWeight {
		report("weight", "weight %d is out of range: want 0 to %d", s.Weight, MaxWeight)
	}
	if s.Lower > s.Upper {
		// Kernel: ip_vs_ctl.c, ip_vs_add_dest.
		report("lower", "lower threshold %d is greater than the upper one (%d)", s.Lower, s.Upper)
	}
	return errors.Join(problems...)
}

// addressProblem says why no server can have the address; empty if one can. The
// kernel refuses the same ones (kernel: net/netfilter/ipvs/ip_vs_ctl.c,
// ip_vs_new_dest).
func addressProblem(addr netip.Addr, method Method) string {
	switch {
	case !addr.IsValid():
		return "the address is missing"
	case addr.Zone() != "":
		return fmt.Sprintf("address %s has a zone: a server is reached by the routing table", addr)
	case addr.Is4In6():
		return fmt.Sprintf("address %s is an IPv4 address in IPv6 form: write %s", addr, addr.Unmap())
	case addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Sprintf("address %s is not a unicast address", addr)
	case method != Local && addr.Is6() && addr.IsLinkLocalUnicast():
		return fmt.Sprintf("address %s is link-local: it names no interface to reach it by", addr)
	default:
		return ""
	}
}
