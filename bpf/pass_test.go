package bpf_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// What is not ours, or not understood, is passed byte for byte.
func TestPassesUntouched(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, protocol := range protocols {
			t.Run(a.name+"/"+protocol.name, func(t *testing.T) {
				s := newScene(t, f, a, protocol.number, nat)
				for event, change := range map[string]func(*bpftest.Packet){
					"not-ours":   func(p *bpftest.Packet) { p.To = s.other },
					"no-service": func(p *bpftest.Packet) { p.To = netip.AddrPortFrom(s.virtual.Addr(), 81) },
				} {
					p := s.request()
					change(&p)
					run(t, f, p.Bytes(), passed(p.Bytes()), one(event))
				}
				// The other protocol's port is another service's.
				other := s.request()
				other.Protocol = bpftest.TCP + bpftest.UDP - s.protocol
				run(t, f, other.Bytes(), passed(other.Bytes()), one("no-service"))
				// A server's packets that are of no connection.
				run(t, f, s.reply().Bytes(), passed(s.reply().Bytes()), one("no-service"))
				diffEntries(t, f)
			})
		}
	}
	t.Run("other EtherTypes", func(t *testing.T) {
		s := newScene(t, f, families[0], bpftest.TCP, nat)
		random := rand.New(rand.NewPCG(1, 2))
		for _, eth := range []uint16{0x0806, 0x88cc, 0x8847, 0x0026, 0xffff, 0x0000, 0x8863} {
			for length := 14; length <= 64; length++ {
				frame := append(s.request().Bytes()[:12], byte(eth>>8), byte(eth))
				for len(frame) < length {
					frame = append(frame, byte(random.Uint32()))
				}
				run(t, f, frame[:length], passed(frame[:length]), one("not-ours"))
			}
		}
	})
	t.Run("three tags", func(t *testing.T) {
		s := newScene(t, f, families[0], bpftest.TCP, nat)
		p := s.request()
		p.VLANs = []uint16{1, 2}
		frame := p.Bytes()
		frame = append(frame[:14:14], append([]byte{0, 3, 0x81, 0}, frame[14:]...)...)
		run(t, f, frame, passed(frame), one("not-ours"))
	})
}

