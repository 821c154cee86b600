package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// FuzzPacket runs raw frames, as they come in from the client's side or the
// servers', through services of every kind. Whatever they hold: a frame that is
// passed is not changed; one that leaves has right checksums if it came with
// right ones; what leaves went to one of our addresses or came from one of our
// servers; every frame is counted once; no fault happens.
func FuzzPacket(f *testing.F) {
	fixture := bpftest.New(f, bpftest.Options{Connections: 64})
	fuzzServices(fixture)
	for _, seed := range fuzzSeeds() {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, frame []byte, isInside bool) {
		// The kernel runs no less; more than a page goes in fragments.
		if len(frame) < 14 || len(frame) > 9000 {
			return
		}
		checkFrame(fixture.T(t), t, frame, isInside)
	})
}

// TestMutatedPackets is FuzzPacket with mutations of the seeds that are the same every
// time: octets of their headers, and their lengths.
func TestMutatedPackets(t *testing.T) {
	fixture := bpftest.New(t, bpftest.Options{Connections: 64})
	fuzzServices(fixture)
	seeds, random := fuzzSeeds(), rand.New(rand.NewPCG(4711, 7))
	for i := range 6000 {
		frame := bytes.Clone(seeds[random.IntN(len(seeds))])
		for range 1 + random.IntN(3) {
			at := random.IntN(min(len(frame), 120))
			switch random.IntN(4) {
			case 0:
				frame[at] = byte(random.Uint32())
			case 1:
				frame[at] ^= 1 << random.IntN(8)
			case 2:
				frame[at] = []byte{0, 1, 6, 17, 43, 44, 58, 60, 0x20, 0x45, 0xff}[random.IntN(11)]
			case 3:
				frame = frame[:max(14, len(frame)-random.IntN(60))]
			}
		}
		checkFrame(fixture, t, frame, random.IntN(2) == 0)
		if t.Failed() {
			t.Fatalf("mutation %d: %x", i, frame)
		}
	}
}

// checkFrame runs a frame and looks at what became of it.
func checkFrame(fixture *bpftest.Fixture, t *testing.T, frame []byte, isInside bool) {
	t.Helper()
	fixture.Events()
	iface := fixture.Outside
	if isInside {
		iface = fixture.Inside
	}
	got := fixture.RunOn(iface, frame)
	checkEvents(t, got, fixture.Events())
	switch got.Action {
	case bpftest.Pass:
		if !bytes.Equal(frame, got.Packet) {
			t.Errorf("passed, but changed:\n%x\n%x", frame, got.Packet)
		}
	case bpftest.TX, bpftest.Redirect:
		if !isOurs(frame) {
			t.Errorf("not ours, but sent:\n%x\n%x", frame, got.Packet)
		}
		checkSent(t, frame, got.Packet)
		checkPiece(t, frame, got.Packet)
	case bpftest.Drop:
	default:
		t.Errorf("%v of %x", got.Action, frame)
	}
}

// checkPiece holds that nothing behind the IP header of a fragment but the first was
// changed: it is data, whatever it looks like.
func checkPiece(t *testing.T, in, out []byte) {
	t.Helper()
	if inside := unwrapIPIP(out); inside != nil {
		out = inside
	}
	before, isLater := laterOctets(in)
	after, stays := laterOctets(out)
	if isLater && (!stays || !bytes.Equal(before, after)) {
		t.Errorf("a later fragment was changed:\n%x\n%x", in, out)
	}
}

// laterOctets returns what a fragment but the first has behind its IPv4 header, or from
// the fragment header on of IPv6.
func laterOctets(frame []byte) (octets []byte, isLater bool) {
	at := 12
	for range 2 {
		if len(frame) >= at+6 && (frame[at] == 0x81 && frame[at+1] == 0 || frame[at] == 0x88 && frame[at+1] == 0xa8) {
			at += 4
		}
	}
	l3 := frame[at+2:]
	switch {
	case frame[at] == 8 && frame[at+1] == 0 && len(l3) >= 20:
		header := int(l3[0]&15) * 4
		return l3[min(len(l3), header):], binary.BigEndian.Uint16(l3[6:])&0x1fff != 0 && header >= 20
	case frame[at] == 0x86 && frame[at+1] == 0xdd && len(l3) >= 48 && l3[6] == 44:
		return l3[40:], binary.BigEndian.Uint16(l3[42:])&0xfff8 != 0
	}
	return nil, false
}

