package bpf_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// States, by the names people use.
const (
	synReceived = uint8(bpf.KernelConnStateSTATE_SYN_RECV)
	established = uint8(bpf.KernelConnStateSTATE_ESTABLISHED)
	stateUDP    = uint8(bpf.KernelConnStateSTATE_UDP)
)

// firstState is that of a connection's first packet.
func firstState(protocol uint8) uint8 {
	if protocol == bpftest.TCP {
		return synReceived
	}
	return stateUDP
}

// both returns the table's entries of the scene's NAT connection.
func (s *scene) both(state uint8, proven bool) []bpf.Entry {
	return []bpf.Entry{s.entry(state, proven), {
		Source: s.service.Servers[0].Address, Destination: s.client, Protocol: s.protocol,
		Server: s.service.Servers[0].Index, State: state, Method: uint8(nat), Reply: true, Proven: proven,
	}}
}

// entry returns the table's client to server entry.
func (s *scene) entry(state uint8, proven bool) bpf.Entry {
	server := s.service.Servers[0]
	return bpf.Entry{
		Source: s.client, Destination: s.virtual, Protocol: s.protocol,
		Server: server.Index, State: state, Method: uint8(server.Method), Proven: proven,
	}
}

// Every family, protocol and method: a connection's packets both ways.
func TestForward(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, protocol := range protocols {
			t.Run(a.name+"/"+protocol.name+"/nat", func(t *testing.T) {
				testNAT(t, newScene(t, f, a, protocol.number, nat))
			})
			t.Run(a.name+"/"+protocol.name+"/dr", func(t *testing.T) {
				s := newScene(t, f, a, protocol.number, dr)
				run(t, f, s.request().Bytes(), sent(routed(s.request())), nil)
				diffEntries(t, f, s.entry(firstState(protocol.number), false))
				later := s.request()
				later.Flags, later.TTL, later.Payload = "A", 7, []byte("odd")
				run(t, f, later.Bytes(), sent(routed(later)), nil)
				s.diffTraffic(t, bpf.KernelTraffic{Connections: 1, InPackets: 2, InBytes: ipLength(s.request()) + ipLength(later)})
			})
			t.Run(a.name+"/"+protocol.name+"/local", func(t *testing.T) {
				s := newScene(t, f, a, protocol.number, local)
				in := s.request().Bytes()
				run(t, f, in, passed(in), one("local"))
				diffEntries(t, f, s.entry(firstState(protocol.number), false))
				s.diffTraffic(t, bpf.KernelTraffic{Connections: 1, InPackets: 1, InBytes: ipLength(s.request())})
			})
		}
	}
}

func testNAT(t *testing.T, s *scene) {
	request, reply := s.request(), s.reply()
	run(t, s.Fixture, request.Bytes(), sent(forwarded(request, s.server)), nil)
	diffEntries(t, s.Fixture, s.both(firstState(s.protocol), false)...)

	run(t, s.Fixture, reply.Bytes(), sent(returned(reply, s.virtual)), nil)
	ack := s.request()
	ack.TTL, ack.Payload = 2, []byte("odd")
	if s.protocol == bpftest.TCP {
		ack.Flags, ack.Seq, ack.Ack = "A", 1001, 5001
	}
	run(t, s.Fixture, ack.Bytes(), sent(forwarded(ack, s.server)), nil)
	last := reply
	if s.protocol == bpftest.TCP {
		diffEntries(t, s.Fixture, s.entry(established, true), s.both(synReceived, false)[1])
		last.Flags, last.Seq = "AP", 5001
	} else {
		want := s.both(stateUDP, true)
		want[0].ByReply, want[1].ByReply = true, true
		diffEntries(t, s.Fixture, want...)
	}

	// From here on, but for TCP's first reply, the fast path alone.
	for _, payload := range []string{"", "x", "four", "some seven"} {
		last.Payload, ack.Payload = []byte(payload), []byte(payload+payload)
		run(t, s.Fixture, last.Bytes(), sent(returned(last, s.virtual)), nil)
		run(t, s.Fixture, ack.Bytes(), sent(forwarded(ack, s.server)), nil)
	}
	if s.protocol == bpftest.TCP {
		diffEntries(t, s.Fixture, s.both(established, true)...)
	}
	traffic := s.Traffic(s.service.Servers[0])
	if traffic.Connections != 1 || traffic.InPackets != 6 || traffic.OutPackets != 5 {
		t.Errorf("counted %+v", traffic)
	}
}

func (s *scene) diffTraffic(t *testing.T, want bpf.KernelTraffic) {
	t.Helper()
	if diff := cmp.Diff(want, s.Traffic(s.service.Servers[0]), cmp.AllowUnexported(bpf.KernelTraffic{})); diff != "" {
		t.Errorf("traffic (-want +got):\n%s", diff)
	}
}

func ipLength(p bpftest.Packet) uint64 { return uint64(len(p.Bytes()) - 14 - 4*len(p.VLANs)) }

