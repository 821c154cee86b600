package bpf_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

const gueFlow, guePort = 50000, 6080

// pathTunnel is how packets are wrapped in the tests of errors about such, of each type
// and outer family.
type pathTunnel struct {
	name     string
	kind     bpf.KernelTunnelType
	isV6     bool
	overhead uint8
	checksum bool
}

var pathTunnels = []pathTunnel{
	{"ipip", bpf.KernelTunnelTypeTUNNEL_IPIP, false, 20, false},
	{"ipip", bpf.KernelTunnelTypeTUNNEL_IPIP, true, 40, false},
	{"gue", bpf.KernelTunnelTypeTUNNEL_GUE, false, 32, false},
	{"gue", bpf.KernelTunnelTypeTUNNEL_GUE, true, 52, true},
	{"gre", bpf.KernelTunnelTypeTUNNEL_GRE, false, 24, false},
	{"gre with checksum", bpf.KernelTunnelTypeTUNNEL_GRE, true, 48, true},
}

func (p pathTunnel) ends() (source, destination netip.Addr) {
	if p.isV6 {
		return netip.MustParseAddr("fd00::9"), families[1].server.Addr()
	}
	return netip.MustParseAddr("10.0.0.9"), families[0].server.Addr()
}

// install makes it tunnel 2 of the fixture's server, the second of its key. The first has
// another source; the third has the same and differs in its checksum alone.
func (p pathTunnel) install(f *bpftest.Fixture, server *bpftest.Server) error {
	source, destination := p.ends()
	k := bpf.KernelTunnel{
		Address: bpf.Address(destination), Source: bpf.Address(source), Family: 4, Type: uint8(p.kind), Overhead: p.overhead,
	}
	key := bpf.KernelTunnelKey{Address: k.Address, Type: k.Type, Family: 4}
	if p.isV6 {
		k.Family, key.Family = 6, 6
	}
	if p.kind == bpf.KernelTunnelTypeTUNNEL_GUE {
		k.Port, key.Port = bpf.Port(guePort), bpf.Port(guePort)
	}
	if p.checksum {
		k.Checksum = uint8(bpf.KernelTunnelChecksumTUNNEL_CHECKSUM)
	}
	other := k
	other.Source, other.Next = bpf.Address(destination), 3
	twin := k
	twin.Next = 2
	twin.Checksum = uint8(bpf.KernelTunnelChecksumTUNNEL_CHECKSUM) - k.Checksum
	if p.kind == bpf.KernelTunnelTypeTUNNEL_GRE {
		twin.Overhead = map[bool]uint8{false: k.Overhead + 4, true: k.Overhead - 4}[p.checksum]
	}
	var s bpf.KernelServer
	for _, act := range []func() error{
		func() error { return f.Plane.Tunnels.Put(uint32(1), &other) },
		func() error { return f.Plane.Tunnels.Put(uint32(2), &k) },
		func() error { return f.Plane.Tunnels.Put(uint32(3), &twin) },
		func() error { return f.Plane.TunnelIndex.Put(key, uint32(1)) },
		func() error { return f.Plane.Servers.Lookup(server.Index, &s) },
		func() error { s.Tunnel = 2; return f.Plane.Servers.Put(server.Index, &s) },
	} {
		if err := act(); err != nil {
			return err
		}
	}
	return nil
}

// wrapped is the packet as a router on the path quotes it, so many octets of the inner one.
func (p pathTunnel) wrapped(inner bpftest.Packet, octets int) []byte {
	source, destination := p.ends()
	packet := inner.Bytes()[14:]
	total := len(packet) + int(p.overhead)
	protocol, eth := uint8(4), uint16(0x0800)
	if inner.From.Addr().Is6() {
		protocol, eth = 41, 0x86dd
	}
	var between []byte
	switch p.kind {
	case bpf.KernelTunnelTypeTUNNEL_GUE:
		between = binary.BigEndian.AppendUint16(between, gueFlow)
		between = binary.BigEndian.AppendUint16(between, guePort)
		between = append(between, 0, 0, 0, 0, 0, protocol, 0, 0)
		if p.checksum {
			between[6] = 0x12
		}
		protocol = 17
	case bpf.KernelTunnelTypeTUNNEL_GRE:
		between = binary.BigEndian.AppendUint16([]byte{0, 0}, eth)
		if p.checksum {
			between[0] = 0x80
			between = append(between, 0x12, 0x34, 0, 0)
		}
		protocol = 47
	}
	buffer := gopacket.NewSerializeBuffer()
	var outer gopacket.SerializableLayer = &layers.IPv4{
		Version: 4, IHL: 5, Length: uint16(total), TTL: 60, Protocol: layers.IPProtocol(protocol), SrcIP: source.AsSlice(), DstIP: destination.AsSlice(),
	}
	if p.isV6 {
		outer = &layers.IPv6{
			Version: 6, Length: uint16(total - 40), NextHeader: layers.IPProtocol(protocol), HopLimit: 60, SrcIP: source.AsSlice(), DstIP: destination.AsSlice(),
		}
	}
	if err := outer.SerializeTo(buffer, gopacket.SerializeOptions{}); err != nil {
		panic(err)
	}
	return append(append(buffer.Bytes(), between...), packet[:min(octets, len(packet))]...)
}

