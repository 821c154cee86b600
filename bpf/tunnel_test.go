package bpf_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

const (
	byTunnel = bpf.KernelMethodMETHOD_TUNNEL
	ipip     = bpf.KernelTunnelTypeTUNNEL_IPIP
	gue      = bpf.KernelTunnelTypeTUNNEL_GUE
	gre      = bpf.KernelTunnelTypeTUNNEL_GRE
	unsummed = bpf.KernelTunnelChecksumTUNNEL_NO_CHECKSUM
	summed   = bpf.KernelTunnelChecksumTUNNEL_CHECKSUM
	remotely = bpf.KernelTunnelChecksumTUNNEL_REMOTE_CHECKSUM
)

// outer is a family of outer headers.
type outer struct {
	name            string
	source, address netip.Addr
}

var outers = []outer{
	{"in4", netip.MustParseAddr("10.0.0.254"), netip.MustParseAddr("10.0.0.11")},
	{"in6", netip.MustParseAddr("fd00::254"), netip.MustParseAddr("fd00::11")},
}

// tunnels are all kinds there are.
var tunnels = []struct {
	name     string
	tunnel   bpf.KernelTunnelType
	checksum bpf.KernelTunnelChecksum
	octets   int // behind the outer IP header
}{
	{"ipip", ipip, unsummed, 0},
	{"gue", gue, unsummed, 12},
	{"gue, checksum", gue, summed, 12},
	{"gue, remote checksum", gue, remotely, 12},
	{"gre", gre, unsummed, 4},
	{"gre, checksum", gre, summed, 8},
}

// tunnelled gives the scene's server the tunnel.
func (s *scene) tunnelled(u bpftest.Tunnel) {
	if u.Type == gue {
		u.Port = 6080
	}
	s.PutTunnel(1, u)
	s.service.Servers[0].Tunnel = 1
	s.Apply(s.service)
}

// wrapped is the frame that a server gets of the packet by the tunnel: all that there
// is to it, from layers that gopacket puts together and sums up. What the flow's hash
// decides is taken from got.
func wrapped(t *testing.T, p bpftest.Packet, u bpftest.Tunnel, vlans []uint16, got []byte) []byte {
	t.Helper()
	p.TTL = ttl(p) - 1
	p.Source, p.Destination = bpftest.DirectorInside, bpftest.ServerMAC
	inner := p.Bytes()[14+4*len(p.VLANs):]
	at := 14 + 4*len(vlans)
	if len(got) < at+40 {
		t.Fatalf("%d octets came out", len(got))
	}
	eth := layers.EthernetTypeIPv4
	next := layers.IPProtocolIPv4
	if inner[0]>>4 == 6 {
		eth, next = layers.EthernetTypeIPv6, layers.IPProtocolIPv6
	}
	protocol := map[bpf.KernelTunnelType]layers.IPProtocol{ipip: next, gue: layers.IPProtocolUDP, gre: layers.IPProtocolGRE}[u.Type]

	var ip gopacket.NetworkLayer
	below, header := layers.EthernetTypeIPv4, 20
	if u.Address.Is4() {
		source := netip.AddrFrom4([4]byte(got[at+12:])).AsSlice()
		ip = &layers.IPv4{
			Version: 4, TOS: p.TOS, Flags: layers.IPv4DontFragment, TTL: 64, Protocol: protocol, SrcIP: source, DstIP: u.Address.AsSlice(),
		}
	} else {
		source := netip.AddrFrom16([16]byte(got[at+8:])).AsSlice()
		ip = &layers.IPv6{
			Version: 6, TrafficClass: p.TOS, FlowLabel: binary.BigEndian.Uint32(got[at:]) & 0xfffff, NextHeader: protocol, HopLimit: 64,
			SrcIP: source, DstIP: u.Address.AsSlice(),
		}
		below, header = layers.EthernetTypeIPv6, 40
	}
	above := []gopacket.SerializableLayer{gopacket.Payload(inner)}
	switch u.Type {
	case gue:
		port := binary.BigEndian.Uint16(got[at+header:])
		if port < 49152 {
			t.Errorf("GUE's source port is %d", port)
		}
		udp := &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 6080}
		if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		above = []gopacket.SerializableLayer{udp, gopacket.Payload(append([]byte{0, byte(next), 0, 0}, inner...))}
	case gre:
		above = []gopacket.SerializableLayer{&layers.GRE{Protocol: eth, ChecksumPresent: u.Checksum == summed}, gopacket.Payload(inner)}
	}
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, append([]gopacket.SerializableLayer{ip.(gopacket.SerializableLayer)}, above...)...); err != nil {
		t.Fatal(err)
	}
	packet := slices.Clone(buffer.Bytes())
	if u.Type == gue && u.Checksum != summed {
		packet[header+6], packet[header+7] = 0, 0
	}
	frame := slices.Concat(bpftest.ServerMAC[:], bpftest.DirectorInside[:])
	for i, tci := range vlans {
		tag := layers.EthernetTypeDot1Q
		if i == 0 && len(vlans) == 2 {
			tag = layers.EthernetTypeQinQ
		}
		frame = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(frame, uint16(tag)), tci)
	}
	return append(binary.BigEndian.AppendUint16(frame, uint16(below)), packet...)
}

