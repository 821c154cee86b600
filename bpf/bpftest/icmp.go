package bpftest

import (
	"encoding/binary"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/shunt-lb/shunt/bpf"
)

// Message is an ICMP or ICMPv6 message in an Ethernet frame. The zero value of a
// field is the ordinary thing, as of Packet's.
type Message struct {
	Source, Destination MAC
	VLANs               []uint16
	From, To            netip.Addr
	TTL                 uint8 // 0: 64
	TOS                 uint8
	Options             int // octets, IPv4
	Extensions          []Extension

	Type, Code uint8
	Parameter  uint32 // the second word of the header
	Body       []byte // what follows that
}

// Bytes returns the frame. It panics on what no message can be.
func (m Message) Bytes() []byte {
	p, eth, network, body := m.parts()
	if ip6, ok := network.(*layers.IPv6); ok {
		body = p.extend(ip6, body)
	}
	return p.framed(eth, network.(gopacket.SerializableLayer), gopacket.Payload(body))
}

// Fragments returns the message in frames, as Packet's does.
func (m Message) Fragments(octets int, id uint16) [][]byte {
	p, eth, network, body := m.parts()
	p.ID = id
	if ip, ok := network.(*layers.IPv4); ok {
		ip.Id = id
	}
	return p.split(eth, network, body, octets)
}

// parts returns the packet that the message is in, its IP header, and the message.
func (m Message) parts() (Packet, layers.EthernetType, gopacket.NetworkLayer, []byte) {
	p := Packet{
		Source: m.Source, Destination: m.Destination, VLANs: m.VLANs, TTL: m.TTL, TOS: m.TOS, Options: m.Options,
		Extensions: m.Extensions, From: netip.AddrPortFrom(m.From, 0), To: netip.AddrPortFrom(m.To, 0),
	}
	network, eth := p.network()
	word := binary.BigEndian.AppendUint32(nil, m.Parameter)
	ip6, is6 := network.(*layers.IPv6)
	if !is6 {
		network.(*layers.IPv4).Protocol = layers.IPProtocolICMPv4
		icmp := &layers.ICMPv4{
			TypeCode: layers.CreateICMPv4TypeCode(m.Type, m.Code),
			Id:       uint16(m.Parameter >> 16), Seq: uint16(m.Parameter),
		}
		return p, eth, network, serialized(icmp, gopacket.Payload(m.Body))
	}
	ip6.NextHeader = layers.IPProtocolICMPv6
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(m.Type, m.Code)}
	orPanic(icmp.SetNetworkLayerForChecksum(ip6))
	return p, eth, network, serialized(icmp, gopacket.Payload(append(word, m.Body...)))
}

// Quote returns what a router quotes of the packet: its IP header, options and
// extension headers included, and octets of what is behind.
func Quote(p Packet, octets int) []byte {
	frame := p.Bytes()[14+4*len(p.VLANs):]
	header := 40
	if p.From.Addr().Is4() {
		header = 20 + p.Options
	}
	for _, e := range p.Extensions {
		header += e.Length
	}
	return frame[:min(len(frame), header+octets)]
}

// SetEcho says what becomes of echo requests to the addresses.
func (f *Fixture) SetEcho(addresses netip.Prefix, echo bpf.KernelEcho) {
	f.t.Helper()
	f.must(f.Plane.SetEcho(addresses, echo))
}
