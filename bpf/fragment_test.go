package bpf_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// unit is how much of a datagram a fragment has in these tests.
const unit = 1400

// large makes the packet one that is sent in three fragments.
func large(p bpftest.Packet) bpftest.Packet {
	p.Payload, p.Flags = pattern(3001), ""
	if p.Protocol == bpftest.TCP {
		p.Flags = "A"
	}
	return p
}

// runFragments runs fragments in order: all must be as wanted, and all but the first
// be counted as followers.
func runFragments(t *testing.T, f *bpftest.Fixture, in, want [][]byte) {
	t.Helper()
	for i := range in {
		var events map[string]uint64
		if i > 0 {
			events = one("fragments")
		}
		run(t, f, in[i], bpftest.Result{Action: bpftest.TX, Packet: want[i]}, events)
	}
}

// Fragments, all over one fixture: loading one takes longer than most of these.
func TestFragments(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, part := range []struct {
		name string
		test func(*testing.T, *bpftest.Fixture)
	}{
		{"follow their first", fragmentsFollow},
		{"in tunnels", fragmentsWrapped},
		{"begin", fragmentsBegin},
		{"keep their connection", fragmentsKeep},
		{"atomic", fragmentsAtomic},
		{"out of order", fragmentsOutOfOrder},
		{"tiny and overlapping", fragmentsTiny},
		{"not answered", fragmentsNotAnswered},
		{"of echo requests", fragmentsOfEcho},
		{"of a killed connection", fragmentsOfKilled},
		{"more than there is room for", fragmentsForgotten},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, f) })
	}
}

// A datagram's fragments go where its first one does, both ways, by every method:
// what comes out is what fragments of the whole translated datagram are.
func fragmentsFollow(t *testing.T, f *bpftest.Fixture) {
	for _, tt := range []struct {
		name   string
		family family
		change func(*bpftest.Packet)
	}{
		{"plain", families[0], func(*bpftest.Packet) {}},
		{"plain", families[1], func(*bpftest.Packet) {}},
		{"options", families[0], func(p *bpftest.Packet) { p.Options = 12 }},
		{"extensions", families[1], func(p *bpftest.Packet) {
			p.Extensions = []bpftest.Extension{{Header: 0, Length: 8}, {Header: 43, Length: 24}}
			p.Inside = []bpftest.Extension{{Header: 60, Length: 16}}
		}},
		{"no checksum", families[0], func(p *bpftest.Packet) { p.NoChecksum = p.Protocol == bpftest.UDP }},
		{"no checksum", families[1], func(p *bpftest.Packet) { p.NoChecksum = p.Protocol == bpftest.UDP }},
		{"class and DF", families[0], func(p *bpftest.Packet) { p.TOS, p.DF, p.TTL = 0xb9, true, 2 }},
		{"one tag", families[1], func(p *bpftest.Packet) { p.VLANs = []uint16{100} }},
		{"two tags", families[0], func(p *bpftest.Packet) { p.VLANs = []uint16{100, 7} }},
	} {
		for _, protocol := range protocols {
			for _, w := range ways {
				t.Run(fmt.Sprint(tt.name, "/", tt.family.name, "/", protocol.name, "/", w.name), func(t *testing.T) {
					testFragments(t, w.scene(t, f, tt.family, protocol.number), w, tt.change)
				})
			}
		}
	}
}

func testFragments(t *testing.T, s *scene, w way, change func(*bpftest.Packet)) {
	in, back := large(s.request()), large(s.reply())
	change(&in)
	change(&back)
	link := serverLink(s.Outside)
	link.VLANs = in.VLANs
	s.SetHop(s.service.Servers[0].Hop, link)
	s.establish(t)
	s.AgeBy(2 * time.Second)
	s.Run(in.Fragments(unit)[0]) // the client's packets come with tags from now on
	before := s.Traffic(s.service.Servers[0])
	runFragments(t, s.Fixture, in.Fragments(unit), w.in(s, in).Fragments(unit))
	after, octets := s.Traffic(s.service.Servers[0]), uint64(0)
	for _, frame := range in.Fragments(unit) {
		octets += uint64(len(frame) - 14 - 4*len(in.VLANs))
	}
	if n := after.InPackets - before.InPackets; n != 3 || after.InBytes-before.InBytes != octets || after.Connections != before.Connections {
		t.Errorf("counted %+v after %+v, want 3 packets of %d octets more", after, before, octets)
	}
	if w.out != nil {
		runFragments(t, s.Fixture, back.Fragments(unit), w.out(s, back).Fragments(unit))
	}
}

