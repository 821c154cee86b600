package capture

import (
	"bytes"
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
)

// Side says which end of a packet is looked at.
type Side uint8

// The sides.
const (
	Destination = Side(kernelCaptureSideSIDE_DESTINATION) // a virtual address: what clients send
	Source      = Side(kernelCaptureSideSIDE_SOURCE)      // a server: what it sends back
)

// Key chooses the packets to or from an address and port, of fragments and ICMP all of
// the address; and ICMP errors about such packets.
type Key struct {
	Address  netip.AddrPort // port 0: any
	Protocol uint8
	Side     Side
	Service  uint32 // index, which Packet.Service has
}

// Range chooses the packets to a prefix of addresses and a range of ports.
type Range struct {
	Prefix      netip.Prefix
	First, Last uint16 // 0 and 65535: all
	Protocol    uint8
	Service     uint32
}

func (k Key) encode() []kernelCaptureKey {
	exact := kernelCaptureKey{Address: bpf.Address(k.Address.Addr()), Port: bpf.Port(k.Address.Port()), Protocol: k.Protocol, Side: uint8(k.Side), Family: family(k.Address.Addr())}
	whole := exact
	whole.Port, whole.Protocol = 0, 0
	return []kernelCaptureKey{exact, whole}
}

func (r Range) encode() kernelCaptureRange {
	prefix := r.Prefix.Masked()
	return kernelCaptureRange{
		Address: bpf.Address(prefix.Addr()), Mask: mask(prefix), First: r.First, Last: r.Last,
		Protocol: r.Protocol, Family: uint8(family(prefix.Addr())), Service: r.Service,
	}
}

func family(a netip.Addr) uint32 {
	if a.Is4() {
		return 4
	}
	return 6
}

// mask has the bits of an address that the prefix says, in the ABI's form.
func mask(p netip.Prefix) [4]uint32 {
	all, _ := netip.AddrFromSlice(bytes.Repeat([]byte{0xff}, p.Addr().BitLen()/8))
	return bpf.Address(netip.PrefixFrom(all, p.Bits()).Masked().Addr())
}
