package doctor

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// match is what a rule asks of a packet. A nil list asks nothing.
type match struct {
	family                string // ipv4, ipv6 or, for both, empty
	sources, destinations []netip.Prefix
	ports                 []portRange // destination's
	protocols             []string
	inputs                []string // interfaces it came in by
	other                 bool     // asks something else that is not understood, too
	unclear               bool     // and that may be an address or port to the service

	// What the packet was sent to before it was translated, as the match ipvs of
	// iptables and the original direction of conntrack have it.
	virtual      []netip.Prefix
	virtualPorts []portRange
}

// The families as nft names them.
const (
	ipv4 = "ipv4"
	ipv6 = "ipv6"
)

type portRange struct{ first, last uint16 }

// subject is a service that rules may be about.
type subject struct {
	director.Service
	targets []target // where packets to it are sent on their way; the service's own comes first
}

// target is addresses and ports that packets are sent to.
type target struct {
	prefix netip.Prefix
	ports  portRange
}

// in reports whether a rule that asks for the addresses and ports can match
// packets to the target.
func (t target) in(prefixes []netip.Prefix, ports []portRange) bool {
	return (prefixes == nil || t.overlaps(prefixes)) &&
		(ports == nil || slices.ContainsFunc(ports, func(p portRange) bool { return p.first <= t.ports.last && t.ports.first <= p.last }))
}

// within reports whether such a rule matches all packets to the target. Prefixes
// and ranges that cover it together only are not taken for that.
func (t target) within(prefixes []netip.Prefix, ports []portRange) bool {
	return (prefixes == nil || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		return p.Bits() <= t.prefix.Bits() && p.Contains(t.prefix.Addr())
	})) && (ports == nil || slices.ContainsFunc(ports, func(p portRange) bool { return p.first <= t.ports.first && t.ports.last <= p.last }))
}

func (t target) overlaps(prefixes []netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, t.prefix.Overlaps)
}

// bypassing returns the services whose packets XDP takes past the stack.
func (i *inspection) bypassing() []subject {
	var services []subject
	for _, s := range i.Services {
		first, last := s.Key.Ports()
		targets := []target{{s.Key.Prefix(), portRange{first, last}}}
		local := len(s.Servers) > 0
		for _, server := range s.Servers {
			if server.Method.Rewrites() {
				t := target{netip.PrefixFrom(server.Address.Addr(), server.Address.Addr().BitLen()), portRange{first, last}}
				if port := server.Address.Port(); port != 0 { // else the client's
					t.ports = portRange{port, port}
				}
				targets = append(targets, t)
			}
			local = local && server.Method == realserver.Local
		}
		if !local {
			services = append(services, subject{s, targets})
		}
	}
	return services
}

// may reports whether packets of clients to the service, before or after the
// server's address is written in, can match.
func (i *inspection) may(m match, s subject) bool {
	return i.mayKind(m, s) &&
		slices.ContainsFunc(s.targets, func(t target) bool { return t.in(m.destinations, m.ports) }) &&
		(m.sources == nil || slices.ContainsFunc(m.sources, func(p netip.Prefix) bool { return p.Addr().Is4() == s.Key.Address.Addr().Is4() }))
}

// mayReply reports whether packets to clients, with the server's address or the
// virtual one, can match by it.
func (i *inspection) mayReply(m match, s subject) bool {
	return i.mayKind(m, s) && m.comesFrom(s)
}

// mayKind compares what requests and replies have in common.
func (i *inspection) mayKind(m match, s subject) bool {
	if m.inputs != nil && !slices.ContainsFunc(m.inputs, func(pattern string) bool {
		return slices.ContainsFunc(i.Interfaces, func(name string) bool {
			prefix, wild := strings.CutSuffix(pattern, "*")
			return name == pattern || wild && strings.HasPrefix(name, prefix)
		})
	}) {
		return false
	}
	return m.isKind(s) && s.targets[0].in(m.virtual, m.virtualPorts)
}

// isKind reports whether packets of the service's family and protocol can match.
func (m match) isKind(s subject) bool {
	own := map[bool]string{false: ipv4, true: ipv6}[s.Key.Address.Addr().Is6()]
	return (m.family == "" || m.family == own) && (m.protocols == nil || slices.Contains(m.protocols, s.Key.Protocol.String()))
}

// comesFrom reports whether the rule asks for sources that replies have.
func (m match) comesFrom(s subject) bool {
	return slices.ContainsFunc(s.targets, func(t target) bool { return t.overlaps(m.sources) })
}

// isSpecific reports whether the rule is about the service by name, so to say: by
// its addresses or ports.
func (m match) isSpecific(s subject) bool {
	return m.destinations != nil || m.ports != nil || m.virtual != nil || m.virtualPorts != nil || m.comesFrom(s)
}

// covers reports whether the rule asks for no address or port that only a part of
// the packets to the service has.
func (m match) covers(s subject) bool {
	own := s.targets[0]
	return own.within(m.destinations, m.ports) && own.within(m.virtual, m.virtualPorts)
}

// walk calls visit for the rules of a chain and of the chains that packets to a
// service can be sent on to. A rule is narrow if what leads to it lets only a part
// of the packets through, by their addresses or ports; a chain that is entered both
// ways is visited twice at most.
func (i *inspection) walk(c *chain, chains map[string]*chain, services []subject, visit func(c *chain, r rule, narrow bool)) {
	seen := map[*chain]bool{} // whether it was entered in the narrow way alone
	var enter func(*chain, bool)
	enter = func(c *chain, narrow bool) {
		if wasNarrow, entered := seen[c]; c == nil || entered && (narrow || !wasNarrow) {
			return
		}
		seen[c] = narrow
		for _, rule := range c.rules {
			if !slices.ContainsFunc(services, func(s subject) bool { return i.concerns(rule, s) }) {
				continue
			}
			visit(c, rule, narrow)
			partly := narrow || rule.match.sources != nil ||
				slices.ContainsFunc(services, func(s subject) bool { return !rule.match.covers(s) })
			for _, target := range rule.targets {
				enter(chains[target], partly)
			}
		}
	}
	enter(c, false)
}

// rangePrefixes returns the prefixes that make up the range of addresses.
func rangePrefixes(first, last netip.Addr) []netip.Prefix {
	var prefixes []netip.Prefix
	if !first.IsValid() || first.BitLen() != last.BitLen() || last.Less(first) {
		return nil
	}
	for {
		bits := first.BitLen()
		for bits > 0 {
			wider := netip.PrefixFrom(first, bits-1)
			if wider.Masked().Addr() != first || last.Less(lastOf(wider)) {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(first, bits)
		prefixes = append(prefixes, p)
		end := lastOf(p)
		if !end.Less(last) {
			return prefixes
		}
		first = end.Next()
	}
}

// lastOf returns a prefix's last address.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for n := p.Bits(); n < len(b)*8; n++ {
		b[n/8] |= 0x80 >> (n % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