// runWrapped runs a packet that has to come out wrapped, and returns what did.
func (s *scene) runWrapped(t *testing.T, p bpftest.Packet, u bpftest.Tunnel, vlans []uint16) []byte {
	t.Helper()
	s.Events()
	got := s.Run(p.Bytes())
	if got.Action != bpftest.TX {
		t.Fatalf("%v %v", got.Action, s.Events())
	}
	if diff := cmp.Diff(wrapped(t, p, u, vlans, got.Packet), got.Packet); diff != "" {
		t.Errorf("frame (-want +got):\n%s", diff)
	}
	if events := s.Events(); len(events) != 0 {
		t.Errorf("events %v", events)
	}
	return got.Packet
}

// Every tunnel, every family in every other: first packets, by the slow path, and hits.
func TestTunnel(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, o := range outers {
			for _, k := range tunnels {
				for _, protocol := range protocols {
					t.Run(fmt.Sprint(a.name, o.name, "/", k.name, "/", protocol.name), func(t *testing.T) {
						s := newScene(t, f, a, protocol.number, byTunnel)
						u := bpftest.Tunnel{Source: o.source, Address: o.address, Type: k.tunnel, Checksum: k.checksum}
						s.tunnelled(u)
						s.runWrapped(t, s.request(), u, nil)
						s.establish(t)
						p := s.request()
						if protocol.number == bpftest.TCP {
							p.Flags = "A"
						}
						// Where the next hop's MTU is known, plain packets have a way of their own.
						for _, mtu := range []uint16{0, 1500} {
							link := serverLink(f.Outside)
							link.MTU = mtu
							f.SetHop(s.service.Servers[0].Hop, link)
							for _, payload := range []int{0, 1, 2, 63, 64, 65, 1201} {
								p.Payload, p.TTL, p.TOS, p.DF = pattern(payload), 2, 0xb8|1, a.name == "v4"
								s.runWrapped(t, p, u, nil)
							}
						}
					})
				}
			}
		}
	}
}

// What the inner transport checksum does not say is summed up, whatever its length;
// what is odd about a packet stays in it.
func TestTunnelOddPackets(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	destination := uint8(60)
	for _, tt := range []struct {
		name   string
		family family
		change func(*bpftest.Packet)
	}{
		{"IPv4 options", families[0], func(p *bpftest.Packet) { p.Options = 40 }},
		{"an extension header", families[1], func(p *bpftest.Packet) { p.Extensions = []bpftest.Extension{{Header: destination, Length: 16}} }},
		{"no UDP checksum", families[0], func(p *bpftest.Packet) { p.NoChecksum, p.Payload = true, pattern(777) }},
		{"a jumbo frame", families[0], func(p *bpftest.Packet) { p.NoChecksum, p.Payload = true, pattern(8901) }},
		{"a jumbo frame, v6", families[1], func(p *bpftest.Packet) { p.Payload = pattern(8901) }},
		{"a tag", families[0], func(p *bpftest.Packet) { p.VLANs = []uint16{7} }},
		{"two tags", families[1], func(p *bpftest.Packet) { p.VLANs = []uint16{7, 8} }},
		{"ECN and DSCP", families[1], func(p *bpftest.Packet) { p.TOS = 0xff }},
	} {
		for _, o := range outers {
			for _, k := range tunnels {
				t.Run(fmt.Sprint(tt.name, "/", o.name, "/", k.name), func(t *testing.T) {
					s := newScene(t, f, tt.family, bpftest.UDP, byTunnel)
					u := bpftest.Tunnel{Source: o.source, Address: o.address, Type: k.tunnel, Checksum: k.checksum}
					s.tunnelled(u)
					s.establish(t)
					p := s.request()
					tt.change(&p)
					s.runWrapped(t, p, u, nil)
				})
			}
		}
	}
}

// Tags are the next hop's; the outer one keeps the priority that a tag had.
func TestTunnelVLAN(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	tags := [][]uint16{nil, {5<<13 | 100}, {5<<13 | 100, 7}}
	for _, o := range outers {
		for _, in := range tags {
			for _, out := range tags {
				t.Run(fmt.Sprint(o.name, "/", in, "-", out), func(t *testing.T) {
					s := newScene(t, f, families[0], bpftest.TCP, byTunnel)
					u := bpftest.Tunnel{Source: o.source, Address: o.address, Type: gue, Checksum: summed}
					s.tunnelled(u)
					link := serverLink(f.Outside)
					want := slices.Clone(out)
					if len(out) > 0 {
						link.VLANs = []uint16{100, 7}[:len(out)]
						if in == nil {
							want[0] = 100
						}
					}
					f.SetHop(s.service.Servers[0].Hop, link)
					p := s.request()
					p.VLANs = in
					s.runWrapped(t, p, u, want)
				})
			}
		}
	}
}

// Connections differ in the source's host bits, in GUE's port and in the flow label; a
// connection's packets do not.
func TestTunnelSpread(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, o := range outers {
			t.Run(a.name+o.name, func(t *testing.T) {
				s := newScene(t, f, a, bpftest.UDP, byTunnel)
				// The low 12 bits, and of the address the rest.
				source := o.source.AsSlice()
				source[len(source)-1], source[len(source)-2] = 0, 0x50
				base, _ := netip.AddrFromSlice(source)
				u := bpftest.Tunnel{Source: base, Address: o.address, Type: gue, Spread: 0xff0f0000}
				s.tunnelled(u)
				link := serverLink(f.Outside)
				link.MTU = 1500
				f.SetHop(s.service.Servers[0].Hop, link)
				sources, ports, labels := map[netip.Addr]bool{}, map[string]bool{}, map[string]bool{}
				for i := range 64 {
					p := s.request()
					p.From = netip.AddrPortFrom(p.From.Addr(), uint16(1024+i))
					one, again := s.runWrapped(t, p, u, nil), s.runWrapped(t, p, u, nil)
					if !slices.Equal(one, again) {
						t.Error("two packets of a connection differ outside")
					}
					at, length, header := 14+12, 4, 20
					if o.address.Is6() {
						at, length, header = 14+8, 16, 40
						labels[string(one[15:18])] = true
					}
					from, _ := netip.AddrFromSlice(one[at : at+length])
					if prefix, _ := base.Prefix(base.BitLen() - 12); !prefix.Contains(from) {
						t.Fatalf("from %s, which is not in %s", from, prefix)
					}
					sources[from], ports[string(one[14+header:16+header])] = true, true
				}
				if len(sources) < 48 || len(ports) < 60 || o.address.Is6() && len(labels) < 60 {
					t.Errorf("64 connections have %d sources, %d ports, %d labels", len(sources), len(ports), len(labels))
				}
			})
		}
	}
}

// tunnelTooBig is the answer to a packet too long, which may have so many octets.
func tunnelTooBig(p bpftest.Packet, mtu uint32) bpftest.Result {
	e := bpftest.ICMPError{Type: 3, Code: 4, Parameter: mtu, Quoted: 28}
	if p.From.Addr().Is6() {
		e = bpftest.ICMPError{Type: 2, Parameter: mtu, Quoted: 48}
	}
	return bpftest.Result{Action: bpftest.TX, Packet: e.About(p)}
}

// A packet fits to the octet, or its sender is told what does: of the link, and of what
// a router has told of the path, as long as that is believed.
func TestTunnelTooBig(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	if err := f.Plane.Options.Put(uint32(0), &bpf.KernelPacketOptions{PathTicks: 100}); err != nil {
		t.Fatal(err)
	}
	for _, a := range families {
		for _, o := range outers {
			for _, k := range tunnels {
				t.Run(a.name+o.name+"/"+k.name, func(t *testing.T) {
					s := newScene(t, f, a, bpftest.UDP, byTunnel)
					u := bpftest.Tunnel{Source: o.source, Address: o.address, Type: k.tunnel, Checksum: k.checksum}
					s.tunnelled(u)
					link := serverLink(f.Outside)
					link.MTU = 1500
					f.SetHop(s.service.Servers[0].Hop, link)
					s.establish(t)
					overhead := k.octets + len(o.address.AsSlice()) + 16
					if o.address.Is6() {
						overhead = k.octets + 40
					}
					headers := 28
					if a.isV6() {
						headers = 48
					}
					p := s.request()
					fits := func(mtu int) {
						t.Helper()
						p.Payload = pattern(mtu - overhead - headers)
						s.runWrapped(t, p, u, nil)
						p.Payload = append(p.Payload, 0)
						run(t, f, p.Bytes(), tunnelTooBig(p, uint32(mtu-overhead)), one("frag-needed"))
					}
					fits(1500)

					var kernel bpf.KernelTunnel
					if err := f.Plane.Tunnels.Lookup(uint32(1), &kernel); err != nil {
						t.Fatal(err)
					}
					told := func(mtu uint16, ago uint32) {
						now, err := f.Plane.Now()
						if err != nil {
							t.Fatal(err)
						}
						kernel.Mtu, kernel.MtuTick = mtu, now-ago
						if err := f.Plane.Tunnels.Put(uint32(1), &kernel); err != nil {
							t.Fatal(err)
						}
					}
					told(1420, 10)
					fits(1420)
					told(1420, 101)
					fits(1500)
					told(9000, 10)
					fits(1500)

					// Less than IPv6 must have: the rest is the routers' to cut, if they can.
					told(1250, 10)
					if !a.isV6() {
						fits(1250)
						return
					}
					p.Payload = pattern(1281 - headers)
					run(t, f, p.Bytes(), tunnelTooBig(p, 1280), one("frag-needed"))
					p.Payload = pattern(1280 - headers)
					if o.address.Is6() {
						run(t, f, p.Bytes(), tunnelTooBig(p, 1280), one("frag-needed"))
						return
					}
					got := f.Run(p.Bytes())
					if got.Action != bpftest.TX || got.Packet[14+6]&0x40 != 0 || binary.BigEndian.Uint16(got.Packet[14+4:]) == 0 {
						t.Errorf("%v, %x", got.Action, got.Packet[:min(40, len(got.Packet))])
					}
				})
			}
		}
	}
}

// The time to live is the packet's own: it ends as on any router, however fresh the
// outer one is.
func TestTunnelExpires(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		s := newScene(t, f, a, bpftest.UDP, byTunnel)
		s.tunnelled(bpftest.Tunnel{Source: outers[0].source, Address: outers[0].address, Type: ipip})
		p := s.request()
		p.TTL = 1
		e := bpftest.ICMPError{Type: 11, Quoted: 28}
		if a.isV6() {
			e = bpftest.ICMPError{Type: 3, Quoted: 48}
		}
		run(t, f, p.Bytes(), bpftest.Result{Action: bpftest.TX, Packet: e.About(p)}, one("ttl-exceeded"))
	}
}

// Without a tunnel or a next hop the packet goes by name.
func TestTunnelDrops(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		s := newScene(t, f, a, bpftest.UDP, byTunnel)
		u := bpftest.Tunnel{Source: outers[1].source, Address: outers[1].address, Type: gue}
		s.tunnelled(u)
		p := s.request()
		s.runWrapped(t, p, u, nil)
		s.service.Servers[0].Tunnel = 2
		f.Apply(s.service)
		run(t, f, p.Bytes(), dropped, one("unreachable"))
		s.service.Servers[0].Tunnel = 1
		f.Apply(s.service)
		f.SetHop(s.service.Servers[0].Hop, bpftest.Link{})
		run(t, f, p.Bytes(), dropped, one("unreachable"))
	}
}

// So it does where the frame has no room for the headers.
func TestTunnelHeadroom(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, mtu := range []uint16{0, 1500} {
			s := newScene(t, f, a, bpftest.UDP, byTunnel)
			s.tunnelled(bpftest.Tunnel{Source: outers[1].source, Address: outers[1].address, Type: gue})
			link := serverLink(f.Outside)
			link.MTU = mtu
			f.SetHop(s.service.Servers[0].Hop, link)
			s.establish(t)
			got, err := f.RunCramped(f.Outside, s.request().Bytes())
			if errors.Is(err, unix.EINVAL) {
				t.Skip("the kernel takes no 200 octets of metadata (Linux 6.7 or newer is needed)")
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(one("headroom"), f.Events()); got.Action != bpftest.Drop || diff != "" {
				t.Errorf("%v, events (-want +got):\n%s", got.Action, diff)
			}
		}
	}
}