// checkSent compares the checksums of a frame that left with those it came with.
func checkSent(t *testing.T, in, out []byte) {
	t.Helper()
	before, after := bpftest.Verify(in), bpftest.Verify(out)
	if inside := unwrapIPIP(out); inside != nil {
		if errors.Is(after, bpftest.ErrNotChecked) {
			after = nil
		}
		after = errors.Join(after, bpftest.Verify(inside))
	}
	if before == nil && after != nil {
		t.Errorf("%v:\n%x\n%x", after, in, out)
	}
	// Where there was none to look at, there may be a new one, which is right.
	if errors.Is(before, bpftest.ErrNotChecked) && after != nil && !errors.Is(after, bpftest.ErrNotChecked) {
		t.Errorf("%v, of a packet with %v:\n%x\n%x", after, before, in, out)
	}
}

// unwrapIPIP returns the frame with the packet that is in a tunnel's; nil: there is none.
func unwrapIPIP(frame []byte) []byte {
	if len(frame) < 14+20+1 || frame[12] != 8 || frame[13] != 0 || frame[14+9] != 4 && frame[14+9] != 41 {
		return nil
	}
	eth := []byte{8, 0}
	if frame[14+9] == 41 {
		eth = []byte{0x86, 0xdd}
	}
	return slices.Concat(frame[:12], eth, frame[14+20:])
}

// checkEvents holds that the verdict and the counters say the same.
func checkEvents(t *testing.T, got bpftest.Result, grown map[string]uint64) {
	t.Helper()
	kinds := map[string]uint64{}
	for _, e := range bpf.Events {
		if grown[e.Name] > 0 && e.Name != "" {
			kinds[e.Kind] += grown[e.Name]
		}
	}
	var want map[string]uint64
	switch got.Action {
	case bpftest.Pass:
		want = map[string]uint64{"pass": 1}
	case bpftest.Drop:
		want = map[string]uint64{"drop": 1}
	case bpftest.TX, bpftest.Redirect:
		want = map[string]uint64{"answer": kinds["answer"]} // or forwarded, which has its own counters
	}
	for _, kind := range []string{"pass", "drop", "answer", "fault"} {
		if kinds[kind] != want[kind] || kinds[kind] > 1 {
			t.Errorf("%v counted %v", got.Action, grown)
			return
		}
	}
}

// fuzzServices are of both families and protocols, with servers of every method
// and one without a server.
func fuzzServices(f *bpftest.Fixture) {
	f.SetLocals(1024, 65535, families[0].localAddress(), families[1].localAddress())
	f.PutTunnel(1, bpftest.Tunnel{Source: families[0].other.Addr(), Address: families[0].secondServer.Addr()})
	for _, a := range families {
		outside := f.AddHop(serverLink(f.Outside))
		tagged := serverLink(f.Inside)
		tagged.VLANs, tagged.MTU = []uint16{100}, 1400
		inside := f.AddHop(tagged)
		for _, protocol := range protocols {
			f.Apply(&bpftest.Service{Listen: a.virtual, Protocol: protocol.number, Servers: []*bpftest.Server{
				{Address: a.server, Weight: 1, Hop: outside},
				{Address: a.secondServer, Weight: 1, Hop: inside},
				{Address: a.virtual, Weight: 1, Hop: outside, Method: dr},
				{Address: a.server, Weight: 1, Hop: inside, Method: fullNAT},
				{Address: a.secondServer, Weight: 1, Hop: outside, Method: bpf.KernelMethodMETHOD_TUNNEL, Tunnel: 1},
			}})
			f.Apply(&bpftest.Service{Listen: a.secondVirtual, Protocol: protocol.number})
		}
		bits := a.virtual.Addr().BitLen()
		f.SetEcho(netip.PrefixFrom(a.virtual.Addr(), bits), bpf.KernelEchoECHO_ANSWERED)
		f.SetEcho(netip.PrefixFrom(a.secondVirtual.Addr(), bits), bpf.KernelEchoECHO_DROPPED)
	}
}

