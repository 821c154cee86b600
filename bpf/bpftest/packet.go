package bpftest

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Packet is a TCP or UDP packet in an Ethernet frame. The zero value of a field
// is the ordinary thing: no tags, TTL 64, right checksums.
type Packet struct {
	Source, Destination MAC
	VLANs               []uint16 // TCIs, outer first; two: the outer one is 802.1ad's
	From, To            netip.AddrPort
	Protocol            uint8 // 0: TCP
	TTL                 uint8 // 0: 64
	TOS                 uint8
	ID                  uint16
	DF                  bool

	// Options is how many octets of IPv4 options (no-operation) there are.
	Options int
	// Extensions are the IPv6 extension headers in order; Inside are those that a
	// fragment header would come before.
	Extensions, Inside []Extension

	Flags      string // of TCP: letters of SAFRP
	Seq, Ack   uint32
	TCPOptions int // octets
	// RawTCPOptions are TCP's options as they are, in place of TCPOptions; a multiple of 4 octets.
	RawTCPOptions []byte
	// NoChecksum makes UDP's checksum 0.
	NoChecksum bool
	Payload    []byte
}

// Extension is an IPv6 extension header.
type Extension struct {
	Header uint8 // 0, 43 or 60: hop-by-hop, routing, destination options
	Length int   // octets, a multiple of 8
	Left   uint8 // of a routing header: how many addresses are left
}

var serialize = gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}

// Bytes returns the frame. It panics on what no packet can be.
func (p Packet) Bytes() []byte {
	network, eth := p.network()
	ip6, is6 := network.(*layers.IPv6)
	body := p.body(network, is6)
	if is6 {
		body = p.extend(ip6, body)
	}
	return p.framed(eth, network.(gopacket.SerializableLayer), gopacket.Payload(body))
}

// framed puts the link header and the tags in front, and no padding behind.
func (p Packet) framed(eth layers.EthernetType, above ...gopacket.SerializableLayer) []byte {
	frame := slices.Concat(p.Destination[:], p.Source[:])
	for i, tci := range p.VLANs {
		tag := layers.EthernetTypeDot1Q
		if i == 0 && len(p.VLANs) == 2 {
			tag = layers.EthernetTypeQinQ
		}
		frame = binary.BigEndian.AppendUint16(frame, uint16(tag))
		frame = binary.BigEndian.AppendUint16(frame, tci)
	}
	frame = binary.BigEndian.AppendUint16(frame, uint16(eth))
	return append(frame, serialized(above...)...)
}

// network returns the IP header and its EtherType.
func (p Packet) network() (gopacket.NetworkLayer, layers.EthernetType) {
	ttl := p.TTL
	if ttl == 0 {
		ttl = 64
	}
	protocol := layers.IPProtocol(p.protocol())
	if p.From.Addr().Is6() {
		return &layers.IPv6{
			Version: 6, TrafficClass: p.TOS, NextHeader: protocol, HopLimit: ttl,
			SrcIP: p.From.Addr().AsSlice(), DstIP: p.To.Addr().AsSlice(),
		}, layers.EthernetTypeIPv6
	}
	ip := &layers.IPv4{
		Version: 4, TOS: p.TOS, Id: p.ID, TTL: ttl, Protocol: protocol,
		SrcIP: p.From.Addr().AsSlice(), DstIP: p.To.Addr().AsSlice(),
	}
	if p.DF {
		ip.Flags = layers.IPv4DontFragment
	}
	for range p.Options {
		ip.Options = append(ip.Options, layers.IPv4Option{OptionType: 1})
	}
	return ip, layers.EthernetTypeIPv4
}

func (p Packet) protocol() uint8 {
	if p.Protocol == 0 {
		return TCP
	}
	return p.Protocol
}

func (p Packet) transport(network gopacket.NetworkLayer) gopacket.SerializableLayer {
	if p.protocol() == UDP {
		udp := &layers.UDP{SrcPort: layers.UDPPort(p.From.Port()), DstPort: layers.UDPPort(p.To.Port())}
		orPanic(udp.SetNetworkLayerForChecksum(network))
		return udp
	}
	has := func(letter string) bool { return strings.Contains(p.Flags, letter) }
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(p.From.Port()), DstPort: layers.TCPPort(p.To.Port()), Seq: p.Seq, Ack: p.Ack,
		SYN: has("S"), ACK: has("A"), FIN: has("F"), RST: has("R"), PSH: has("P"), Window: 512,
	}
	if p.TCPOptions > 0 {
		tcp.Options = make([]layers.TCPOption, p.TCPOptions)
		for i := range tcp.Options {
			tcp.Options[i].OptionType = layers.TCPOptionKindNop
		}
	}
	orPanic(tcp.SetNetworkLayerForChecksum(network))
	return tcp
}

// extend puts the extension headers in front of the transport header.
func (p Packet) extend(ip6 *layers.IPv6, body []byte) []byte {
	ip6.NextHeader = layers.IPProtocol(extended(uint8(ip6.NextHeader), p.Extensions, &body))
	return body
}

// extended puts extension headers in front of the body, of which next says what it is;
// what the header before them has to say follows.
func extended(next uint8, extensions []Extension, body *[]byte) uint8 {
	for i := len(extensions) - 1; i >= 0; i-- {
		e := extensions[i]
		header := make([]byte, e.Length)
		header[0], header[1] = next, uint8(e.Length/8-1)
		if e.Header == 43 {
			header[3] = e.Left
		} else {
			header[2], header[3] = 1, uint8(e.Length-4) // PadN, RFC 8200 §4.2
		}
		*body = append(header, *body...)
		next = e.Header
	}
	return next
}

func serialized(all ...gopacket.SerializableLayer) []byte {
	buffer := gopacket.NewSerializeBuffer()
	orPanic(gopacket.SerializeLayers(buffer, serialize, all...))
	return buffer.Bytes()
}

func orPanic(err error) {
	if err != nil {
		panic(err)
	}
}
