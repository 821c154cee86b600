package realserver

import (
	"fmt"
	"net/netip"
	"strings"
)

// Method is how packets are handed to a server: the forwarding method. The
// numbers are the kernel's (kernel: include/uapi/linux/ip_vs.h), where 4 is its
// bypass, which is nobody's to configure; FullNAT is none of its own.
type Method uint8

// The forwarding methods.
const (
	NAT    Method = 0 // IP_VS_CONN_F_MASQ
	Local  Method = 1 // IP_VS_CONN_F_LOCALNODE
	Tunnel Method = 2 // IP_VS_CONN_F_TUNNEL
	DR     Method = 3 // IP_VS_CONN_F_DROUTE
	// FullNAT rewrites the client's address too, to one of the director's own, so
	// that replies come back whatever route the server has.
	FullNAT Method = 5 // DPVS's IP_VS_CONN_F_FULLNAT
)

// Methods returns all of them, in the order of help and of error messages.
func Methods() []Method { return []Method{NAT, DR, Tunnel, FullNAT, Local} }

// Rewrites reports whether packets get the server's address and port, and its
// replies come back through the director to have the virtual ones again.
func (m Method) Rewrites() bool { return m == NAT || m == FullNAT }

// String returns the word used in configuration and the CLI.
func (m Method) String() string {
	switch m {
	case NAT:
		return "nat"
	case Local:
		return "local"
	case Tunnel:
		return "tunnel"
	case DR:
		return "dr"
	case FullNAT:
		return "fullnat"
	default:
		return fmt.Sprintf("method-%d", uint8(m))
	}
}

// ParseMethod reads a word as String prints it, in any case.
func ParseMethod(s string) (Method, error) {
	for _, m := range Methods() {
		if strings.EqualFold(s, m.String()) {
			return m, nil
		}
	}
	return 0, fmt.Errorf("unknown forwarding method %q: want nat, dr, tunnel, fullnat or local", s)
}

// Server is a real server of one service as configured. Comparable.
type Server struct {
	// Address identifies the server within its service. With DR and Local the
	// port is the service's: packets are not rewritten.
	Address netip.AddrPort
	Method  Method
	// Tunnel says how packets are wrapped; zero for other methods than Tunnel, and
	// for ipip.
	Tunnel TunnelOptions
	// Weight is the server's share of new connections; 0 keeps established
	// connections and takes no new ones.
	Weight uint32
	// Upper is the number of connections from which on the server gets no new
	// ones, 0 for none; Lower the number below which it gets them again, 0 for
	// three quarters of Upper (kernel: ip_vs_conn.c, ip_vs_bind_dest and
	// ip_vs_unbind_dest).
	Upper, Lower uint32
	// Draining: no new connections whatever the weight, and no template is
	// followed to it. An operator's order, not configuration.
	Draining bool
}