// Each fragment is wrapped by itself, and all of a datagram look alike from outside:
// they go by one way to one queue.
func fragmentsWrapped(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		for _, outer := range families {
			for _, kind := range []bpf.KernelTunnelType{bpf.KernelTunnelTypeTUNNEL_IPIP, bpf.KernelTunnelTypeTUNNEL_GUE} {
				t.Run(fmt.Sprint(a.name, " in ", outer.name, "/", kind), func(t *testing.T) {
					s := newScene(t, f, a, bpftest.UDP, bpf.KernelMethodMETHOD_TUNNEL)
					f.PutTunnel(1, bpftest.Tunnel{
						Source: outer.other.Addr(), Address: outer.server.Addr(), Type: kind, Port: 5555, Spread: 0xff000000,
						Checksum: bpf.KernelTunnelChecksumTUNNEL_CHECKSUM,
					})
					s.service.Servers[0].Tunnel = 1
					f.Apply(s.service)
					for _, in := range []bpftest.Packet{s.request(), extended(s.request())} {
						fragmentsLookAlike(t, s, large(in), outer.isV6(), kind)
					}
				})
			}
		}
	}
}

// extended is the packet with options, or headers before and behind the fragment header.
func extended(p bpftest.Packet) bpftest.Packet {
	if !p.From.Addr().Is6() {
		p.Options = 8
		return p
	}
	p.Extensions = []bpftest.Extension{{Header: 0, Length: 8}, {Header: 60, Length: 16}}
	p.Inside = []bpftest.Extension{{Header: 60, Length: 8}}
	return p
}

// fragmentsLookAlike sends the packet's fragments, and then its connection's plain packet.
func fragmentsLookAlike(t *testing.T, s *scene, in bpftest.Packet, isOuter6 bool, kind bpf.KernelTunnelType) {
	t.Helper()
	s.Events()
	want := in
	want.TTL = 63
	var outside []byte
	for i, frame := range in.Fragments(unit) {
		headers, inside := unwrapped(t, s.Run(frame), isOuter6, kind)
		if inner := want.Fragments(unit)[i][14:]; !bytes.Equal(inside, inner) {
			t.Errorf("fragment %d: %x, want %x", i, inside, inner)
		}
		if i > 0 && !bytes.Equal(headers, outside) {
			t.Errorf("fragment %d from outside: %x, the first is %x", i, headers, outside)
		}
		outside = headers
	}
	if n := s.Events()["fragments"]; n != 2 {
		t.Errorf("%d later fragments were counted", n)
	}
	if headers, _ := unwrapped(t, s.Run(s.request().Bytes()), isOuter6, kind); !bytes.Equal(headers, outside) {
		t.Errorf("a plain packet from outside: %x, fragments are %x", headers, outside)
	}
}

// unwrapped returns what tells the packet's connection from others outside (addresses,
// GUE's ports), and the packet inside.
func unwrapped(t *testing.T, got bpftest.Result, is6 bool, kind bpf.KernelTunnelType) (headers, inside []byte) {
	t.Helper()
	if got.Action != bpftest.TX {
		t.Fatal(got.Action)
	}
	if err := bpftest.Verify(got.Packet); err != nil && !errors.Is(err, bpftest.ErrNotChecked) {
		t.Error(err)
	}
	l3, size, addresses := got.Packet[14:], 20, 12
	if is6 {
		size, addresses = 40, 8
	}
	headers, inside = l3[addresses:size], l3[size:]
	if kind == bpf.KernelTunnelTypeTUNNEL_GUE {
		headers, inside = slices.Concat(headers, inside[:4]), inside[12:]
	}
	return headers, inside
}

