package bpftest

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// ICMPError is an error message about a packet, sent back where it came from.
type ICMPError struct {
	Type, Code uint8
	Parameter  uint32 // the second word of the header: 0 or the MTU
	Quoted     int    // octets of the packet from its IP header on
	// From is whose error it is; the zero value is the packet's destination.
	From netip.Addr
}

// About returns the frame of the error about the packet.
func (e ICMPError) About(p Packet) []byte {
	network, eth := p.network()
	if !e.From.IsValid() {
		e.From = p.To.Addr()
	}
	frame := p.Bytes()
	offset := 14 + 4*len(p.VLANs)
	word := binary.BigEndian.AppendUint32(nil, e.Parameter)
	quote := append(word, frame[offset:offset+e.Quoted]...)
	back := p
	back.Source, back.Destination = p.Destination, p.Source
	if _, ok := network.(*layers.IPv6); ok {
		ip6 := &layers.IPv6{
			Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: 64,
			SrcIP: e.From.AsSlice(), DstIP: p.From.Addr().AsSlice(),
		}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(e.Type, e.Code)}
		orPanic(icmp.SetNetworkLayerForChecksum(ip6))
		return back.framed(eth, ip6, icmp, gopacket.Payload(quote))
	}
	ip := &layers.IPv4{
		Version: 4, TOS: 0xc0, TTL: 64, Protocol: layers.IPProtocolICMPv4, Flags: layers.IPv4DontFragment,
		SrcIP: e.From.AsSlice(), DstIP: p.From.Addr().AsSlice(),
	}
	icmp := &layers.ICMPv4{
		TypeCode: layers.CreateICMPv4TypeCode(e.Type, e.Code),
		Id:       uint16(e.Parameter >> 16), Seq: uint16(e.Parameter),
	}
	return back.framed(eth, ip, icmp, gopacket.Payload(quote[4:]))
}

// Reset returns the frame of the reset of a TCP segment, by RFC 9293 §3.5.2 with
// the sequence numbers and flags given.
func Reset(p Packet, flags string, seq, ack uint32) []byte {
	network, eth := p.network()
	back := Packet{
		Source: p.Destination, Destination: p.Source, VLANs: p.VLANs, From: p.To, To: p.From,
		Flags: flags, Seq: seq, Ack: ack, DF: true,
	}
	if _, ok := network.(*layers.IPv6); ok {
		back.TOS = p.TOS
	}
	network, _ = back.network()
	tcp := back.transport(network).(*layers.TCP)
	tcp.Window = 0
	return back.framed(eth, network.(gopacket.SerializableLayer), tcp)
}

// AsReset returns the frame of the segment p made a reset: its own numbers, no
// payload, no TCP options, no window.
func AsReset(p Packet) []byte {
	network, eth := p.network()
	flags := "R"
	if strings.Contains(p.Flags, "A") {
		flags = "RA"
	} else {
		p.Ack = 0
	}
	p.Flags, p.Payload, p.TCPOptions = flags, nil, 0
	tcp := p.transport(network).(*layers.TCP)
	tcp.Window = 0
	body := serialized(tcp)
	if ip6, ok := network.(*layers.IPv6); ok {
		body = p.extend(ip6, body)
	}
	return p.framed(eth, network.(gopacket.SerializableLayer), gopacket.Payload(body))
}
