package bpf_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// newOwnScene is newScene, and the virtual address is known to be ours for certain.
func newOwnScene(t *testing.T, f *bpftest.Fixture, a family, protocol uint8, methods ...bpf.KernelMethod) *scene {
	t.Helper()
	s := newScene(t, f, a, protocol, methods...)
	f.SetEcho(netip.PrefixFrom(a.virtual.Addr(), a.virtual.Addr().BitLen()), bpf.KernelEchoECHO_PASSED)
	return s
}

// A later fragment that comes before its first, or without one, goes where the last
// datagram between the addresses went, if there was one of late and no other; else it
// is dropped by name, if it is ours for certain.
func fragmentsOutOfOrder(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		for _, protocol := range protocols {
			for _, isReply := range []bool{false, true} {
				t.Run(fmt.Sprint(a.name, "/", protocol.name, "/reply ", isReply), func(t *testing.T) {
					testOutOfOrder(t, newOwnScene(t, f, a, protocol.number, nat), isReply)
				})
			}
		}
	}
}

func testOutOfOrder(t *testing.T, s *scene, isReply bool) {
	s.establish(t)
	p, second := large(s.request()), large(s.request())
	out := forwarded(p, s.server)
	if isReply {
		p, second = large(s.reply()), large(s.reply())
		out = returned(p, s.virtual)
		second.To = netip.AddrPortFrom(p.To.Addr(), s.other.Port())
	} else {
		second.From = netip.AddrPortFrom(p.From.Addr(), s.other.Port())
	}
	fragments := func(id uint16) (in, want [][]byte) {
		p, out := p, out
		p.ID, out.ID = id, id
		return p.Fragments(unit), out.Fragments(unit)
	}
	sends := func(in, want []byte, events map[string]uint64) {
		t.Helper()
		run(t, s.Fixture, in, bpftest.Result{Action: bpftest.TX, Packet: want}, events)
	}
	refuses := func(in []byte) {
		t.Helper()
		run(t, s.Fixture, in, dropped, one("fragment-unknown"))
	}
	in, want := fragments(1)
	if isReply {
		// Nothing says that it is a server's but a bit that others' addresses may have, too.
		run(t, s.Fixture, in[2], passed(in[2]), one("fragment"))
	} else {
		refuses(in[2])
	}
	runFragments(t, s.Fixture, in, want)
	sends(in[1], want[1], one("fragments")) // and once more

	in, want = fragments(2)
	sends(in[2], want[2], one("fragments"))
	sends(in[0], want[0], nil)
	sends(in[1], want[1], one("fragments"))

	// The client's other connection: whose the next one is cannot be known.
	begin := s.request()
	begin.From = netip.AddrPortFrom(begin.From.Addr(), s.other.Port())
	s.Run(begin.Bytes())
	s.Run(second.Fragments(unit)[0])
	in, want = fragments(3)
	refuses(in[1])
	sends(in[0], want[0], nil)
	sends(in[1], want[1], one("fragments"))
	in, want = fragments(4)
	refuses(in[1])

	// Until the other port was seen long ago.
	s.AgeFragments(20 * time.Second)
	s.Events()
	first, _ := fragments(5)
	sends(first[0], mustFragment(out, 5, 0), nil)
	refuses(in[1])
	s.AgeFragments(11 * time.Second)
	sends(in[1], want[1], one("fragments"))

	// And what is noted is, too.
	s.AgeFragments(31 * time.Second)
	in, _ = fragments(5)
	refuses(in[1])
}

func mustFragment(p bpftest.Packet, id uint16, i int) []byte {
	p.ID = id
	return p.Fragments(unit)[i]
}