// A datagram that begins its connection, to every kind of service: the later fragments
// go where the first one went, also where there is no entry that says where.
func fragmentsBegin(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run("nat/"+a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, nat)
			in := large(s.request())
			runFragments(t, f, in.Fragments(unit), forwarded(in, s.server).Fragments(unit))
		})
		t.Run("a range of ports/"+a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, nat)
			f.Apply(&bpftest.Service{
				Listen: netip.AddrPortFrom(a.virtual.Addr(), 5000), LastPort: 6000, Protocol: bpftest.UDP,
				Servers: []*bpftest.Server{{Address: netip.AddrPortFrom(a.server.Addr(), 0), Weight: 1, Hop: s.service.Servers[0].Hop}},
			})
			in := large(s.request())
			in.To = netip.AddrPortFrom(a.virtual.Addr(), 5353)
			server := netip.AddrPortFrom(a.server.Addr(), 5353)
			runFragments(t, f, in.Fragments(unit), forwarded(in, server).Fragments(unit))
			back := large(s.reply())
			back.From = server
			runFragments(t, f, back.Fragments(unit), returned(back, in.To).Fragments(unit))
		})
		for method, want := range map[bpf.KernelMethod]func(bpftest.Packet, netip.AddrPort) bpftest.Packet{
			nat: forwarded, dr: func(p bpftest.Packet, _ netip.AddrPort) bpftest.Packet { return routed(p) },
		} {
			t.Run(fmt.Sprint("one packet/", a.name, "/", method), func(t *testing.T) {
				s := newScene(t, f, a, bpftest.UDP, method, method)
				s.service.Flags = bpf.KernelServiceFlagsSERVICE_ONE_PACKET
				f.Apply(s.service)
				// The servers take turns by datagram, not by fragment.
				for i := range 4 {
					in := large(s.request())
					in.ID = uint16(i)
					server := []netip.AddrPort{s.server, s.secondServer}[i%2]
					runFragments(t, f, in.Fragments(unit), want(in, server).Fragments(unit))
				}
				diffEntries(t, f)
			})
		}
		t.Run("local/"+a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, local)
			for i, frame := range large(s.request()).Fragments(unit) {
				events := one("local")
				if i > 0 {
					events["fragments"]++
				}
				run(t, f, frame, passed(frame), events)
			}
		})
		t.Run("no service/"+a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, nat)
			f.SetEcho(netip.PrefixFrom(a.virtual.Addr(), a.virtual.Addr().BitLen()), bpf.KernelEchoECHO_PASSED)
			in := large(s.request())
			in.To = netip.AddrPortFrom(a.virtual.Addr(), 53)
			frames := in.Fragments(unit)
			run(t, f, frames[0], passed(frames[0]), one("no-service"))
			run(t, f, frames[1], passed(frames[1]), one("fragment"))
			run(t, f, frames[2], passed(frames[2]), one("fragment"))
			// One that comes before its first: the last datagram was not ours either.
			in.ID++
			ahead := in.Fragments(unit)[1]
			run(t, f, ahead, passed(ahead), one("fragment"))
		})
		t.Run("migrating/"+a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			s.service.Flags = bpf.KernelServiceFlagsSERVICE_MIGRATING
			f.Apply(s.service)
			for i, frame := range large(s.request()).Fragments(unit) {
				run(t, f, frame, passed(frame), one([]string{"migrating", "fragment", "fragment"}[i]))
			}
		})
		t.Run("refused/"+a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			f.SetEcho(netip.PrefixFrom(a.virtual.Addr(), a.virtual.Addr().BitLen()), bpf.KernelEchoECHO_PASSED)
			frames := large(s.request()).Fragments(unit)
			run(t, f, frames[0], dropped, one("midstream"))
			run(t, f, frames[1], dropped, one("fragment-unknown"))
		})
	}
}

// A later fragment keeps its connection, and changes nothing else of it.
func fragmentsKeep(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		for _, isReply := range []bool{false, true} {
			t.Run(fmt.Sprint(a.name, "/reply ", isReply), func(t *testing.T) {
				s := newScene(t, f, a, bpftest.UDP, nat)
				s.establish(t)
				p := large(s.request())
				out := forwarded(p, s.server)
				if isReply {
					p = large(s.reply())
					out = returned(p, s.virtual)
				}
				in, want := p.Fragments(unit), out.Fragments(unit)
				run(t, f, in[0], bpftest.Result{Action: bpftest.TX, Packet: want[0]}, nil)
				before := f.Entries()
				timeout := bpftest.Timeouts[bpf.KernelConnStateSTATE_UDP]
				for range 3 {
					f.AgeBy(timeout - 10*time.Second)
					run(t, f, in[1], bpftest.Result{Action: bpftest.TX, Packet: want[1]}, one("fragments"))
				}
				if f.Sweep() != 0 {
					t.Error("the connection ended")
				}
				diffEntries(t, f, withoutTicks(before)...)
				f.AgeBy(timeout + 10*time.Second)
				run(t, f, in[1], passed(in[1]), one("fragment"))
			})
		}
	}
}

func withoutTicks(entries []bpf.Entry) []bpf.Entry {
	entries = slices.Clone(entries)
	for i := range entries {
		entries[i].Seen, entries[i].Born, entries[i].Hop, entries[i].Sequence = 0, 0, 0, false
	}
	return entries
}

// An IPv6 packet that is its only fragment is one like others, and nothing is noted.
func fragmentsAtomic(t *testing.T, f *bpftest.Fixture) {
	for _, protocol := range protocols {
		for name, change := range map[string]func(*bpftest.Packet){
			"plain":  func(*bpftest.Packet) {},
			"tagged": func(p *bpftest.Packet) { p.VLANs = []uint16{100} },
			"around": func(p *bpftest.Packet) {
				p.Extensions = []bpftest.Extension{{Header: 0, Length: 8}}
				p.Inside = []bpftest.Extension{{Header: 60, Length: 8}}
			},
		} {
			t.Run(protocol.name+"/"+name, func(t *testing.T) {
				s := newScene(t, f, families[1], protocol.number, nat)
				in, back := s.request(), s.reply()
				change(&in)
				change(&back)
				link := serverLink(f.Outside)
				link.VLANs = in.VLANs
				f.SetHop(s.service.Servers[0].Hop, link)
				for range 2 {
					run(t, f, in.Atomic(), bpftest.Result{Action: bpftest.TX, Packet: forwarded(in, s.server).Atomic()}, nil)
					run(t, f, back.Atomic(), bpftest.Result{Action: bpftest.TX, Packet: returned(back, s.virtual).Atomic()}, nil)
				}
				if noted := f.Fragments(); len(noted) > 0 {
					t.Errorf("noted %v", noted)
				}
			})
		}
	}
}