// ICMP, fragments and other protocols are counted by name, to a virtual address
// or from a server.
func TestPassesByName(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	ip := 14 // offset of the IP header
	for _, tt := range []struct {
		name, event string
		family      family
		change      func(frame []byte)
	}{
		{"ICMP", "icmp", families[0], func(b []byte) { b[ip+9] = 1 }},
		{"ICMPv6", "icmp", families[1], func(b []byte) { b[ip+6] = 58 }},
		{"ICMPv6 in IPv4", "protocol", families[0], func(b []byte) { b[ip+9] = 58 }},
		{"ICMP in IPv6", "protocol", families[1], func(b []byte) { b[ip+6] = 1 }},
		{"SCTP", "protocol", families[0], func(b []byte) { b[ip+9] = 132 }},
		{"GRE in IPv6", "protocol", families[1], func(b []byte) { b[ip+6] = 47 }},
		{"authentication header", "protocol", families[1], func(b []byte) { b[ip+6] = 51 }},
		{"last fragment", "fragment", families[0], func(b []byte) { b[ip+7] = 1 }},
		{"middle fragment of ICMP", "fragment", families[0], func(b []byte) { b[ip+6], b[ip+7], b[ip+9] = 0x20, 9, 1 }},
		{"fragment header", "fragment", families[1], func(b []byte) { b[ip+6] = 44 }},
		{"version 5", "malformed", families[0], func(b []byte) { b[ip] = 0x55 }},
		{"version 4 by EtherType only", "malformed", families[0], func(b []byte) { b[ip] = 0x65 }},
		{"version 4 in IPv6", "malformed", families[1], func(b []byte) { b[ip] = 0x45 }},
		{"header of 16 octets", "malformed", families[0], func(b []byte) { b[ip] = 0x44 }},
		{"no header", "malformed", families[0], func(b []byte) { b[ip] = 0x40 }},
		{"header longer than the frame", "malformed", families[0], func(b []byte) { b[ip] = 0x4f }},
		{"no length", "malformed", families[0], func(b []byte) { binary.BigEndian.PutUint16(b[ip+2:], 0) }},
		{"length of the header", "malformed", families[0], func(b []byte) { binary.BigEndian.PutUint16(b[ip+2:], 20) }},
		{"length into the transport header", "malformed", families[0], func(b []byte) { binary.BigEndian.PutUint16(b[ip+2:], 27) }},
		{"no payload length", "malformed", families[1], func(b []byte) { binary.BigEndian.PutUint16(b[ip+4:], 0) }},
		{"payload length into the header", "malformed", families[1], func(b []byte) { binary.BigEndian.PutUint16(b[ip+4:], 7) }},
	} {
		for _, protocol := range protocols {
			t.Run(tt.name+"/"+protocol.name, func(t *testing.T) {
				s := newScene(t, f, tt.family, protocol.number, nat)
				// Both ways: with a connection it makes no difference.
				for _, p := range []bpftest.Packet{s.request(), s.reply()} {
					frame := p.Bytes()
					tt.change(frame)
					run(t, f, frame, passed(frame), one(tt.event))
				}
				s.establish(t)
				frame := s.reply().Bytes()
				tt.change(frame)
				run(t, f, frame, passed(frame), one(tt.event))
			})
		}
	}
	t.Run("too many extension headers", func(t *testing.T) {
		s := newScene(t, f, families[1], bpftest.TCP, nat)
		p := s.request()
		for range 5 {
			p.Extensions = append(p.Extensions, bpftest.Extension{Header: 60, Length: 8})
		}
		run(t, f, p.Bytes(), passed(p.Bytes()), one("protocol"))
	})
	t.Run("extension header past the end", func(t *testing.T) {
		s := newScene(t, f, families[1], bpftest.TCP, nat)
		p := s.request()
		p.Extensions = []bpftest.Extension{{Header: 60, Length: 8}}
		for length := 1; length < 256; length++ {
			frame := p.Bytes()
			frame[14+40+1] = byte(length)
			run(t, f, frame, passed(frame), one("malformed"))
		}
	})
}

// Frames cut off anywhere: while a header lacks they are malformed and passed as
// they are; what is behind the headers does not matter.
func TestTruncated(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, protocol := range protocols {
			for name, change := range map[string]func(*bpftest.Packet){
				"plain":   func(*bpftest.Packet) {},
				"one tag": func(p *bpftest.Packet) { p.VLANs = []uint16{100} },
				"two":     func(p *bpftest.Packet) { p.VLANs = []uint16{100, 7} },
				"more": func(p *bpftest.Packet) {
					p.Options = 12
					p.Extensions = []bpftest.Extension{{Header: 0, Length: 8}, {Header: 60, Length: 24}}
				},
			} {
				t.Run(fmt.Sprint(a.name, "/", protocol.name, "/", name), func(t *testing.T) {
					s := newScene(t, f, a, protocol.number, nat)
					testTruncated(t, s, change)
				})
			}
		}
	}
}

func testTruncated(t *testing.T, s *scene, change func(*bpftest.Packet)) {
	p := s.request()
	p.Payload = nil
	change(&p)
	headers := len(p.Bytes())
	link := serverLink(s.Outside)
	link.VLANs = p.VLANs
	s.SetHop(s.service.Servers[0].Hop, link)
	p.Payload = pattern(9)
	frame := p.Bytes()
	for length := 14; length < headers; length++ {
		run(t, s.Fixture, frame[:length], passed(frame[:length]), one("malformed"))
	}
	diffEntries(t, s.Fixture)
	out := forwarded(p, s.server).Bytes()
	for length := headers; length <= len(frame); length++ {
		run(t, s.Fixture, frame[:length], bpftest.Result{Action: bpftest.TX, Packet: out[:length]}, nil)
	}
	run(t, s.Fixture, append(frame, 0, 0, 0), bpftest.Result{Action: bpftest.TX, Packet: append(out, 0, 0, 0)}, nil)
}