// Fragments that divide the transport header, or would write it anew behind our back,
// are dropped by name, if they are ours for certain (RFC 1858, RFC 3128, RFC 5722).
func fragmentsTiny(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		for _, protocol := range protocols {
			t.Run(a.name+"/"+protocol.name, func(t *testing.T) {
				s := newOwnScene(t, f, a, protocol.number, nat)
				s.establish(t)
				p := large(s.request())
				whole := 8
				if protocol.number == bpftest.TCP {
					whole = 24
				}
				for octets := 8; octets < whole; octets += 8 {
					run(t, f, p.Fragments(octets)[0], dropped, one("fragment-tiny"))
				}
				// The least that holds the header.
				want := forwarded(p, s.server).Fragments(whole)
				for i, frame := range p.Fragments(whole)[:8] {
					var events map[string]uint64
					if i > 0 {
						events = one("fragments")
					}
					run(t, f, frame, bpftest.Result{Action: bpftest.TX, Packet: want[i]}, events)
				}
				// Others that have a part of the header: whether the first was seen or not.
				for _, id := range []uint16{p.ID, p.ID + 1} {
					p := p
					p.ID = id
					for i, frame := range p.Fragments(8)[:4] {
						switch at := i * 8; {
						case at == 0:
						case at < headerOf(protocol.number):
							run(t, f, frame, dropped, one("fragment-tiny"))
						default:
							run(t, f, frame, bpftest.Result{Action: bpftest.TX, Packet: forwarded(p, s.server).Fragments(8)[i]}, one("fragments"))
						}
					}
				}
				// Of two firsts, the last is believed: its ports are of no service.
				other := p
				other.To = netip.AddrPortFrom(p.To.Addr(), 4)
				run(t, f, other.Fragments(unit)[0], passed(other.Fragments(unit)[0]), one("no-service"))
				run(t, f, p.Fragments(unit)[1], passed(p.Fragments(unit)[1]), one("fragment"))
			})
		}
		t.Run("not ours/"+a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			p := large(s.request())
			for _, frame := range p.Fragments(8)[:4] {
				run(t, f, frame, passed(frame), one("fragment"))
			}
		})
		t.Run("an overlong header/"+a.name, func(t *testing.T) {
			s := newOwnScene(t, f, a, bpftest.TCP, nat)
			p := large(s.request())
			p.Options = 40
			p.Inside = []bpftest.Extension{{Header: 60, Length: 32}}
			run(t, f, p.Fragments(16)[0], dropped, one("fragment-tiny"))
		})
	}
}

func headerOf(protocol uint8) int {
	if protocol == bpftest.TCP {
		return 20
	}
	return 8
}

// No ICMP error is about a fragment but the first (RFC 1122 §3.2.2).
func fragmentsNotAnswered(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, nat)
			s.establish(t)
			p := large(s.request())
			p.DF = true
			f.Run(p.Fragments(unit)[0])
			p.TTL = 1
			run(t, f, p.Fragments(unit)[1], dropped, one("fragments", "not-quotable"))
			p.TTL = 64
			link := serverLink(f.Outside)
			link.MTU = 1300
			f.SetHop(s.service.Servers[0].Hop, link)
			run(t, f, p.Fragments(unit)[1], dropped, one("fragments", "too-big"))
			back := large(s.reply())
			f.Run(back.Fragments(unit)[0])
			back.TTL = 1
			run(t, f, back.Fragments(unit)[1], dropped, one("fragments", "not-quotable"))
			// The first is answered as any packet.
			for _, ttl := range []uint8{1, 64} {
				p.TTL = ttl
				testFirstAnswered(t, f, p, map[uint8]string{1: "ttl-exceeded", 64: "frag-needed"}[ttl])
				if a.isV6() {
					extended := p
					extended.Extensions = []bpftest.Extension{{Header: 0, Length: 8}, {Header: 43, Length: 16}}
					testFirstAnswered(t, f, extended, map[uint8]string{1: "ttl-exceeded", 64: "frag-needed"}[ttl])
				}
			}
		})
	}
}

// What answers a first fragment quotes its ports: without 8 octets behind all headers a
// Linux host does not believe it (kernel: net/ipv6/icmp.c, icmpv6_notify).
func testFirstAnswered(t *testing.T, f *bpftest.Fixture, p bpftest.Packet, event string) {
	t.Helper()
	first := p.Fragments(unit)[0]
	f.Events()
	got := f.Run(first)
	if got.Action != bpftest.TX || f.Events()[event] != 1 {
		t.Fatalf("first fragment: %v, want %s", got.Action, event)
	}
	if err := bpftest.Verify(got.Packet); err != nil {
		t.Error(err)
	}
	network, header := 20, 20
	if p.From.Addr().Is6() {
		network, header = 40, 40+8
	}
	for _, e := range p.Extensions {
		header += e.Length
	}
	quote := got.Packet[14+network+8:]
	if !bytes.HasPrefix(first[14:], quote) || len(quote) < header+8 {
		t.Errorf("quoted %x, want %x", quote, first[14:14+header+8])
	}
}