// Two-armed: servers behind another interface; replies come in there.
func TestForwardRedirects(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			f.SetHop(s.service.Servers[0].Hop, serverLink(f.Inside))
			request, reply := s.request(), s.reply()
			out := bpftest.Result{Action: bpftest.Redirect, Packet: forwarded(request, s.server).Bytes()}
			run(t, f, request.Bytes(), out, nil)
			out.Packet = returned(reply, s.virtual).Bytes()
			runOn(t, f, f.Inside, reply.Bytes(), out, nil)
			// Each left by the interface it should: without that it cannot.
			for iface, p := range map[uint32]bpftest.Packet{f.Inside: request, f.Outside: reply} {
				if err := f.Plane.Ports.Delete(iface); err != nil {
					t.Fatal(err)
				}
				in := f.Outside
				if iface == f.Outside {
					in = f.Inside
				}
				runOn(t, f, in, p.Bytes(), dropped, one("no-route"))
				f.AddPort(iface)
			}
		})
	}
}

// Tags are those of the next hop on the way out, whatever they were.
func TestForwardVLAN(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	tags := [][]uint16{nil, {100}, {200}, {100, 7}, {100, 8}}
	for _, a := range families {
		for _, client := range tags {
			for _, server := range tags {
				t.Run(fmt.Sprint(a.name, "/", client, "-", server), func(t *testing.T) {
					s := newScene(t, f, a, bpftest.TCP, nat)
					link := serverLink(f.Outside)
					link.VLANs = server
					f.SetHop(s.service.Servers[0].Hop, link)
					in := s.request()
					in.VLANs = client
					out := forwarded(in, s.server)
					out.VLANs = server
					run(t, f, in.Bytes(), sent(out), nil)
					back := s.reply()
					back.VLANs = server
					out = returned(back, s.virtual)
					out.VLANs = client
					run(t, f, back.Bytes(), sent(out), nil)
				})
			}
		}
	}
	t.Run("priority stays where the tag does", func(t *testing.T) {
		s := newScene(t, f, families[0], bpftest.TCP, dr)
		link := serverLink(f.Outside)
		link.VLANs = []uint16{100}
		f.SetHop(s.service.Servers[0].Hop, link)
		in := s.request()
		in.VLANs = []uint16{5<<13 | 100}
		run(t, f, in.Bytes(), sent(routed(in)), nil)
	})
}

// What may stand between the headers does not matter, nor does the length.
func TestForwardOddHeaders(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	hopByHop, routing, destination := uint8(0), uint8(43), uint8(60)
	for _, tt := range []struct {
		name   string
		family family
		change func(*bpftest.Packet)
	}{
		{"4 octets of options", families[0], func(p *bpftest.Packet) { p.Options = 4 }},
		{"40 octets of options", families[0], func(p *bpftest.Packet) { p.Options = 40 }},
		{"DF and TOS", families[0], func(p *bpftest.Packet) { p.DF, p.TOS = true, 0xb8 }},
		{"traffic class", families[1], func(p *bpftest.Packet) { p.TOS = 0xb8 }},
		{"one extension", families[1], func(p *bpftest.Packet) { p.Extensions = []bpftest.Extension{{Header: hopByHop, Length: 8}} }},
		{"four extensions", families[1], func(p *bpftest.Packet) {
			p.Extensions = []bpftest.Extension{{Header: hopByHop, Length: 8}, {Header: destination, Length: 16}, {Header: routing, Length: 8}, {Header: destination, Length: 64}}
		}},
		{"1400 octets", families[0], func(p *bpftest.Packet) { p.Payload = pattern(1400) }},
		{"a jumbo frame in fragments", families[0], func(p *bpftest.Packet) { p.Payload = pattern(9000) }},
		{"a jumbo frame in fragments, v6", families[1], func(p *bpftest.Packet) { p.Payload = pattern(8999) }},
		{"UDP without a checksum", families[0], func(p *bpftest.Packet) { p.NoChecksum = p.Protocol == bpftest.UDP }},
	} {
		for _, protocol := range protocols {
			for _, method := range []bpf.KernelMethod{nat, dr} {
				t.Run(fmt.Sprint(tt.name, "/", protocol.name, "/", method), func(t *testing.T) {
					s := newScene(t, f, tt.family, protocol.number, method)
					s.establish(t)
					in := s.request()
					if protocol.number == bpftest.TCP {
						in.Flags = "A"
					}
					tt.change(&in)
					if method == dr {
						run(t, f, in.Bytes(), sent(routed(in)), nil)
						return
					}
					run(t, f, in.Bytes(), sent(forwarded(in, s.server)), nil)
					back := s.reply()
					if protocol.number == bpftest.TCP {
						back.Flags = "A"
					}
					tt.change(&back)
					run(t, f, back.Bytes(), sent(returned(back, s.virtual)), nil)
				})
			}
		}
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}
