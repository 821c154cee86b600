package bpf_test

import (
	"bytes"
	"errors"
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
		fixture.T(t).Events()
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
		case bpftest.Drop:
		default:
			t.Errorf("%v of %x", got.Action, frame)
		}
	})
}

// checkSent compares the checksums of a frame that left with those it came with.
func checkSent(t *testing.T, in, out []byte) {
	t.Helper()
	before, after := bpftest.Verify(in), bpftest.Verify(out)
	if before == nil && after != nil {
		t.Errorf("%v:\n%x\n%x", after, in, out)
	}
	// Where there was none to look at, there may be a new one, which is right.
	if errors.Is(before, bpftest.ErrNotChecked) && after != nil && !errors.Is(after, bpftest.ErrNotChecked) {
		t.Errorf("%v, of a packet with %v:\n%x\n%x", after, before, in, out)
	}
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
			}})
			f.Apply(&bpftest.Service{Listen: a.secondVirtual, Protocol: protocol.number})
		}
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
	return seeds
}
