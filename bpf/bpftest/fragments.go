package bpftest

import (
	"encoding/binary"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/shunt-lb/shunt/bpf"
)

// Fragments returns the packet in frames with so many octets of it each, a multiple of
// 8, the last with what is left. IPv6's have ID in their fragment header.
func (p Packet) Fragments(octets int) [][]byte {
	network, eth := p.network()
	_, is6 := network.(*layers.IPv6)
	body := p.body(network, is6)
	return p.split(eth, network, body, octets)
}

// Atomic returns an IPv6 packet that is its only fragment (RFC 6946).
func (p Packet) Atomic() []byte {
	network, eth := p.network()
	body := p.body(network, true)
	return p.split(eth, network, body, (len(body)+7)/8*8)[0]
}

// body is what is divided: the transport header and what follows, of IPv6 with the
// extension headers that stand behind the fragment header.
func (p Packet) body(network gopacket.NetworkLayer, is6 bool) []byte {
	if p.RawTCPOptions != nil {
		p.TCPOptions = len(p.RawTCPOptions)
	}
	body := serialized(p.transport(network), gopacket.Payload(p.Payload))
	if p.RawTCPOptions != nil {
		p.putTCPOptions(body)
	}
	if p.NoChecksum {
		body[6], body[7] = 0, 0
	}
	if is6 {
		ip6 := network.(*layers.IPv6)
		next := extended(uint8(ip6.NextHeader), p.Inside, &body)
		ip6.NextHeader = layers.IPProtocol(next)
	}
	return body
}

func (p Packet) split(eth layers.EthernetType, network gopacket.NetworkLayer, body []byte, octets int) (frames [][]byte) {
	for at := 0; at < len(body); at += octets {
		end := min(at+octets, len(body))
		frames = append(frames, p.fragment(eth, network, body[at:end], at, end < len(body)))
	}
	return frames
}

// fragment returns the frame with the octets of the datagram that are at an offset.
func (p Packet) fragment(eth layers.EthernetType, network gopacket.NetworkLayer, octets []byte, at int, more bool) []byte {
	if ip, ok := network.(*layers.IPv4); ok {
		header := *ip
		header.FragOffset = uint16(at / 8)
		if more {
			header.Flags |= layers.IPv4MoreFragments
		}
		return p.framed(eth, &header, gopacket.Payload(octets))
	}
	header := *network.(*layers.IPv6)
	place := uint16(at)
	if more {
		place |= 1
	}
	fragment := binary.BigEndian.AppendUint16([]byte{uint8(header.NextHeader), 0}, place)
	fragment = binary.BigEndian.AppendUint32(fragment, uint32(p.ID))
	all := append(fragment, octets...)
	header.NextHeader = layers.IPProtocol(extended(44, p.Extensions, &all))
	return p.framed(eth, &header, gopacket.Payload(all))
}

// AgeFragments makes what is noted of datagrams as old as if that time had passed.
func (f *Fixture) AgeFragments(d time.Duration) {
	f.t.Helper()
	ticks := f.Plane.Clock.Ticks(d)
	for key, noted := range f.Fragments() {
		noted.Tick -= ticks
		noted.MixedTick -= ticks
		f.must(f.Plane.Fragments.Put(key, &noted))
	}
}

// Fragments returns what is noted of datagrams.
func (f *Fixture) Fragments() map[bpf.KernelFragmentKey]bpf.KernelFragment {
	f.t.Helper()
	all := map[bpf.KernelFragmentKey]bpf.KernelFragment{}
	var key bpf.KernelFragmentKey
	var noted bpf.KernelFragment
	entries := f.Plane.Fragments.Iterate()
	for entries.Next(&key, &noted) {
		all[key] = noted
	}
	f.must(entries.Err())
	return all
}

// ForgetFragments forgets all datagrams.
func (f *Fixture) ForgetFragments() {
	f.t.Helper()
	for key := range f.Fragments() {
		f.must(f.Plane.Fragments.Delete(key))
	}
}
