package realserver

import (
	"fmt"
	"net/netip"
	"strings"
)

// TunnelOptions are how packets are wrapped for a server whose method is Tunnel.
// Comparable; the zero value is ipip.
type TunnelOptions struct {
	Type TunnelType
	// Port is gue's UDP port at the server; 0 for other types.
	Port uint16
	// Checksum is gue's and gre's.
	Checksum TunnelChecksum
}

// String returns the type, and what it has of port and checksum, as "gue port 5555,
// full checksum".
func (t TunnelOptions) String() string {
	text := t.Type.String()
	if t.Port != 0 {
		text += fmt.Sprintf(" port %d", t.Port)
	}
	if t.Checksum != TunnelNoChecksum {
		text += fmt.Sprintf(", %s checksum", t.Checksum)
	}
	return text
}

// Overhead is how many octets the outer headers for a server with the address have. (IPVS
// adds 8 to packets by gue whose checksum is left to a card, with TunnelRemoteChecksum.)
func (t TunnelOptions) Overhead(server netip.Addr) int {
	outer := 20 // IPv4 without options
	if server.Is6() {
		outer = 40
	}
	switch {
	case t.Type == TunnelGUE:
		return outer + 8 + 4 // UDP; kernel: include/net/gue.h, struct guehdr
	case t.Type == TunnelGRE && t.Checksum == TunnelChecksumOn:
		return outer + 8 // RFC 2784 §2.1
	case t.Type == TunnelGRE:
		return outer + 4
	default:
		return outer
	}
}

// TunnelType is the kind of encapsulation. The numbers are the kernel's (kernel:
// include/uapi/linux/ip_vs.h, IP_VS_CONN_F_TUNNEL_TYPE_*).
type TunnelType uint8

// The types of tunnels.
const (
	TunnelIPIP TunnelType = 0
	TunnelGUE  TunnelType = 1
	TunnelGRE  TunnelType = 2
)

// TunnelChecksum says what checksum the outer header has. The numbers are the
// kernel's (kernel: include/uapi/linux/ip_vs.h, IP_VS_TUNNEL_ENCAP_FLAG_*).
type TunnelChecksum uint8

// The checksums of tunnels.
const (
	TunnelNoChecksum     TunnelChecksum = 0 // ipvsadm --tun-nocsum, the default
	TunnelChecksumOn     TunnelChecksum = 1 // --tun-csum
	TunnelRemoteChecksum TunnelChecksum = 2 // --tun-remcsum: left to the server, gue only
)

// String returns ipvsadm's word.
func (t TunnelType) String() string {
	switch t {
	case TunnelIPIP:
		return "ipip"
	case TunnelGUE:
		return "gue"
	case TunnelGRE:
		return "gre"
	default:
		return fmt.Sprintf("type-%d", uint8(t))
	}
}

// ParseTunnelType reads a word as String prints it, in any case.
func ParseTunnelType(s string) (TunnelType, error) {
	for _, t := range []TunnelType{TunnelIPIP, TunnelGUE, TunnelGRE} {
		if strings.EqualFold(s, t.String()) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("unknown tunnel type %q: want ipip, gue or gre", s)
}

// String returns the word used in configuration.
func (c TunnelChecksum) String() string {
	switch c {
	case TunnelNoChecksum:
		return "none"
	case TunnelChecksumOn:
		return "full"
	case TunnelRemoteChecksum:
		return "remote"
	default:
		return fmt.Sprintf("checksum-%d", uint8(c))
	}
}

// ParseTunnelChecksum reads a word as String prints it, in any case.
func ParseTunnelChecksum(s string) (TunnelChecksum, error) {
	for _, c := range []TunnelChecksum{TunnelNoChecksum, TunnelChecksumOn, TunnelRemoteChecksum} {
		if strings.EqualFold(s, c.String()) {
			return c, nil
		}
	}
	return 0, fmt.Errorf("unknown tunnel checksum %q: want none, full or remote", s)
}

// Validate returns an error that says why no server can be reached by the tunnel,
// nil if one can.
func (t TunnelOptions) Validate() error {
	if text := t.problem(); text != "" {
		return &Problem{Field: "tunnel", Text: text}
	}
	return nil
}

// problem says why no server can be reached by the tunnel; empty if one can.
func (t TunnelOptions) problem() string {
	switch {
	case t.Type > TunnelGRE:
		return fmt.Sprintf("unknown tunnel type %d", uint8(t.Type))
	case t.Type == TunnelGUE && t.Port == 0:
		return "gue wants a port" // kernel: ip_vs_ctl.c, ip_vs_add_dest
	case t.Type != TunnelGUE && t.Port != 0:
		return fmt.Sprintf("port %d: only gue has a port", t.Port)
	case t.Checksum > TunnelRemoteChecksum:
		return fmt.Sprintf("unknown tunnel checksum %d", uint8(t.Checksum))
	case t.Type == TunnelIPIP && t.Checksum != TunnelNoChecksum:
		return "ipip has no checksum: gue and gre have"
	case t.Type != TunnelGUE && t.Checksum == TunnelRemoteChecksum:
		return "only gue has a remote checksum"
	default:
		return ""
	}
}