// isOurs is whether the frame names one of our addresses anywhere an address can
// be: a check that shares nothing with the program's parser.
func isOurs(frame []byte) bool {
	for _, a := range families {
		for _, address := range []interface{ AsSlice() []byte }{
			a.virtual.Addr(), a.secondVirtual.Addr(), a.server.Addr(), a.secondServer.Addr(),
		} {
			if bytes.Contains(frame, address.AsSlice()) {
				return true
			}
		}
	}
	return false
}

// fuzzSeeds are packets of every kind the table tests know.
func fuzzSeeds() [][]byte {
	var seeds [][]byte
	for _, a := range families {
		for _, protocol := range protocols {
			s := &scene{family: a, protocol: protocol.number}
			for _, change := range []func(*bpftest.Packet){
				func(*bpftest.Packet) {},
				func(p *bpftest.Packet) { p.Flags = "A" },
				func(p *bpftest.Packet) { p.Flags = "FA" },
				func(p *bpftest.Packet) { p.VLANs = []uint16{100} },
				func(p *bpftest.Packet) { p.VLANs = []uint16{100, 7} },
				func(p *bpftest.Packet) { p.TTL = 1 },
				func(p *bpftest.Packet) { p.NoChecksum = p.Protocol == bpftest.UDP },
				func(p *bpftest.Packet) {
					p.Options = 8
					p.Extensions = []bpftest.Extension{{Header: 0, Length: 8}, {Header: 43, Length: 24}}
				},
				func(p *bpftest.Packet) { p.DF, p.Payload = true, pattern(1500) },
				func(p *bpftest.Packet) { p.Payload = pattern(5000) },
			} {
				request, reply, toSecond := s.request(), s.reply(), s.request()
				toSecond.To = a.secondVirtual
				for _, p := range []bpftest.Packet{request, reply, toSecond} {
					change(&p)
					seeds = append(seeds, p.Bytes(), p.Bytes()[:len(p.Bytes())/2])
				}
			}
		}
	}
	for _, frame := range append(fragmentSeeds(), messageSeeds()...) {
		seeds = append(seeds, frame, frame[:14+(len(frame)-14)/2])
	}
	return seeds
}

// fragmentSeeds are fragments of datagrams both ways, some of which overlap, or divide
// a header.
func fragmentSeeds() (seeds [][]byte) {
	for _, a := range families {
		for _, protocol := range protocols {
			s := &scene{family: a, protocol: protocol.number}
			for _, p := range []bpftest.Packet{large(s.request()), large(s.reply())} {
				for _, change := range []func(*bpftest.Packet){
					func(*bpftest.Packet) {},
					func(p *bpftest.Packet) { p.VLANs = []uint16{100} },
					func(p *bpftest.Packet) { p.TTL, p.ID = 1, 5 },
					func(p *bpftest.Packet) {
						p.Options, p.ID = 8, 6
						p.Extensions = []bpftest.Extension{{Header: 0, Length: 8}}
						p.Inside = []bpftest.Extension{{Header: 60, Length: 16}}
					},
				} {
					p := p
					change(&p)
					seeds = append(seeds, p.Fragments(unit)...)
					seeds = append(seeds, p.Fragments(8)[:4]...)
					if a.isV6() {
						p.Payload = pattern(40)
						seeds = append(seeds, p.Atomic())
					}
				}
			}
		}
	}
	return seeds
}

// messageSeeds are ICMP errors about packets both ways, and echo requests, also in
// fragments.
func messageSeeds() (seeds [][]byte) {
	for _, a := range families {
		for _, protocol := range protocols {
			s := &scene{family: a, protocol: protocol.number}
			fromUs := s.reply()
			fromUs.From = s.virtual
			for _, e := range icmpErrors[a.isV6()] {
				for _, quoted := range []bpftest.Packet{s.request(), fromUs, forwarded(s.request(), s.server)} {
					seeds = append(seeds, errorFrom(e, routers[a.isV6()], quoted, 8).Bytes(), errorFrom(e, a.server.Addr(), quoted, 64).Bytes())
				}
			}
		}
		for _, to := range []netip.Addr{a.virtual.Addr(), a.secondVirtual.Addr()} {
			m := bpftest.Message{
				Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: a.client.Addr(), To: to,
				Type: 8, Parameter: 0x12340001, Body: pattern(1501),
			}
			if a.isV6() {
				m.Type = 128
			}
			seeds = append(append(seeds, m.Bytes()), m.Fragments(unit, 77)...)
		}
	}
	return seeds
}
