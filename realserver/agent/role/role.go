package role

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/agent"
)

// Method is how a director's packets come to the host.
type Method string

// The methods. Tunnel is one of any type.
const (
	DR     Method = "dr"
	IPIP   Method = "ipip"
	GUE    Method = "gue"
	GRE    Method = "gre"
	Tunnel Method = "tunnel"
	NAT    Method = "nat"
)

// ParseMethod reads a word, in any case.
func ParseMethod(s string) (Method, error) {
	for _, m := range []Method{DR, IPIP, GUE, GRE, Tunnel, NAT} {
		if strings.EqualFold(s, string(m)) {
			return m, nil
		}
	}
	return "", fmt.Errorf("unknown method %q: want dr, ipip, gue, gre, tunnel or nat", s)
}

// Port is one that a service has.
type Port struct {
	Number  uint16
	Network string // "tcp" or "udp"; "" is either
	// Own: packets come for an address of the host's own, not for a virtual one.
	Own bool
}

// String returns what ParsePort reads.
func (p Port) String() string {
	if p.Network == "" {
		return strconv.Itoa(int(p.Number))
	}
	return fmt.Sprintf("%d/%s", p.Number, p.Network)
}

// ParsePort reads a number, or one with its protocol: 53/udp. Alone it is tcp's.
func ParsePort(s string) (Port, error) {
	number, network, found := strings.Cut(s, "/")
	if !found {
		network = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || network != "tcp" && network != "udp" {
		return Port{}, fmt.Errorf("%q is not a port: want one such as 80 or 53/udp", s)
	}
	return Port{Number: uint16(n), Network: network}, nil
}

// Role is what a host has to be. The zero value of a field is documented with it.
type Role struct {
	// Methods by which packets come; none: nothing is wanted.
	Methods []Method
	// VIPs are virtual addresses, or prefixes of them. DR and tunnels want one.
	VIPs []netip.Prefix
	// Interfaces that packets come by; none: those that the routes to the directors leave
	// by, or without directors the default routes.
	Interfaces []string
	// Directors are where tunnels come from, none: anywhere; and NAT's gateways.
	Directors []netip.Prefix
	// Clients are those that NAT's replies go to; none: all.
	Clients []netip.Prefix
	// Route: the route back to the clients may be made.
	Route bool
	// GUEPorts are the tunnels'; none: decap.DefaultPort.
	GUEPorts []uint16
	// Ports of services, which are to be listened on; none: that is not looked at.
	Ports []Port
	// PinDir is where decapsulation is kept; "": decap.DefaultPinDir.
	PinDir string
}

// FromSettings returns what the members of an agent's settings want of the host.
func FromSettings(s agent.Settings) Role {
	r := Role{
		VIPs: s.Host.VIPs, Interfaces: s.Host.Interfaces, Directors: s.Host.Directors, Clients: s.Host.Clients,
		Route: s.Host.Route, GUEPorts: s.Host.GUEPorts,
	}
	for _, m := range s.Members {
		method, err := ParseMethod(m.Method) // The others want nothing of the host.
		if err == nil && !slices.Contains(r.Methods, method) {
			r.Methods = append(r.Methods, method)
		}
		address, err := netip.ParseAddrPort(m.Address)
		isOwn := method == NAT || strings.EqualFold(m.Method, realserver.FullNAT.String())
		if port := (Port{Number: address.Port(), Own: isOwn}); err == nil && port.Number != 0 && !slices.Contains(r.Ports, port) {
			r.Ports = append(r.Ports, port)
		}
	}
	return r
}

// Validate returns an error that says what is missing.
func (r Role) Validate() error {
	var problems []error
	if (r.has(DR) || r.tunnels()) && len(r.VIPs) == 0 {
		problems = append(problems, errors.New("no virtual address: dr and tunnels want one: --vip, or host: {vips: [ADDRESS]} in the settings"))
	}
	for _, vip := range r.VIPs {
		if i := slices.IndexFunc(special, vip.Overlaps); i >= 0 {
			problems = append(problems, fmt.Errorf("virtual address %s: %s of it is no service's", text(vip), text(special[i])))
		}
	}
	if r.has(NAT) && len(r.gateways()) == 0 {
		problems = append(problems, errors.New("no director's address: nat wants it, for the route back to clients: --director, or host: {directors: [ADDRESS]} in the settings"))
	}
	if r.Route && !r.has(NAT) {
		problems = append(problems, errors.New("the route back is nat's: it is not among the methods"))
	}
	if len(r.GUEPorts) > decap.MaxPorts {
		problems = append(problems, fmt.Errorf("%d gue ports: at most %d", len(r.GUEPorts), decap.MaxPorts))
	}
	if slices.Contains(r.GUEPorts, 0) {
		problems = append(problems, errors.New("gue port 0 is reserved"))
	}
	return errors.Join(problems...)
}

// special are addresses that no service has, and that a host has to reach as before
// (RFC 6890 §2.2.2, RFC 4291 §2.4).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

func (r Role) withDefaults() Role {
	if r.PinDir == "" {
		r.PinDir = decap.DefaultPinDir
	}
	if len(r.Clients) == 0 {
		for _, all := range []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} {
			if slices.ContainsFunc(r.gateways(), func(a netip.Addr) bool { return a.Is4() == all.Addr().Is4() }) {
				r.Clients = append(r.Clients, all)
			}
		}
	}
	return r
}

func (r Role) has(m Method) bool { return slices.Contains(r.Methods, m) }

// tunnels reports whether packets come in tunnels.
func (r Role) tunnels() bool { return len(r.types()) > 0 }

// types are those of the tunnels.
func (r Role) types() []realserver.TunnelType {
	var all []realserver.TunnelType
	for _, m := range []struct {
		Method
		t realserver.TunnelType
	}{{IPIP, realserver.TunnelIPIP}, {GUE, realserver.TunnelGUE}, {GRE, realserver.TunnelGRE}} {
		if r.has(m.Method) || r.has(Tunnel) {
			all = append(all, m.t)
		}
	}
	return all
}

// gateways are the directors that are named by one address.
func (r Role) gateways() []netip.Addr {
	var all []netip.Addr
	for _, p := range r.Directors {
		if p.IsSingleIP() {
			all = append(all, p.Addr())
		}
	}
	return all
}

// hasIPv4 reports whether a virtual address is one.
func (r Role) hasIPv4() bool {
	return slices.ContainsFunc(r.VIPs, func(p netip.Prefix) bool { return p.Addr().Is4() })
}