// tooBigFor is the error of a router on the path.
func (p pathTunnel) tooBigFor(inner bpftest.Packet, octets int, mtu uint32) bpftest.Message {
	source, _ := p.ends()
	m := bpftest.Message{
		Source: bpftest.ServerMAC, Destination: bpftest.DirectorInside, From: routers[p.isV6], To: source,
		Type: 3, Code: 4, Parameter: mtu, Body: p.wrapped(inner, octets),
	}
	if p.isV6 {
		m.Type, m.Code = 2, 0
	}
	return m
}

// A router that cannot take a wrapped packet tells the path's MTU; the client is told
// what is left of that, in its own family, if enough is quoted of its packet.
func testPathMTU(t *testing.T, f *bpftest.Fixture) {
	var err error
	f.Do(func() { err = addRoutes() })
	if err != nil {
		t.Fatal(err)
	}
	options, err := f.Plane.PacketOptions()
	if err != nil {
		t.Fatal(err)
	}
	options.PathTicks = f.Plane.Clock.Ticks(10 * time.Minute)
	if err := f.Plane.SetPacketOptions(&options); err != nil {
		t.Fatal(err)
	}
	for _, p := range pathTunnels {
		for _, a := range families {
			t.Run(fmt.Sprintf("%s/%s in %t", p.name, a.name, p.isV6), func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, bpf.KernelMethodMETHOD_TUNNEL)
				if err := p.install(f, s.service.Servers[0]); err != nil {
					t.Fatal(err)
				}
				s.testPathMTU(t, p)
			})
		}
	}
}

// A service whose packets are scheduled each by itself has no connections that could be
// quoted: errors about what goes to it are believed.
func testPathMTUOfOnePackets(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s, p := newScene(t, f, a, bpftest.UDP, bpf.KernelMethodMETHOD_TUNNEL), pathTunnels[0]
			s.service.Flags |= bpf.KernelServiceFlagsSERVICE_ONE_PACKET
			f.Apply(s.service)
			if err := p.install(f, s.service.Servers[0]); err != nil {
				t.Fatal(err)
			}
			inner := s.request()
			inner.Payload = pattern(1400)
			m := p.tooBigFor(inner, 1000, 1390)
			run(t, f, m.Bytes(), passed(m.Bytes()), one("path-mtu", "icmp"))
			s.wantPath(t, 1390)
			inner.Protocol, inner.Flags = bpftest.TCP, "A"
			m = p.tooBigFor(inner, 1000, 1380)
			run(t, f, m.Bytes(), passed(m.Bytes()), one("path-mtu-refused", "icmp"))
			s.wantPath(t, 1390)
		})
	}
}

