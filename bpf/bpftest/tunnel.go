package bpftest

import (
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
)

// Tunnel is how packets are wrapped for servers of method tunnel.
type Tunnel struct {
	Source, Address netip.Addr // of the outer header
	Type            bpf.KernelTunnelType
	Checksum        bpf.KernelTunnelChecksum
	Port            uint16 // GUE's
	Spread          uint32 // which bits of the source's last word are the connection's, as on the wire
}

// overhead is the octets of the outer headers.
func (u Tunnel) overhead() uint8 {
	octets := uint8(20)
	if u.Address.Is6() {
		octets = 40
	}
	switch u.Type {
	case bpf.KernelTunnelTypeTUNNEL_GUE:
		octets += 12
	case bpf.KernelTunnelTypeTUNNEL_GRE:
		octets += 4
		if u.Checksum == bpf.KernelTunnelChecksumTUNNEL_CHECKSUM {
			octets += 4
		}
	}
	return octets
}

// PutTunnel writes the tunnel with this index, from 1.
func (f *Fixture) PutTunnel(index uint16, u Tunnel) {
	f.t.Helper()
	family := uint8(4)
	if u.Address.Is6() {
		family = 6
	}
	f.must(f.Plane.Tunnels.Put(uint32(index), &bpf.KernelTunnel{
		Address: bpf.Address(u.Address), Source: bpf.Address(u.Source), Spread: u.Spread, Family: family,
		Type: uint8(u.Type), Checksum: uint8(u.Checksum), Overhead: u.overhead(), Port: bpf.Port(u.Port),
	}))
}
