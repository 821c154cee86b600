package bpf_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// Checksums that are, or become, 0x0000, 0xffff or next to them: where one's
// complement has two zeros, and UDP's 0 means none.
func TestChecksumEdges(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		for _, isReply := range []bool{false, true} {
			in, out := s.request(), forwarded(s.request(), s.server)
			if isReply {
				in, out = s.reply(), returned(s.reply(), s.virtual)
			}
			in.Flags, out.Flags = "A", "A"
			in.Payload, out.Payload = []byte{0, 0}, []byte{0, 0}
			for _, at := range []uint16{checksumOf(in), checksumOf(out)} {
				for _, near := range []uint16{0xfffe, 0xffff, 0, 1, 2} {
					// One's complement: the checksum goes down by what the word goes up.
					binary.BigEndian.PutUint16(in.Payload, at+near)
					frame := in.Bytes()
					if err := bpftest.Verify(frame); err != nil {
						continue // the builder's 0 for UDP
					}
					got := f.Run(frame)
					if err := bpftest.Verify(got.Packet); got.Action != bpftest.TX || err != nil {
						t.Errorf("payload %x: %v %v\n%x\n%x", in.Payload, got.Action, err, frame, got.Packet)
					}
				}
			}
		}
	})
}

// checksumOf is the packet's transport checksum.
func checksumOf(p bpftest.Packet) uint16 {
	at := 14 + 20
	if p.From.Addr().Is6() {
		at = 14 + 40
	}
	if p.Protocol == bpftest.UDP {
		return binary.BigEndian.Uint16(p.Bytes()[at+6:])
	}
	return binary.BigEndian.Uint16(p.Bytes()[at+16:])
}

// A wrong checksum stays wrong: it is for the receiver to see.
func TestWrongChecksumStaysWrong(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		for _, p := range []bpftest.Packet{s.request(), s.reply()} {
			p.Flags, p.Payload = "A", []byte("payload")
			frame := p.Bytes()
			frame[len(frame)-1] ^= 0x40
			if got := f.Run(frame); got.Action != bpftest.TX || bpftest.Verify(got.Packet) == nil {
				t.Errorf("%v: %x became right: %x", got.Action, frame, got.Packet)
			}
			if s.isV6() {
				continue
			}
			frame = p.Bytes()
			frame[14+1] ^= 1 // TOS
			if got := f.Run(frame); got.Action != bpftest.TX || bpftest.Verify(got.Packet) == nil {
				t.Errorf("%v: header of %x became right: %x", got.Action, frame, got.Packet)
			}
		}
	})
}

// Any addresses, ports, lengths and contents.
func TestRandomPackets(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	random := rand.New(rand.NewPCG(3, 4))
	for _, a := range families {
		for _, protocol := range protocols {
			for i := range 25 {
				t.Run(fmt.Sprint(a.name, "/", protocol.name, "/", i), func(t *testing.T) {
					a := family{
						client: randomAddress(random, a.client), virtual: randomAddress(random, a.virtual),
						server: randomAddress(random, a.server), secondServer: randomAddress(random, a.server),
					}
					s := newScene(t, f, a, protocol.number, nat)
					s.establish(t)
					for range 20 {
						in, back := s.request(), s.reply()
						for _, p := range []*bpftest.Packet{&in, &back} {
							p.Flags, p.Seq, p.Ack = "A", random.Uint32(), random.Uint32()
							p.TOS, p.ID, p.TTL = uint8(random.Uint32()), uint16(random.Uint32()), uint8(2+random.IntN(254))
							p.Payload = pattern(random.IntN(100))
							for i := range p.Payload {
								p.Payload[i] = byte(random.Uint32())
							}
						}
						run(t, f, in.Bytes(), sent(forwarded(in, s.server)), nil)
						run(t, f, back.Bytes(), sent(returned(back, s.virtual)), nil)
					}
				})
			}
		}
	}
}

// randomAddress is of the family of like, and no address errors are not sent to.
func randomAddress(random *rand.Rand, like netip.AddrPort) netip.AddrPort {
	b := like.Addr().AsSlice()
	for i := 1; i < len(b); i++ {
		b[i] = byte(random.Uint32())
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(21+random.IntN(65000)))
}