func (s *scene) testPathMTU(t *testing.T, p pathTunnel) {
	t.Helper()
	if got := s.Run(s.request().Bytes()); got.Action != bpftest.TX {
		t.Fatalf("the first segment: %v %v", got.Action, s.Events())
	}
	inner := s.request()
	inner.Flags, inner.Payload = "A", pattern(1400)
	header := 20
	if s.isV6() {
		header = 40
	}
	about := inner
	about.Source, about.Destination = bpftest.OtherRouterMAC, bpftest.DirectorInside
	answer := func(mtu uint32) bpftest.Result {
		e := bpftest.ICMPError{Type: 3, Code: 4, Parameter: mtu, Quoted: 28}
		if s.isV6() {
			e = bpftest.ICMPError{Type: 2, Parameter: mtu, Quoted: 48}
		}
		return bpftest.Result{Action: bpftest.Redirect, Packet: e.About(about)}
	}
	told := one("path-mtu", "icmp-to-client", "by-route")
	for _, octets := range []int{header + 8, header + 64, 1000} {
		m := p.tooBigFor(inner, octets, 1400)
		run(t, s.Fixture, m.Bytes(), answer(1400-uint32(p.overhead)), told)
		s.wantPath(t, 1400)
	}
	// Not enough of it, or behind tags: left to the stack. Routers of IPv4 may quote so little, and
	// are believed as far as does not hurt much.
	refused, path := one("path-mtu-refused", "icmp"), uint16(1400)
	m := p.tooBigFor(inner, header+7, 1390)
	if p.isV6 {
		run(t, s.Fixture, m.Bytes(), passed(m.Bytes()), refused)
	} else {
		path = 1390
		run(t, s.Fixture, m.Bytes(), passed(m.Bytes()), one("path-mtu", "icmp"))
	}
	s.wantPath(t, path)
	m = p.tooBigFor(inner, 1000, 600)
	m.Body = m.Body[:map[bool]int{false: 20, true: 40}[p.isV6]+7]
	short := refused // less than RFC 792 asks; UDP's is not looked at at all
	if p.kind == bpf.KernelTunnelTypeTUNNEL_GUE {
		short = one("not-ours")
	}
	run(t, s.Fixture, m.Bytes(), passed(m.Bytes()), short)
	s.wantPath(t, path)
	m = p.tooBigFor(inner, header+8, 1380)
	m.VLANs = []uint16{100}
	run(t, s.Fixture, m.Bytes(), passed(m.Bytes()), one("path-mtu", "icmp"))
	s.wantPath(t, 1380)
	// More is not believed, the least there may be is.
	m = p.tooBigFor(inner, header+8, 1399)
	run(t, s.Fixture, m.Bytes(), answer(1399-uint32(p.overhead)), told)
	s.wantPath(t, 1380)
	path = 1380
	if !p.isV6 {
		path = 1280
		m = p.tooBigFor(inner, 8, 300)
		run(t, s.Fixture, m.Bytes(), passed(m.Bytes()), one("path-mtu", "icmp"))
	}
	s.wantPath(t, path)
	s.refusesPath(t, p, inner, path)
	least := uint16(576)
	if p.isV6 {
		least = 1280
	}
	m = p.tooBigFor(inner, header+8, 100)
	left := max(uint32(least)-uint32(p.overhead), map[bool]uint32{true: 1280}[s.isV6()])
	run(t, s.Fixture, m.Bytes(), answer(left), told)
	s.wantPath(t, least)
	s.distrustsPath(t, p, inner, least)
}

// refusesPath sends errors that quote no packet of a connection by the path, as anybody can.
func (s *scene) refusesPath(t *testing.T, p pathTunnel, inner bpftest.Packet, path uint16) {
	t.Helper()
	stranger, closed, reply, datagram := inner, inner, inner, inner
	stranger.From = netip.AddrPortFrom(inner.From.Addr(), inner.From.Port()+1)
	closed.To = netip.AddrPortFrom(inner.To.Addr(), inner.To.Port()+1)
	reply.From, reply.To = inner.To, inner.From
	datagram.Protocol = bpftest.UDP
	for name, inside := range map[string]bpftest.Packet{"another client's": stranger, "to another port": closed, "the other way": reply, "a datagram": datagram} {
		m := p.tooBigFor(inside, 1000, 1281)
		got := s.Run(m.Bytes())
		if diff := cmp.Diff(one("path-mtu-refused", "icmp"), s.Events()); diff != "" || got.Action != bpftest.Pass {
			t.Errorf("%s: %v; events (-want +got):\n%s", name, got.Action, diff)
		}
	}
	// One of a connection that goes another way is not of this path's either.
	server, other := s.service.Servers[0], bpf.KernelServer{}
	put := func(tunnel uint16) {
		t.Helper()
		if err := s.Plane.Servers.Lookup(server.Index, &other); err != nil {
			t.Fatal(err)
		}
		other.Tunnel = tunnel
		if err := s.Plane.Servers.Put(server.Index, &other); err != nil {
			t.Fatal(err)
		}
	}
	m := p.tooBigFor(inner, 1000, 1281)
	put(1)
	run(t, s.Fixture, m.Bytes(), passed(m.Bytes()), one("path-mtu-refused", "icmp"))
	put(2)
	s.wantPath(t, path)
}

