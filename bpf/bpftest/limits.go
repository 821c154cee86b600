package bpftest

import (
	"encoding/binary"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/shunt-lb/shunt/bpf"
)

// PutLimits writes a service's limits and its guard, and puts them in force.
func (f *Fixture) PutLimits(s *Service, l bpf.KernelServiceLimits) {
	f.t.Helper()
	f.must(f.Plane.KernelMaps.Limits.Put(s.Index, &l))
	const limited, guarded = bpf.KernelServiceFlagsSERVICE_LIMITED, bpf.KernelServiceFlagsSERVICE_GUARDED
	s.Flags &^= limited | guarded
	if l.Guard != uint32(bpf.KernelGuardModeGUARD_OFF) {
		s.Flags |= guarded
	}
	if l.Cost != 0 || l.Connections != 0 || l.SourceCost != 0 || l.SourceConnections != 0 {
		s.Flags |= limited
	}
	f.Apply(s)
}

// ServiceState returns what became of a service's limits.
func (f *Fixture) ServiceState(s *Service) bpf.KernelServiceState {
	f.t.Helper()
	var state bpf.KernelServiceState
	f.must(f.Plane.ServiceStates.Lookup(s.Index, &state))
	return state
}

// EditServiceState changes it. No packet must run meanwhile.
func (f *Fixture) EditServiceState(s *Service, change func(*bpf.KernelServiceState)) {
	f.t.Helper()
	state := f.ServiceState(s)
	change(&state)
	f.must(f.Plane.ServiceStates.Put(s.Index, &state))
}

// Sources returns what is remembered of source networks.
func (f *Fixture) Sources() map[bpf.KernelSourceKey]bpf.KernelSource {
	f.t.Helper()
	all := map[bpf.KernelSourceKey]bpf.KernelSource{}
	var key bpf.KernelSourceKey
	var value bpf.KernelSource
	each := f.Plane.Sources.Iterate()
	for each.Next(&key, &value) {
		all[key] = value
	}
	f.must(each.Err())
	return all
}

// Validated returns the clients that have answered the guard, and when.
func (f *Fixture) Validated() map[bpf.KernelClientKey]uint32 {
	f.t.Helper()
	all := map[bpf.KernelClientKey]uint32{}
	var key bpf.KernelClientKey
	var tick uint32
	each := f.Plane.Validated.Iterate()
	for each.Next(&key, &tick) {
		all[key] = tick
	}
	f.must(each.Err())
	return all
}

// Validate has the client answer the guard at the tick.
func (f *Fixture) Validate(client netip.Addr, tick uint32) {
	f.t.Helper()
	f.must(f.Plane.Validated.Put(&bpf.KernelClientKey{Address: bpf.Address(client)}, tick))
	f.must(f.Plane.ValidatedHints.Put(bpf.FilterBit(client), tick))
}

// ForgetClients empties what is remembered of clients: source networks, and who has
// answered the guard.
func (f *Fixture) ForgetClients() {
	f.t.Helper()
	for key := range f.Sources() {
		f.must(f.Plane.Sources.Delete(&key))
	}
	for key := range f.Validated() {
		f.must(f.Plane.Validated.Delete(&key))
	}
}

// Challenge returns the frame of the guard's answer to a first segment: with this
// number, and behind the end of the IP packet what the frame had there.
func Challenge(p Packet, number uint32) []byte {
	back := Packet{
		Source: p.Destination, Destination: p.Source, VLANs: p.VLANs, From: p.To, To: p.From,
		Flags: "SA", Seq: number, Ack: number, DF: true,
	}
	network, eth := back.network()
	tcp := back.transport(network).(*layers.TCP)
	tcp.Window = 65535
	answer := back.framed(eth, network.(gopacket.SerializableLayer), tcp)
	return append(answer, p.Bytes()[len(answer):]...)
}

// AckOf returns the acknowledgment number of a TCP segment without IP options or
// extension headers; 0 of anything else.
func AckOf(frame []byte) uint32 {
	l3, eth, err := network(frame)
	if err != nil {
		return 0
	}
	header := map[uint16]int{0x0800: 20, 0x86dd: 40}[eth]
	if header == 0 || len(l3) < header+20 {
		return 0
	}
	return binary.BigEndian.Uint32(l3[header+8:])
}
