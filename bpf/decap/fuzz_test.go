package decap_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/bpf/decap"
)

// FuzzDecap runs raw frames. Whatever they hold: every one is counted once as what
// became of it; one that is not taken out of a tunnel and not dropped is not changed;
// one that is taken out, or dropped, had a virtual address in it and was for this host;
// what comes out is for a virtual address, is the end of what came but for its
// padding, ECN and checksum, and has a right checksum if it came with one.
func FuzzDecap(f *testing.F) {
	p := load(f, config())
	for _, seed := range fuzzSeeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		// The kernel runs no less; more than a page goes in fragments.
		if len(frame) < 14 || len(frame) > 9000 {
			return
		}
		p.t = t
		p.examine(frame)
	})
}

// TestMutations examines frames of every tunnel with a few octets changed, most of
// them in headers; always the same ones.
func TestMutations(t *testing.T) {
	p := load(t, config())
	seeds := fuzzSeeds()
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		frame := bytes.Clone(seeds[random.IntN(len(seeds))])
		for range 1 + random.IntN(3) {
			at := 12 + random.IntN(len(frame)-12)
			if random.IntN(3) > 0 {
				at = min(12+random.IntN(64), len(frame)-1)
			}
			frame[at] = byte(random.Uint32())
		}
		p.examine(frame)
	}
	counts, err := p.Counts()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"pass", "taken", "drop", "note"} {
		if !slices.ContainsFunc(counts, func(c decap.Count) bool { return c.Kind == kind && c.Packets > 0 }) {
			t.Errorf("nothing was counted of kind %s", kind)
		}
	}
}

// examine runs a frame and holds what FuzzDecap does.
func (l *loaded) examine(frame []byte) {
	t := l.t
	t.Helper()
	before := bytes.Clone(frame)
	result, kind := l.outcome(frame)
	switch {
	case kind == "pass" && result.Action == bpftest.Pass:
		if !bytes.Equal(before, result.Packet) {
			t.Errorf("passed, but changed:\n%x\n%x", before, result.Packet)
		}
	case kind == "drop" && result.Action == bpftest.Drop:
		mustBeOurs(t, frame)
	case kind == "taken" && result.Action == bpftest.Pass:
		mustBeOurs(t, frame)
		checkTaken(t, frame, result.Packet)
	default:
		t.Errorf("%v, counted as %q: %x", result.Action, kind, frame)
	}
}

// outcome runs a frame; the second value is the kind of the one event that it counted,
// beside notes.
func (l *loaded) outcome(frame []byte) (bpftest.Result, string) {
	l.t.Helper()
	before, err := l.Counts()
	if err != nil {
		l.t.Fatal(err)
	}
	result, err := bpftest.Run(l.Entry, 1, frame)
	if err != nil {
		l.t.Fatal(err)
	}
	after, err := l.Counts()
	if err != nil {
		l.t.Fatal(err)
	}
	kind := ""
	for i, c := range after {
		if c.Packets != before[i].Packets && c.Kind != "note" {
			if kind += c.Kind; c.Bytes != before[i].Bytes+uint64(len(frame)) {
				l.t.Errorf("counted %d octets of %d", c.Bytes-before[i].Bytes, len(frame))
			}
		}
	}
	return result, kind
}

// mustBeOurs holds by a search, which shares nothing with the program's parser, that
// the frame has an address of this host and a virtual one in it.
func mustBeOurs(t testing.TB, frame []byte) {
	t.Helper()
	has := func(addresses ...[]byte) bool {
		for _, a := range addresses {
			if bytes.Contains(frame, a) {
				return true
			}
		}
		return false
	}
	if !has(v4.server.AsSlice(), v6.server.AsSlice()) || !has(v4.virtual.Addr().AsSlice(), v6.virtual.Addr().AsSlice()[:8]) {
		t.Errorf("for no address of ours, but not left alone: %x", frame)
	}
}

// checkTaken compares a frame that was in a tunnel with what came out.
func checkTaken(t testing.TB, frame, out []byte) {
	t.Helper()
	at := 14
	for at < 22 && (bytes.Equal(out[at-2:at], []byte{0x81, 0}) || bytes.Equal(out[at-2:at], []byte{0x88, 0xa8})) {
		at += 4
	}
	packet := out[at:]
	ipv4 := bytes.Equal(out[at-2:at], []byte{8, 0})
	if !bytes.Equal(frame[:at-2], out[:at-2]) {
		t.Errorf("the link header changed:\n%x\n%x", frame, out)
	}
	var to netip.Addr
	if ipv4 {
		to = netip.AddrFrom4([4]byte(packet[16:20]))
	} else {
		to = netip.AddrFrom16([16]byte(packet[24:40]))
	}
	isVirtual := false
	for _, prefix := range config().Virtual {
		isVirtual = isVirtual || prefix.Contains(to)
	}
	if !isVirtual {
		t.Errorf("to %v, which is no virtual address:\n%x\n%x", to, frame, out)
	}
	// All but the ECN bits and the header's checksum came as it is.
	header := 40
	if ipv4 {
		header = 20
	}
	found := false
	for from := at; from+len(packet) <= len(frame); from++ {
		inside := frame[from : from+len(packet)]
		if !bytes.Equal(inside[header:], packet[header:]) {
			continue
		}
		a, b := bytes.Clone(inside[:header]), bytes.Clone(packet[:header])
		if !ipv4 {
			a[1], b[1] = a[1]&0xcf, b[1]&0xcf
		} else {
			if onesSum(a[:20]) == 0xffff && onesSum(b[:20]) != 0xffff && a[0] == 0x45 {
				continue
			}
			a[1], b[1] = a[1]&0xfc, b[1]&0xfc
			copy(a[10:], b[10:12])
		}
		found = found || bytes.Equal(a, b)
	}
	if !found {
		t.Errorf("what came out was not in there:\n%x\n%x", frame, out)
	}
}

// fuzzSeeds are frames of every tunnel, whole and cut short, and of what is passed.
func fuzzSeeds() (seeds [][]byte) {
	everyWay(func(_ string, out, in family, w tunnel, tags []uint16) {
		o := out.outer()
		o.tos = 3
		frame := wrapped(tags, o, w, request(in, func(p *bpftest.Packet) { p.TOS = 2 }))
		seeds = append(seeds, frame, frame[:len(frame)/2], append(frame, 0, 0, 0))
	})
	for _, f := range families {
		o := f.outer()
		o.options, o.fragment = 8, 0x2000
		o.extensions = []bpftest.Extension{{Header: 60, Length: 8}, {Header: 43, Length: 24}}
		seeds = append(seeds, append(framing(nil, f == v6), request(f)...), wrapped(nil, o, tunnel{kind: 1}, request(f)))
	}
	return seeds
}
