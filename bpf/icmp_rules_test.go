package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// unreachable is an error that may be sent on, of either family.
func unreachable(isV6 bool) bpftest.Message {
	if isV6 {
		return bpftest.Message{Type: 1}
	}
	return bpftest.Message{Type: 3, Code: 1}
}

// Errors that quote no packet of a connection of ours, or are not to be believed, are
// the stack's, byte for byte.
func testICMPPassesUntouched(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, nat)
			s.establish(t)
			quoted := s.reply()
			quoted.From, quoted.Payload = s.virtual, pattern(100)
			whole := errorFrom(unreachable(a.isV6()), routers[a.isV6()], quoted, 64)
			pass := func(event string, change func(m *bpftest.Message)) {
				t.Helper()
				m := whole
				m.Body = append([]byte(nil), whole.Body...)
				change(&m)
				run(t, f, m.Bytes(), passed(m.Bytes()), one(event))
			}
			header := 40
			if !a.isV6() {
				header = 20
			}
			quotes := func(change func(p *bpftest.Packet)) func(m *bpftest.Message) {
				return func(m *bpftest.Message) {
					p := quoted
					change(&p)
					m.Body = bpftest.Quote(p, 64)
				}
			}
			pass("icmp", quotes(func(p *bpftest.Packet) { p.To = s.other }))
			pass("icmp", quotes(func(p *bpftest.Packet) { p.To = netip.AddrPortFrom(p.To.Addr(), 1) }))
			pass("icmp", quotes(func(p *bpftest.Packet) { p.From = netip.AddrPortFrom(p.From.Addr(), 81) }))
			pass("icmp", quotes(func(p *bpftest.Packet) { p.Protocol = bpftest.TCP }))
			// Not to the sender of what it quotes.
			pass("icmp", quotes(func(p *bpftest.Packet) { p.From, p.To = p.To, p.From }))
			pass("icmp", quotes(func(p *bpftest.Packet) { p.From = s.server }))
			pass("not-ours", func(m *bpftest.Message) { m.To = s.other.Addr() })
			for octets := range header + 8 {
				pass("icmp", func(m *bpftest.Message) { m.Body = m.Body[:octets] })
			}
			pass("icmp", func(m *bpftest.Message) { m.Body[0] = 0x56 }) // another version
			for _, kind := range map[bool][]uint8{false: {4, 5, 1}, true: {0, 5, 100, 127}}[a.isV6()] {
				pass("icmp", func(m *bpftest.Message) { m.Type = kind })
			}
			if a.isV6() {
				pass("icmp", func(m *bpftest.Message) { m.Body = laterFragment6(m.Body) })
				pass("icmp", func(m *bpftest.Message) { m.Body[6] = 51 }) // authentication header
				return
			}
			pass("icmp", func(m *bpftest.Message) { binary.BigEndian.PutUint16(m.Body[6:], 1) })
			pass("icmp", func(m *bpftest.Message) { binary.BigEndian.PutUint16(m.Body[6:], 0x2001) })
			pass("icmp", func(m *bpftest.Message) { m.Body[0] = 0x44 })
			pass("icmp", func(m *bpftest.Message) { m.Body[0] = 0x4f; m.Body = m.Body[:60] })
			// The error in fragments itself.
			frame := whole.Bytes()
			frame[14+6] |= 0x20
			run(t, f, frame, passed(frame), one("fragment"))
			// Padding is no quote.
			short := whole
			short.Body = whole.Body[:header+7]
			frame = append(short.Bytes(), whole.Body[header+7:]...)
			run(t, f, frame, passed(frame), one("icmp"))
		})
	}
}

// laterFragment6 puts a fragment header that says so behind the IPv6 header.
func laterFragment6(packet []byte) []byte {
	all := append([]byte(nil), packet[:40]...)
	all[6] = 44
	all = append(all, packet[6], 0, 0, 8, 0, 0, 0, 1)
	return append(all, packet[40:]...)
}

// The first fragment of a datagram has the ports: an error about it is sent on.
func testICMPAboutFirstFragment(t *testing.T, f *bpftest.Fixture) {
	s := newScene(t, f, families[1], bpftest.UDP, nat)
	s.establish(t)
	before, after := s.reply(), s.reply()
	before.From = s.virtual
	first := func(p bpftest.Packet) []byte {
		b := laterFragment6(bpftest.Quote(p, 8))
		binary.BigEndian.PutUint16(b[42:], 1) // offset 0, more to come
		return b
	}
	in := errorFrom(unreachable(true), routers[true], before, 8)
	in.Body = first(before)
	want := in
	want.Source, want.Destination, want.To, want.TTL, want.Body = bpftest.DirectorInside, bpftest.ServerMAC, s.server.Addr(), 63, first(after)
	run(t, f, in.Bytes(), sentMessage(want), one("icmp-to-server"))
}

// What cannot be sent on is dropped by name: no error is answered by another.
func testICMPDrops(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			s.establish(t)
			back, request := s.reply(), s.request()
			back.From, back.Flags, back.Payload = s.virtual, "A", pattern(1400)
			request.To, request.Flags, request.Payload = s.server, "A", pattern(1400)
			in := errorFrom(unreachable(a.isV6()), routers[a.isV6()], back, 1200)
			out := errorFrom(unreachable(a.isV6()), routers[a.isV6()], request, 1200)

			for _, m := range []bpftest.Message{in, out} {
				m.TTL = 1
				run(t, f, m.Bytes(), dropped, one("icmp-dropped"))
			}
			link := serverLink(f.Outside)
			link.MTU = uint16(len(in.Bytes())-14) - 1
			f.SetHop(s.service.Servers[0].Hop, link)
			run(t, f, in.Bytes(), dropped, one("too-big"))
			link.MTU++
			f.SetHop(s.service.Servers[0].Hop, link)
			if got := f.Run(in.Bytes()); got.Action != bpftest.TX {
				t.Errorf("of the next hop's MTU: %v %v", got.Action, f.Events())
			}
			reference := f.Entries()[0].Hop
			f.ChangeLearnedHop(reference, func(h *bpf.KernelHop) { h.Mtu = link.MTU - 1 })
			run(t, f, out.Bytes(), dropped, one("too-big"))
			f.ChangeLearnedHop(reference, func(h *bpf.KernelHop) { h.Mtu, h.Failed = 0, 1 })
			run(t, f, out.Bytes(), dropped, one("no-route"))
			f.ChangeLearnedHop(reference, func(h *bpf.KernelHop) { h.Failed = 0 })

			s.service.Servers[0].Hop = 0
			f.Apply(s.service)
			run(t, f, in.Bytes(), dropped, one("unreachable"))
			s.service.Servers = nil
			f.Apply(s.service)
			run(t, f, in.Bytes(), dropped, one("server-removed"))
			run(t, f, out.Bytes(), dropped, one("server-removed"))
		})
	}
	t.Run("local", func(t *testing.T) {
		s := newScene(t, f, families[0], bpftest.UDP, local)
		f.Run(s.request().Bytes())
		back := s.reply()
		back.From = s.virtual
		m := errorFrom(unreachable(false), routers[false], back, 8)
		run(t, f, m.Bytes(), passed(m.Bytes()), one("local"))
	})
}

// A connection of a service of many addresses or ports has its own virtual address
// and port, and its own port on the server.
func testICMPOfWideService(t *testing.T, f *bpftest.Fixture) {
	eachWide(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		for _, e := range icmpErrors[s.isV6()] {
			for _, quoted := range []int{8, 64} {
				s.icmpToServer(t, e, quoted, odd[0].change, true)
				s.icmpToClient(t, e, quoted, routers[s.isV6()], routers[s.isV6()], odd[0].change)
				s.icmpToClient(t, e, quoted, s.server.Addr(), s.virtual.Addr(), odd[0].change)
			}
		}
	})
}
