package decap_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/bpf/decap"
)

// family are the addresses of a scene in one family.
type family struct {
	name                            string
	director, server                netip.Addr // of outer headers
	client, virtual                 netip.AddrPort
	otherDirector, other, otherName netip.Addr // none of which is let in, this host's, virtual
}

var (
	v4 = family{
		name: "v4", director: addr("10.0.0.1"), server: addr("10.0.0.2"), otherDirector: addr("10.9.0.1"), other: addr("10.0.0.3"),
		client: netip.MustParseAddrPort("198.51.100.7:40000"), virtual: netip.MustParseAddrPort("192.0.2.10:80"), otherName: addr("192.0.2.11"),
	}
	v6 = family{
		name: "v6", director: addr("fd00::1"), server: addr("fd00::2"), otherDirector: addr("fd00:9::1"), other: addr("fd00::3"),
		client: netip.MustParseAddrPort("[2001:db8:1::7]:40000"), virtual: netip.MustParseAddrPort("[2001:db8::10]:80"), otherName: addr("2001:db8:2::1"),
	}
	families = []family{v4, v6}
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// config is that of the scene: one address of each kind, virtual ones of a prefix in IPv6.
func config() decap.Config {
	return decap.Config{
		Ports: []uint16{6080, 5555},
		To:    []netip.Prefix{netip.PrefixFrom(v4.server, 32), netip.PrefixFrom(v6.server, 128)},
		From:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")},
		Virtual: []netip.Prefix{
			netip.PrefixFrom(v4.virtual.Addr(), 32), netip.MustParsePrefix("2001:db8::/64"),
		},
	}
}

// tunnel is how a packet is wrapped. The zero value is ipip.
type tunnel struct {
	kind     decap.Type
	direct   bool // gue's variant 1
	checksum bool
	port     uint16 // 0: 6080
	// optional are gue's fields behind its header, flags what it says of them.
	optional []byte
	flags    uint16
	first    byte   // bits added to gue's first octet
	protocol byte   // gue's; 0: the inner packet's
	greFlags uint16 // added to gre's
	greType  uint16 // 0: the inner packet's
}

func (w tunnel) String() string {
	text := map[decap.Type]string{decap.IPIP: "ipip", decap.GUE: "gue", decap.GRE: "gre"}[w.kind]
	if w.direct {
		text += "-direct"
	}
	if w.checksum {
		text += "-checksum"
	}
	return text
}

// tunnels are all ways to wrap that are opened.
var tunnels = []tunnel{
	{kind: decap.IPIP},
	{kind: decap.GUE},
	{kind: decap.GUE, checksum: true, port: 5555},
	{kind: decap.GUE, direct: true},
	{kind: decap.GUE, direct: true, checksum: true},
	{kind: decap.GUE, checksum: true, optional: []byte{0, 0, 0, 0, 1, 2, 3, 4}, flags: 1},
	{kind: decap.GUE, optional: []byte{1, 2, 3, 4}}, // data for the receiver, as GLB's
	{kind: decap.GRE},
	{kind: decap.GRE, checksum: true},
}

// outer is the outer packet but for what is in it.
type outer struct {
	from, to   netip.Addr
	tos        uint8
	options    int // octets of IPv4 options
	extensions []bpftest.Extension
	fragment   uint16 // of IPv4: flags and offset
	next       uint8  // 0: the tunnel's protocol
}

// wrapped puts an IP packet into a tunnel and an Ethernet frame around. It shares
// no code with the program, nor with the director's.
func wrapped(tags []uint16, o outer, w tunnel, inner []byte) []byte {
	payload, protocol := w.around(o, inner)
	if o.next != 0 {
		protocol = o.next
	}
	return slices.Concat(framing(tags, o.from.Is6()), o.header(protocol, payload))
}

// framing is the link header.
func framing(tags []uint16, isV6 bool) []byte {
	frame := slices.Concat(bpftest.DirectorInside[:], bpftest.DirectorOutside[:])
	for i, tci := range tags {
		kind := uint16(0x8100)
		if i == 0 && len(tags) == 2 {
			kind = 0x88a8
		}
		frame = binary.BigEndian.AppendUint16(frame, kind)
		frame = binary.BigEndian.AppendUint16(frame, tci)
	}
	if isV6 {
		return binary.BigEndian.AppendUint16(frame, 0x86dd)
	}
	return binary.BigEndian.AppendUint16(frame, 0x0800)
}

// around puts the tunnel's header in front; the result's protocol is the second value.
func (w tunnel) around(o outer, inner []byte) ([]byte, uint8) {
	isV6 := len(inner) > 0 && inner[0]>>4 == 6
	protocol, ethernet := uint8(4), uint16(0x0800)
	if isV6 {
		protocol, ethernet = 41, 0x86dd
	}
	switch w.kind {
	case decap.GRE:
		if w.greType != 0 {
			ethernet = w.greType
		}
		header := binary.BigEndian.AppendUint16(nil, w.greFlags)
		header = binary.BigEndian.AppendUint16(header, ethernet)
		if !w.checksum {
			return append(header, inner...), 47
		}
		header[0] |= 0x80
		all := slices.Concat(header, make([]byte, 4), inner)
		binary.BigEndian.PutUint16(all[4:], ^onesSum(all))
		return all, 47
	case decap.GUE:
		if !w.direct {
			if w.protocol != 0 {
				protocol = w.protocol
			}
			header := []byte{w.first | byte(len(w.optional)/4), protocol}
			header = binary.BigEndian.AppendUint16(header, w.flags)
			inner = slices.Concat(header, w.optional, inner)
		}
		return w.datagram(o, inner), 17
	default:
		return inner, protocol
	}
}

// datagram puts a UDP header in front.
func (w tunnel) datagram(o outer, payload []byte) []byte {
	port := w.port
	if port == 0 {
		port = decap.DefaultPort
	}
	udp := &layers.UDP{SrcPort: 50000, DstPort: layers.UDPPort(port)}
	must(udp.SetNetworkLayerForChecksum(o.layer(17).(gopacket.NetworkLayer)))
	all := serialized(udp, gopacket.Payload(payload))
	if !w.checksum {
		all[6], all[7] = 0, 0
	}
	return all
}

// header puts the outer IP header in front.
func (o outer) header(protocol uint8, payload []byte) []byte {
	for _, e := range slices.Backward(o.extensions) {
		header := make([]byte, e.Length)
		header[0], header[1] = protocol, uint8(e.Length/8-1)
		if e.Header == 44 {
			header[1] = 0
			binary.BigEndian.PutUint16(header[2:], o.fragment)
		}
		payload, protocol = append(header, payload...), e.Header
	}
	return serialized(o.layer(protocol), gopacket.Payload(payload))
}

func (o outer) layer(protocol uint8) gopacket.SerializableLayer {
	if o.from.Is6() {
		return &layers.IPv6{
			Version: 6, TrafficClass: o.tos, NextHeader: layers.IPProtocol(protocol), HopLimit: 64,
			SrcIP: o.from.AsSlice(), DstIP: o.to.AsSlice(),
		}
	}
	ip := &layers.IPv4{
		Version: 4, TOS: o.tos, TTL: 64, Protocol: layers.IPProtocol(protocol), SrcIP: o.from.AsSlice(), DstIP: o.to.AsSlice(),
		Flags: layers.IPv4Flag(o.fragment >> 13), FragOffset: o.fragment & 0x1fff,
	}
	for range o.options {
		ip.Options = append(ip.Options, layers.IPv4Option{OptionType: 1})
	}
	return ip
}

func serialized(all ...gopacket.SerializableLayer) []byte {
	buffer := gopacket.NewSerializeBuffer()
	must(gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...))
	return buffer.Bytes()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// onesSum is the one's complement sum of the words of data (RFC 1071 §1).
func onesSum(data []byte) uint16 {
	sum := 0
	for i, b := range data {
		sum += int(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum%0x10000 + sum/0x10000
	}
	return uint16(sum)
}

// request is a client's packet without its link header.
func request(f family, change ...func(*bpftest.Packet)) []byte {
	p := bpftest.Packet{From: f.client, To: f.virtual, Flags: "PA", Payload: []byte("GET / HTTP/1.0\r\n\r\n.")}
	for _, c := range change {
		c(&p)
	}
	return p.Bytes()[14:]
}

// from is an outer header from the family's director to the server.
func (f family) outer() outer { return outer{from: f.director, to: f.server} }

// loaded is a program in a test, and its counters at the last look.
type loaded struct {
	*decap.Program

	t    testing.TB
	seen map[string]uint64
}

func load(t testing.TB, c decap.Config) *loaded {
	t.Helper()
	bpftest.Privileged(t)
	p, err := decap.Load(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &loaded{Program: p, t: t, seen: map[string]uint64{}}
}

// run runs a frame through the program and returns, beside the result, the names
// of what counted one more packet, in the order of decap.Events.
func (l *loaded) run(frame []byte) (bpftest.Result, string) {
	l.t.Helper()
	result, err := bpftest.Run(l.Entry, 1, frame)
	if err != nil {
		l.t.Fatal(err)
	}
	counts, err := l.Counts()
	if err != nil {
		l.t.Fatal(err)
	}
	names := ""
	for _, c := range counts {
		for range c.Packets - l.seen[c.Name] {
			names += " " + c.Name
		}
		l.seen[c.Name] = c.Packets
	}
	return result, names
}

// check runs a frame and says what is not as wanted; want is nil for a dropped one.
func (l *loaded) check(frame, want []byte, event string) error {
	l.t.Helper()
	result, events := l.run(frame)
	switch {
	case want == nil && result.Action != bpftest.Drop, want != nil && result.Action != bpftest.Pass:
		return fmt.Errorf("%v, counted%s", result.Action, events)
	case events != " "+event:
		return fmt.Errorf("counted%s, want %s", events, event)
	case want != nil && !slices.Equal(result.Packet, want):
		return fmt.Errorf("packet\n%x\nis now\n%x\nwant\n%x", frame, result.Packet, want)
	}
	return nil
}

// toOther and toServer are no virtual addresses.
func toOther(f family) netip.AddrPort  { return netip.AddrPortFrom(f.otherName, 80) }
func toServer(f family) netip.AddrPort { return netip.AddrPortFrom(f.server, 80) }
