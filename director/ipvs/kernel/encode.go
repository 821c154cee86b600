package kernel

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
)

// The encoders take values that validate.go has passed.

func encodeID(e *netlink.AttributeEncoder, id ServiceID) {
	e.Uint16(serviceFamily, uint16(id.Family()))
	if id.Mark != 0 {
		e.Uint32(serviceMark, id.Mark)
		return
	}
	e.Uint16(serviceProtocol, uint16(id.Protocol))
	e.Bytes(serviceAddress, octets(id.Address.Addr()))
	e.Bytes(servicePort, portBE(id.Address.Port()))
}

func encodeService(e *netlink.AttributeEncoder, s Service) {
	encodeID(e, s.ServiceID)
	e.String(serviceScheduler, s.Scheduler)
	if s.Engine != "" { // without, the kernel takes a service's engine away
		e.String(serviceEngine, s.Engine)
	}
	// Flags and a mask of those that count. With the mask 0 the kernel would keep
	// what a service has; its own flag it sets again.
	e.Bytes(serviceFlags, binary.NativeEndian.AppendUint32(
		binary.NativeEndian.AppendUint32(nil, uint32(s.Flags)), ^uint32(0)))
	e.Uint32(serviceTimeout, seconds(s.Timeout))
	e.Bytes(serviceNetmask, s.netmask())
}

// netmask is an IPv4 mask as it is on the wire, or the length of an IPv6 prefix.
func (s Service) netmask() []byte {
	switch {
	case s.OddMask.IsValid():
		return s.OddMask.AsSlice()
	case s.Family() == IPv6:
		return binary.NativeEndian.AppendUint32(nil, uint32(s.Prefix))
	default:
		return binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-s.Prefix))
	}
}

func encodeServerID(e *netlink.AttributeEncoder, server netip.AddrPort) {
	e.Uint16(serverFamily, uint16(familyOf(server.Addr())))
	e.Bytes(serverAddress, octets(server.Addr()))
	e.Bytes(serverPort, portBE(server.Port()))
}

func encodeServer(e *netlink.AttributeEncoder, s Server) {
	encodeServerID(e, s.Address)
	e.Uint32(serverMethod, uint32(s.Method))
	e.Uint32(serverWeight, s.Weight)
	e.Uint32(serverUpper, s.Upper)
	e.Uint32(serverLower, s.Lower)
	e.Uint8(serverTunnelType, uint8(s.Tunnel.Type))
	e.Bytes(serverTunnelPort, portBE(s.Tunnel.Port))
	e.Uint16(serverTunnelFlags, uint16(s.Tunnel.Flags))
}

// encodeDaemon leaves out what is zero, for which the kernel has defaults.
func encodeDaemon(e *netlink.AttributeEncoder, d SyncDaemon) {
	e.Uint32(daemonRole, uint32(d.Role))
	e.String(daemonInterface, d.Interface)
	e.Uint32(daemonID, uint32(d.ID))
	if d.MaxLength != 0 {
		e.Uint16(daemonMaxLength, d.MaxLength)
	}
	switch {
	case d.Group.Is4():
		e.Bytes(daemonGroup, d.Group.AsSlice())
	case d.Group.IsValid():
		e.Bytes(daemonGroup6, d.Group.AsSlice())
	}
	if d.Port != 0 {
		e.Uint16(daemonPort, d.Port)
	}
	if d.TTL != 0 {
		e.Uint8(daemonTTL, d.TTL)
	}
}

// octets returns an address as IPVS keeps it: IPv4 in the first four of 16.
func octets(a netip.Addr) []byte {
	b := make([]byte, 16)
	copy(b, a.AsSlice())
	return b
}

func portBE(port uint16) []byte { return binary.BigEndian.AppendUint16(nil, port) }

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }
