package bpf_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// way is how a method's packets leave.
type way struct {
	name  string
	scene func(*testing.T, *bpftest.Fixture, family, uint8) *scene
	in    func(*scene, bpftest.Packet) bpftest.Packet // as the server gets it
	out   func(*scene, bpftest.Packet) bpftest.Packet // as the client gets it; nil: replies do not come this way
}

// ways are the methods that rewrite what is in the packet, or nothing of it.
var ways = []way{
	{
		"nat",
		func(t *testing.T, f *bpftest.Fixture, a family, protocol uint8) *scene {
			return newScene(t, f, a, protocol, nat)
		},
		func(s *scene, p bpftest.Packet) bpftest.Packet { return forwarded(p, s.server) },
		func(s *scene, p bpftest.Packet) bpftest.Packet { return returned(p, s.virtual) },
	},
	{
		"dr",
		func(t *testing.T, f *bpftest.Fixture, a family, protocol uint8) *scene {
			return newScene(t, f, a, protocol, dr)
		},
		func(_ *scene, p bpftest.Packet) bpftest.Packet { return routed(p) },
		nil,
	},
	{"fullnat", newFullNATScene, (*scene).toServer, (*scene).toClient},
}

// eachWay runs a test for each family, protocol and way.
func eachWay(t *testing.T, f *bpftest.Fixture, test func(*testing.T, *scene, way)) {
	t.Helper()
	for _, a := range families {
		for _, protocol := range protocols {
			for _, w := range ways {
				t.Run(a.name+"/"+protocol.name+"/"+w.name, func(t *testing.T) {
					test(t, w.scene(t, f, a, protocol.number), w)
				})
			}
		}
	}
}

// Packets with all that may stand around and between the headers that matter.
func TestOddPackets(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, part := range []struct {
		name string
		test func(*testing.T, *bpftest.Fixture)
	}{
		{"tags", oddTags},
		{"tags of other types", oddTagTypes},
		{"headers", oddHeaders},
		{"headers that are passed", oddHeadersPassed},
		{"lengths", oddLengths},
		{"UDP", oddUDP},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, f) })
	}
}

// Whatever tags a packet has, it leaves with the next hop's; replies leave with the
// client's, but for tags that name no VLAN.
func oddTags(t *testing.T, f *bpftest.Fixture) {
	eachWay(t, f, func(t *testing.T, s *scene, w way) {
		for _, server := range [][]uint16{nil, {100}, {100, 7}, {4095, 4095}} {
			for _, tags := range []struct{ client, back []uint16 }{
				{nil, nil},
				{[]uint16{200}, []uint16{200}},
				{[]uint16{200, 9}, []uint16{200, 9}},
				{[]uint16{0}, nil},       // priority-tagged
				{[]uint16{5 << 13}, nil}, // and with a priority
				{[]uint16{200, 3 << 13}, []uint16{200}},
				{[]uint16{7 << 13, 9}, []uint16{9}},
				{[]uint16{0, 0}, nil},
				{[]uint16{1<<12 | 200}, []uint16{200}}, // may be dropped (DEI)
			} {
				s = w.scene(t, f, s.family, s.protocol)
				link := serverLink(f.Outside)
				link.VLANs = server
				f.SetHop(s.service.Servers[0].Hop, link)
				in := s.request()
				in.VLANs = tags.client
				out := w.in(s, in)
				out.VLANs = server
				run(t, f, in.Bytes(), sent(out), nil)
				if w.out == nil {
					continue
				}
				back := s.reply()
				for i, came := range [][]uint16{server, {5 << 13}, {1, 2}} {
					if i > 0 && w.name == "fullnat" && s.protocol == bpftest.TCP {
						break // until it is proven, a second answer's way is the route's (keep_up_full_nat)
					}
					back.VLANs = came
					out := w.out(s, back)
					out.VLANs = tags.back
					run(t, f, back.Bytes(), sent(out), nil)
				}
			}
		}
	})
}

// Which of the two types a tag has does not matter; of other types, or a third, it is
// not looked at.
func oddTagTypes(t *testing.T, f *bpftest.Fixture) {
	eachWay(t, f, func(t *testing.T, s *scene, w way) {
		in := s.request()
		in.VLANs = []uint16{200, 9}
		want := w.in(s, in)
		want.VLANs = nil
		for _, types := range [][2]uint16{{0x8100, 0x8100}, {0x88a8, 0x88a8}, {0x8100, 0x88a8}, {0x88a8, 0x8100}} {
			run(t, f, retyped(in.Bytes(), types), sent(want), nil)
		}
		for _, types := range [][2]uint16{{0x9100, 0x8100}, {0x8100, 0x9100}, {0x9200, 0x9200}, {0x8847, 0x8100}, {0x8100, 0x8864}} {
			frame := retyped(in.Bytes(), types)
			run(t, f, frame, passed(frame), one("not-ours"))
		}
		third := slices.Insert(in.Bytes(), 12, 0x88, 0xa8, 0, 3)
		run(t, f, third, passed(third), one("not-ours"))
	})
}

func retyped(frame []byte, types [2]uint16) []byte {
	binary.BigEndian.PutUint16(frame[12:], types[0])
	binary.BigEndian.PutUint16(frame[16:], types[1])
	return frame
}

const (
	hopByHop    = 0
	routing     = 43
	destination = 60
)

// Options and extension headers stay as they are.
func oddHeaders(t *testing.T, f *bpftest.Fixture) {
	var rows []func(*bpftest.Packet)
	for octets := 4; octets <= 40; octets += 4 {
		rows = append(rows, func(p *bpftest.Packet) { p.Options = octets })
	}
	for _, e := range [][]bpftest.Extension{
		{{Header: hopByHop, Length: 8}},
		{{Header: destination, Length: 8}},
		{{Header: destination, Length: 2048}},
		{{Header: routing, Length: 8}},
		{{Header: routing, Length: 104}},
		{{Header: hopByHop, Length: 8}, {Header: routing, Length: 24}},
		{{Header: hopByHop, Length: 16}, {Header: destination, Length: 8}, {Header: routing, Length: 40}, {Header: destination, Length: 24}},
	} {
		rows = append(rows, func(p *bpftest.Packet) { p.Extensions = e })
	}
	eachWay(t, f, func(t *testing.T, s *scene, w way) {
		s.establish(t)
		for i, change := range rows {
			in, back := s.request(), s.reply()
			in.Flags, back.Flags = "A", "A"
			in.Payload, back.Payload = pattern(33), pattern(44)
			change(&in)
			change(&back)
			if s.isV6() != (in.Options == 0) {
				continue
			}
			run(t, f, in.Bytes(), sent(w.in(s, in)), nil)
			if w.out != nil {
				run(t, f, back.Bytes(), sent(w.out(s, back)), nil)
			}
			if t.Failed() {
				t.Fatalf("row %d", i)
			}
		}
	})
}

// What is not understood is passed by name, both ways.
func oddHeadersPassed(t *testing.T, f *bpftest.Fixture) {
	five := slices.Repeat([]bpftest.Extension{{Header: destination, Length: 8}}, 5)
	rows := []struct {
		name, event string
		change      func(*bpftest.Packet)
		frame       func([]byte)
	}{
		{"five headers", "protocol", func(p *bpftest.Packet) { p.Extensions = five }, nil},
		{"an address left", "protocol", func(p *bpftest.Packet) {
			p.Extensions = []bpftest.Extension{{Header: routing, Length: 24, Left: 1}}
		}, nil},
		{"a segment list", "protocol", func(p *bpftest.Packet) {
			p.Extensions = []bpftest.Extension{{Header: hopByHop, Length: 8}, {Header: routing, Length: 56, Left: 2}}
		}, func(b []byte) { b[14+40+8+2] = 4 }},
		{"a jumbogram", "malformed", func(p *bpftest.Packet) {
			p.Extensions = []bpftest.Extension{{Header: hopByHop, Length: 8}}
		}, func(b []byte) { binary.BigEndian.PutUint16(b[18:], 0) }},
	}
	for _, header := range []uint8{50, 51, 59, 135, 139, 140, 253, 254} {
		rows = append(rows, struct {
			name, event string
			change      func(*bpftest.Packet)
			frame       func([]byte)
		}{fmt.Sprint("header ", header), "protocol", func(p *bpftest.Packet) {
			p.Extensions = []bpftest.Extension{{Header: destination, Length: 8}}
		}, func(b []byte) { b[14+40] = header }})
	}
	for _, protocol := range protocols {
		s := newScene(t, f, families[1], protocol.number, nat)
		s.establish(t)
		for _, tt := range rows {
			for _, p := range []bpftest.Packet{s.request(), s.reply()} {
				tt.change(&p)
				frame := p.Bytes()
				if tt.frame != nil {
					tt.frame(frame)
				}
				run(t, f, frame, passed(frame), one(tt.event))
				if t.Failed() {
					t.Fatal(tt.name)
				}
			}
		}
	}
}

// The frame may be longer than the packet or shorter: as long as the headers are there,
// what is behind them is the receiver's to look at.
func oddLengths(t *testing.T, f *bpftest.Fixture) {
	eachWay(t, f, func(t *testing.T, s *scene, w way) {
		s.establish(t)
		in, back := s.request(), s.reply()
		in.Flags, back.Flags = "A", "A"
		in.Payload, back.Payload = pattern(20), pattern(30)
		rows := []struct{ in, want bpftest.Packet }{{in, w.in(s, in)}}
		if w.out != nil {
			rows = append(rows, struct{ in, want bpftest.Packet }{back, w.out(s, back)})
		}
		for _, row := range rows {
			frame, want := row.in.Bytes(), row.want.Bytes()
			for _, padding := range []int{1, 6, 18, 46, 1000} {
				with := func(b []byte) []byte { return append(slices.Clip(b), pattern(padding)...) }
				run(t, f, with(frame), bpftest.Result{Action: bpftest.TX, Packet: with(want)}, nil)
			}
			for _, missing := range []int{1, 7, 20} {
				run(t, f, frame[:len(frame)-missing], bpftest.Result{Action: bpftest.TX, Packet: want[:len(want)-missing]}, nil)
			}
		}
	})
}

// UDP's peculiarities: a checksum of zero says that there is none, and stays; an idle
// connection stays as long as its service says.
func oddUDP(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		for _, w := range ways {
			t.Run(a.name+"/"+w.name, func(t *testing.T) {
				s := w.scene(t, f, a, bpftest.UDP)
				// IPv6 does not allow it (RFC 8200 §8.1), but for tunnels (RFC 6935): routers do not look.
				in, back := s.request(), s.reply()
				in.NoChecksum, back.NoChecksum = true, true
				for range 2 {
					runUnchecked(t, f, in, w.in(s, in))
					if w.out != nil {
						runUnchecked(t, f, back, w.out(s, back))
					}
				}
			})
			t.Run(a.name+"/"+w.name+"/idle for hours", func(t *testing.T) {
				s := w.scene(t, f, a, bpftest.UDP)
				s.service.Timeouts = map[bpf.KernelConnState]time.Duration{bpf.KernelConnStateSTATE_UDP: 3 * time.Hour}
				// Both servers, so that another one would be next.
				another := *s.service.Servers[0]
				another = bpftest.Server{Address: s.secondServer, Method: another.Method, Weight: 1, Hop: another.Hop}
				s.service.Servers = append(s.service.Servers, &another)
				f.Apply(s.service)
				in, back := s.request(), s.reply()
				for range 3 {
					run(t, f, in.Bytes(), sent(w.in(s, in)), nil)
					if w.out != nil {
						run(t, f, back.Bytes(), sent(w.out(s, back)), nil)
					}
					f.AgeBy(3*time.Hour - time.Minute)
					if n := f.Sweep(); n != 0 {
						t.Fatalf("the sweep ended %d connections", n)
					}
				}
				f.AgeBy(2 * time.Minute)
				if n := f.Sweep(); n != 1 {
					t.Errorf("the sweep ended %d connections, want the idle one", n)
				}
			})
		}
	}
}

// runUnchecked runs an UDP packet without a checksum, which Verify does not like in IPv6.
func runUnchecked(t *testing.T, f *bpftest.Fixture, in, want bpftest.Packet) {
	t.Helper()
	got := f.Run(in.Bytes())
	if got.Action != bpftest.TX || string(got.Packet) != string(want.Bytes()) {
		t.Errorf("%v\n%x, want\n%x", got.Action, got.Packet, want.Bytes())
	}
}
