package bpf_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// announced are TCP options and what becomes of them where the size is clamped to 1400.
var announced = []struct {
	name     string
	in, want []byte // want nil: as they came
}{
	{"none", []byte{}, nil},
	{"alone", []byte{2, 4, 5, 0xb4}, []byte{2, 4, 5, 0x78}},
	{"as a Linux host's", []byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7}, []byte{2, 4, 5, 0x78, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7}},
	{"at an odd offset", []byte{1, 2, 4, 0xff, 0xff, 1, 1, 1}, []byte{1, 2, 4, 5, 0x78, 1, 1, 1}},
	{"behind another", []byte{3, 3, 7, 2, 4, 0x23, 0x28, 0}, []byte{3, 3, 7, 2, 4, 5, 0x78, 0}},
	{"at the end of all", append(make40(), 2, 4, 5, 0x79), append(make40(), 2, 4, 5, 0x78)},
	{"as large as it may be", []byte{2, 4, 5, 0x78}, nil},
	{"smaller", []byte{2, 4, 2, 0x18}, nil},
	{"zero", []byte{2, 4, 0, 0}, nil},
	{"behind the end of the list", []byte{0, 0, 0, 0, 2, 4, 5, 0xb4}, nil},
	{"twice", []byte{2, 4, 5, 0xb4, 2, 4, 0x23, 0x28}, []byte{2, 4, 5, 0x78, 2, 4, 5, 0x78}},
	{"twice, at odd offsets", []byte{1, 2, 4, 5, 0xb4, 2, 4, 0xff, 0xff, 1, 1, 0}, []byte{1, 2, 4, 5, 0x78, 2, 4, 5, 0x78, 1, 1, 0}},
	{"behind a smaller one", []byte{2, 4, 2, 0x18, 2, 4, 5, 0xb4}, []byte{2, 4, 2, 0x18, 2, 4, 5, 0x78}},
	{"ten times", bytes.Repeat([]byte{2, 4, 0xff, 0xff}, 10), bytes.Repeat([]byte{2, 4, 5, 0x78}, 10)},
	{"too short", []byte{2, 3, 5, 0, 2, 4, 5, 0xb4}, nil},
	{"behind one too short", []byte{2, 3, 5, 1, 2, 4, 5, 0xb4}, []byte{2, 3, 5, 1, 2, 4, 5, 0x78}},
	{"too long", []byte{2, 5, 5, 0xb4, 0, 0, 0, 0}, nil},
	{"without length", []byte{1, 1, 1, 2}, nil},
	{"cut short", []byte{1, 1, 2, 4}, nil},
	{"behind one of length 0", []byte{8, 0, 0, 0, 2, 4, 5, 0xb4}, nil},
	{"behind one of length 1", []byte{8, 1, 0, 0, 2, 4, 5, 0xb4}, nil},
	{"behind one that reaches too far", []byte{8, 40, 0, 0, 2, 4, 5, 0xb4}, nil},
	{"inside another", []byte{254, 8, 2, 4, 5, 0xb4, 1, 1}, nil},
}

// make40 is what fills 40 octets but 4.
func make40() []byte {
	all := make([]byte, 36, 40)
	for i := range all {
		all[i] = 1
	}
	return all
}

// The segment sizes of a service's ends are clamped in first segments, both ways by
// NAT, and nowhere else. A checksum that was right stays right, a wrong one wrong.
func TestMSSClamping(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for name, method := range map[string]bpf.KernelMethod{"nat": nat, "dr": dr} {
		for _, a := range families {
			for _, o := range announced {
				t.Run(fmt.Sprintf("%s/%s/%s", name, a.name, o.name), func(t *testing.T) {
					s := newScene(t, f, a, bpftest.TCP, method)
					s.service.MSS = 1400
					f.Apply(s.service)
					s.clamp(t, o.in, o.want, method == nat)
				})
			}
		}
	}
	t.Run("not asked for", func(t *testing.T) {
		s := newScene(t, f, families[0], bpftest.TCP, nat)
		s.clamp(t, announced[1].in, nil, true)
	})
	t.Run("beyond the packet", func(t *testing.T) { testMSSBeyondThePacket(t, f) })
}

// clamp sends a handshake whose first segments have the options.
func (s *scene) clamp(t *testing.T, in, want []byte, isNAT bool) {
	t.Helper()
	var events map[string]uint64
	if want != nil {
		events = one("mss-clamped")
	} else {
		want = in
	}
	p := s.request()
	p.RawTCPOptions = in
	after := p
	after.RawTCPOptions = want
	for range 2 { // the second is of the same connection
		if isNAT {
			run(t, s.Fixture, p.Bytes(), sent(forwarded(after, s.server)), events)
		} else {
			run(t, s.Fixture, p.Bytes(), sent(routed(after)), events)
		}
	}
	if isNAT {
		p := s.reply()
		p.RawTCPOptions = in
		after := p
		after.RawTCPOptions = want
		run(t, s.Fixture, p.Bytes(), sent(returned(after, s.virtual)), events)
	}
	p.Flags, p.Seq, p.Ack = "A", 1001, 5001
	if isNAT {
		run(t, s.Fixture, p.Bytes(), sent(forwarded(p, s.server)), nil)
	} else {
		run(t, s.Fixture, p.Bytes(), sent(routed(p)), nil)
	}
}

// A segment whose options reach beyond the packet, into the frame's padding, is left as it is.
func testMSSBeyondThePacket(t *testing.T, f *bpftest.Fixture) {
	s := newScene(t, f, families[0], bpftest.TCP, dr)
	s.service.MSS = 1400
	f.Apply(s.service)
	p := s.request()
	frame := p.Bytes()
	frame[14+20+12] = 6 << 4 // a header of 24 octets, in a packet of 40
	frame = append(frame, 2, 4, 5, 0xb4)
	got := f.Run(frame)
	if got.Action != bpftest.TX || string(got.Packet[len(frame)-4:]) != "\x02\x04\x05\xb4" {
		t.Errorf("sent as %v %x", got.Action, got.Packet)
	}
	if n := f.Events()["mss-clamped"]; n != 0 {
		t.Errorf("clamped %d", n)
	}
}
