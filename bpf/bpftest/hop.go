package bpftest

import (
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
)

// MAC is a link address.
type MAC [6]byte

// The link addresses of the tests.
var (
	ClientMAC       = MAC{2, 0, 0, 0, 0, 0xc1} // the router the clients are behind
	OtherRouterMAC  = MAC{2, 0, 0, 0, 0, 0xc2}
	DirectorOutside = MAC{2, 0, 0, 0, 0, 0xd1}
	DirectorInside  = MAC{2, 0, 0, 0, 0, 0xd2}
	ServerMAC       = MAC{2, 0, 0, 0, 0, 0x51}
)

// Link is how frames reach a next hop.
type Link struct {
	Interface           uint32
	Source, Destination MAC
	VLANs               []uint16 // identifiers, outer first
	MTU                 uint16   // 0: not known
}

// AddHop writes a static next hop and returns its index.
func (f *Fixture) AddHop(l Link) uint32 {
	f.t.Helper()
	index := f.next.hop
	f.next.hop++
	f.SetHop(index, l)
	return index
}

// SetHop overwrites a static next hop.
func (f *Fixture) SetHop(index uint32, l Link) {
	f.t.Helper()
	hop := bpf.KernelHop{Ifindex: l.Interface, SourceMac: l.Source, DestinationMac: l.Destination, Mtu: l.MTU}
	const present = 0x1000 // packet.h, VLAN_PRESENT
	if len(l.VLANs) > 0 {
		hop.OuterVlan = bpf.Port(l.VLANs[0] | present)
	}
	if len(l.VLANs) > 1 {
		hop.InnerVlan = bpf.Port(l.VLANs[1] | present)
	}
	f.must(f.Plane.Hops.Put(index, &hop))
}

// ChangeLearnedHop edits the hop that a connection's reference names.
func (f *Fixture) ChangeLearnedHop(reference uint32, change func(*bpf.KernelHop)) {
	f.t.Helper()
	index := reference % uint32(bpf.KernelHopLayoutHOPS)
	var hop bpf.KernelHop
	f.must(f.Plane.Hops.Lookup(index, &hop))
	change(&hop)
	f.must(f.Plane.Hops.Put(index, &hop))
}

// AddVirtualAddress lets packets to the address pass the filter.
func (f *Fixture) AddVirtualAddress(a netip.Addr) {
	f.t.Helper()
	bit := bpf.FilterBit(a)
	f.filter.VirtualAddress[bit/32] |= 1 << (bit % 32)
	f.must(f.Plane.SetFilter(&f.filter))
}

// AddServerAddress lets packets from the address pass the filter.
func (f *Fixture) AddServerAddress(a netip.Addr) {
	f.t.Helper()
	bit := bpf.FilterBit(a)
	f.filter.ServerAddress[bit/32] |= 1 << (bit % 32)
	f.must(f.Plane.SetFilter(&f.filter))
}