// Echo requests in fragments are answered fragment by fragment, if the whole would be.
func fragmentsOfEcho(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		request, reply := uint8(8), uint8(0)
		if a.isV6() {
			request, reply = 128, 129
		}
		prefix := netip.PrefixFrom(a.virtual.Addr(), a.virtual.Addr().BitLen())
		m := bpftest.Message{
			Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: a.client.Addr(), To: a.virtual.Addr(),
			Type: request, Parameter: 0x12340001, Body: pattern(3001),
		}
		answer := m
		answer.Source, answer.Destination, answer.From, answer.To, answer.Type = m.Destination, m.Source, m.To, m.From, reply
		for echo, want := range map[bpf.KernelEcho]struct {
			results []bpftest.Result
			events  []string
		}{
			bpf.KernelEchoECHO_ANSWERED: {sentAll(answer.Fragments(unit, 77)), []string{"echo", "echo", "echo"}},
			bpf.KernelEchoECHO_DROPPED:  {[]bpftest.Result{dropped, dropped, dropped}, []string{"echo-dropped", "echo-dropped", "echo-dropped"}},
			bpf.KernelEchoECHO_PASSED:   {passedAll(m.Fragments(unit, 77)), []string{"icmp", "fragment", "fragment"}},
		} {
			t.Run(fmt.Sprint(a.name, "/", echo), func(t *testing.T) {
				newScene(t, f, a, bpftest.UDP, nat)
				f.SetEcho(prefix, echo)
				for i, frame := range m.Fragments(unit, 77) {
					run(t, f, frame, want.results[i], one(want.events[i]))
				}
			})
		}
		t.Run(a.name+"/no request", func(t *testing.T) {
			newScene(t, f, a, bpftest.UDP, nat)
			f.SetEcho(prefix, bpf.KernelEchoECHO_ANSWERED)
			for id, change := range []func(*bpftest.Message){
				func(m *bpftest.Message) { m.Type = reply },
				func(m *bpftest.Message) { m.Type = 3 },
				func(m *bpftest.Message) { m.To = a.other.Addr(); f.AddVirtualAddress(m.To) },
			} {
				m := m
				change(&m)
				for _, frame := range m.Fragments(unit, uint16(id)) {
					run(t, f, frame, passed(frame), one("fragment"))
				}
			}
			// The later ones of a request whose first was not seen.
			frame := m.Fragments(unit, 99)[1]
			run(t, f, frame, passed(frame), one("fragment"))
		})
	}
}

func sentAll(frames [][]byte) (all []bpftest.Result) {
	for _, f := range frames {
		all = append(all, bpftest.Result{Action: bpftest.TX, Packet: f})
	}
	return all
}

func passedAll(frames [][]byte) (all []bpftest.Result) {
	for _, f := range frames {
		all = append(all, passed(f))
	}
	return all
}

// A killed connection's first fragment becomes a whole reset, of IPv4; the others end.
func fragmentsOfKilled(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newOwnScene(t, f, a, bpftest.TCP, nat)
			s.establish(t)
			in := s.segment(false, "A", 3001)
			f.Run(in.Fragments(unit)[0])
			if err := s.kill(s.request()); err != nil {
				t.Fatal(err)
			}
			frames := in.Fragments(unit)
			run(t, f, frames[1], dropped, one("fragment-unknown"))
			if a.isV6() {
				run(t, f, frames[0], dropped, one("not-quotable"))
				return
			}
			run(t, f, frames[0], bpftest.Result{Action: bpftest.TX, Packet: bpftest.AsReset(s.on(in))}, one("killed-forwarded"))
		})
	}
}

// Datagrams beyond the map's room push others out, and nothing but that.
func fragmentsForgotten(t *testing.T, f *bpftest.Fixture) {
	s := newOwnScene(t, f, families[0], bpftest.UDP, nat)
	s.establish(t)
	p := large(s.request())
	room := int(f.Plane.Fragments.MaxEntries())
	var key bpf.KernelFragmentKey
	for i := range room + 1 {
		key.Id = uint32(i) // of nobody
		if err := f.Plane.Fragments.Put(key, &bpf.KernelFragment{}); err != nil {
			t.Fatal(err)
		}
	}
	runFragments(t, f, p.Fragments(unit), forwarded(p, s.server).Fragments(unit))
	if n := len(f.Fragments()); n > room {
		t.Errorf("%d datagrams are remembered, of %d at most", n, room)
	}
}

// A first fragment brings its connection over from the table before, as any packet;
// the others find it then.
func TestFragmentsBringTheirConnectionOver(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	s := newOwnScene(t, f, families[1], bpftest.UDP, nat)
	s.establish(t)
	change, err := f.Plane.PrepareResize(9000, 9000)
	if err == nil {
		err = f.Plane.Commit(change)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := large(s.reply())
	in, out := p.Fragments(unit), returned(p, s.virtual).Fragments(unit)
	run(t, f, in[0], bpftest.Result{Action: bpftest.TX, Packet: out[0]}, one("carried"))
	runFragments(t, f, in, out)
}