// distrustsPath sends errors that are not to be believed.
func (s *scene) distrustsPath(t *testing.T, p pathTunnel, inner bpftest.Packet, path uint16) {
	t.Helper()
	for name, change := range map[string]func(*bpftest.Message){
		"an MTU that the packet has": func(m *bpftest.Message) { m.Parameter = 1460 + uint32(p.overhead) },
		"no MTU":                     func(m *bpftest.Message) { m.Parameter = 0 },
		"another error":              func(m *bpftest.Message) { m.Type, m.Code = map[bool]uint8{false: 11, true: 3}[p.isV6], 0 },
		"another destination":        func(m *bpftest.Message) { m.To = routers[p.isV6] },
		"a packet of another's": func(m *bpftest.Message) {
			m.To = netip.MustParseAddr(map[bool]string{false: "10.0.0.10", true: "fd00::a"}[p.isV6])
			swapSource(m)
		},
		"a packet to somebody else":   func(m *bpftest.Message) { m.Body[map[bool]int{false: 19, true: 39}[p.isV6]]++ },
		"a packet of another payload": func(m *bpftest.Message) { m.Body[map[bool]int{false: 9, true: 6}[p.isV6]] = 50 },
	} {
		m := p.tooBigFor(inner, 1000, 300)
		if p.isV6 {
			m.Parameter = 1281
		}
		change(&m)
		s.Events()
		if got := s.Run(m.Bytes()); got.Action != bpftest.Pass || s.Events()["path-mtu"] != 0 {
			t.Errorf("%s: %v", name, got.Action)
		}
		s.wantPath(t, path)
	}
	m := p.tooBigFor(inner, 1000, uint32(path))
	frame := m.Bytes()
	frame[len(frame)-1] ^= 1
	run(t, s.Fixture, frame, passed(frame), one("not-ours"))
}

// Errors about what a server behind a tunnel has sent go there as they are, wrapped.
func testICMPThroughTunnel(t *testing.T, f *bpftest.Fixture) {
	for _, p := range pathTunnels {
		for _, a := range families {
			s := newScene(t, f, a, bpftest.UDP, bpf.KernelMethodMETHOD_TUNNEL)
			if err := p.install(f, s.service.Servers[0]); err != nil {
				t.Fatal(err)
			}
			request := s.Run(s.request().Bytes())
			back := s.reply()
			back.From, back.Payload = s.virtual, pattern(600)
			for _, e := range icmpErrors[a.isV6()] {
				for _, tags := range [][]uint16{nil, {100}} {
					in := errorFrom(e, routers[a.isV6()], back, 64)
					in.VLANs = tags
					s.Events()
					got := s.Run(in.Bytes())
					if diff := cmp.Diff(one("icmp-to-server"), s.Events()); got.Action != bpftest.TX || diff != "" {
						t.Fatalf("%s of %s: %v; events (-want +got):\n%s", p.name, a.name, got.Action, diff)
					}
					inside := in
					inside.TTL, inside.VLANs = 63, nil
					at := 14 + int(p.overhead)
					if diff := cmp.Diff(inside.Bytes()[14:], got.Packet[at:]); diff != "" {
						t.Errorf("%s of %s: inside (-want +got):\n%s", p.name, a.name, diff)
					}
					if diff := cmp.Diff(wayOf(request.Packet, p), wayOf(got.Packet, p)); diff != "" {
						t.Errorf("%s of %s: another way than the connection's (-want +got):\n%s", p.name, a.name, diff)
					}
					if err := bpftest.Verify(got.Packet); err != nil && !errors.Is(err, bpftest.ErrNotChecked) {
						t.Errorf("%s of %s: %v", p.name, a.name, err)
					}
				}
			}
			link := serverLink(f.Outside)
			link.MTU = 100
			hop := s.service.Servers[0].Hop
			f.SetHop(hop, link)
			in := errorFrom(unreachable(a.isV6()), routers[a.isV6()], back, 64)
			if a.isV6() {
				in.Body = bpftest.Quote(back, 1240) // less than IPv6's least always fits
			}
			run(t, f, in.Bytes(), dropped, one("too-big"))
		}
	}
}

// wayOf is what routers look at of a wrapped packet's outer headers: the link's and the
// network's addresses, and the ports if there are any.
func wayOf(frame []byte, p pathTunnel) string {
	addresses, ports := frame[14+12:14+20], frame[14+20:14+24]
	if p.isV6 {
		addresses, ports = frame[14+8:14+40], frame[14+40:14+44]
	}
	if p.kind != bpf.KernelTunnelTypeTUNNEL_GUE {
		ports = nil
	}
	return fmt.Sprintf("%x %x %x", frame[:14], addresses, ports)
}

// swapSource makes the quoted packet that of the error's destination.
func swapSource(m *bpftest.Message) {
	at := 12
	if m.To.Is6() {
		at = 8
	}
	copy(m.Body[at:], m.To.AsSlice())
}

func (s *scene) wantPath(t *testing.T, mtu uint16) {
	t.Helper()
	var got [3]bpf.KernelTunnel
	for i := range got {
		if err := s.Plane.Tunnels.Lookup(uint32(1+i), &got[i]); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([3]uint16{0, mtu, mtu}, [3]uint16{got[0].Mtu, got[1].Mtu, got[2].Mtu}); diff != "" {
		t.Errorf("MTUs of the paths (-want +got):\n%s", diff)
	}
}
