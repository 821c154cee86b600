package kernel

import (
	"fmt"
	"net/netip"
)

// Method is how packets are handed to a server. The numbers are the kernel's.
type Method uint8

// The methods.
const (
	NAT        Method = 0 // IP_VS_CONN_F_MASQ
	Local      Method = 1 // IP_VS_CONN_F_LOCALNODE
	Tunnelling Method = 2 // IP_VS_CONN_F_TUNNEL
	DR         Method = 3 // IP_VS_CONN_F_DROUTE
	Bypass     Method = 4 // IP_VS_CONN_F_BYPASS, the kernel's own
)

// String returns the method's name.
func (m Method) String() string {
	switch m {
	case NAT:
		return "nat"
	case Local:
		return "local"
	case Tunnelling:
		return "tunnel"
	case DR:
		return "dr"
	case Bypass:
		return "bypass"
	default:
		return fmt.Sprintf("method-%d", uint8(m))
	}
}

// TunnelType is the encapsulation of the method Tunnelling.
type TunnelType uint8

// The types of tunnels.
const (
	IPIP TunnelType = 0 // IP_VS_CONN_F_TUNNEL_TYPE_IPIP
	GUE  TunnelType = 1 // IP_VS_CONN_F_TUNNEL_TYPE_GUE
	GRE  TunnelType = 2 // IP_VS_CONN_F_TUNNEL_TYPE_GRE
)

// TunnelFlags are the checksum of the outer header.
type TunnelFlags uint16

// The flags of tunnels.
const (
	NoChecksum     TunnelFlags = 0 // IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM
	Checksum       TunnelFlags = 1 // IP_VS_TUNNEL_ENCAP_FLAG_CSUM
	RemoteChecksum TunnelFlags = 2 // IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM
)

// Tunnel is how packets are wrapped; the zero value is ipip.
// Requires Linux 5.3 (gue) and 5.4 (gre).
type Tunnel struct {
	Type  TunnelType
	Port  uint16 // gue's, at the server
	Flags TunnelFlags
}

// Server is a real server of one service, whose address identifies it there.
// Comparable.
type Server struct {
	// Address may be of another family than the service's if the method is
	// Tunnelling.
	Address netip.AddrPort
	Method  Method
	Weight  uint32 // below 1<<31
	// Upper and Lower are thresholds of connections; 0 for none.
	Upper, Lower uint32
	Tunnel       Tunnel
}

// ServerEntry is a server as listed.
type ServerEntry struct {
	Server
	Active, Inactive uint32 // connections
	Persistent       uint32 // templates
	Stats            Stats
}
