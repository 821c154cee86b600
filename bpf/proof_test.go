package bpf_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
)

// forward returns the entry of the packet's connection that has the last word.
func (s *scene) forward(t *testing.T, p bpftest.Packet) bpf.Entry {
	t.Helper()
	for _, e := range s.Entries() {
		if e.Source == p.From && e.Destination == p.To && !e.Reply {
			return e
		}
	}
	t.Fatalf("%v has no connection", p.From)
	return bpf.Entry{}
}

// eachTCP runs a test of NAT for both families, by a service of one address and by a
// wide one.
func eachTCP(t *testing.T, f *bpftest.Fixture, test func(*testing.T, *scene)) {
	t.Helper()
	for _, a := range families {
		for _, width := range []string{"plain", "wide"} {
			t.Run(a.name+"/"+width, func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, nat)
				if width == "wide" {
					wideScene(t, s, 4711)
				}
				test(t, s)
			})
		}
	}
}

// Only who has seen the server's number proves to be real: whatever else is
// acknowledged, the connection is established for IPVS and can be given up.
func TestProofByNumber(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	eachTCP(t, f, func(t *testing.T, s *scene) {
		client := 0
		for _, number := range []uint32{5000, 0, math.MaxUint32, math.MaxUint32 - 1, math.MaxUint32 - conntrack.AckReach + 1, 1 << 31} {
			wrong := []uint32{number, number - 1, number + 1 + conntrack.AckReach, number + 1 + 1<<31}
			right := []uint32{number + 1, number + 2, number + conntrack.AckReach}
			for _, first := range wrong {
				client++
				request, reply := s.requestOf(client), s.reply()
				reply.To, reply.Seq = request.From, number
				handshake := bpftest.Handshake(request, reply)
				s.pass(t, "SYN", handshake[0])
				guess := handshake[2]
				guess.Ack = first
				early := []bpftest.Packet{guess, handshake[1], guess, guess}
				if client%2 == 0 {
					early = early[1:]
				}
				for _, p := range early {
					s.pass(t, "SYN+ACK and guesses", p)
					if e := s.forward(t, request); e.Proven {
						t.Fatalf("%d acknowledged of %d: proven: %+v", first, number, e)
					}
				}
				if e := s.forward(t, request); e.State != established {
					t.Fatalf("%+v, want it established as IPVS has it", e)
				}
				guess.Ack = right[client%len(right)]
				s.pass(t, "ACK", guess)
				if e := s.forward(t, request); !e.Proven || e.State != established {
					t.Fatalf("%d acknowledged of %d: %+v, want it proven", guess.Ack, number, e)
				}
			}
		}
		diffLoads(t, f, s.service.Servers...)
	})
}

// The server's latest answer is what has to be acknowledged.
func TestProofOfAnotherAnswer(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachTCP(t, f, func(t *testing.T, s *scene) {
		handshake := bpftest.Handshake(s.request(), s.reply())
		again := handshake[1]
		again.Seq = 1 << 30
		s.pass(t, "SYN", handshake[0])
		s.pass(t, "SYN+ACK", handshake[1])
		s.pass(t, "SYN", handshake[0]) // the replies of a wide one go by its hop once more
		s.pass(t, "another SYN+ACK", again)
		s.pass(t, "ACK of the first", handshake[2])
		if s.forward(t, s.request()).Proven {
			t.Error("proven by the number before the last")
		}
		s.pass(t, "ACK of the last", bpftest.Handshake(s.request(), again)[2])
		if !s.forward(t, s.request()).Proven {
			t.Error("not proven by the last number")
		}
	})
}

// While the number stands in its place, the hop is the reply entry's; it comes back
// with the client's packets, and is not taken for another.
func TestHopReturnsAfterProof(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	second := f.Plane.Clock.Ticks(1e9)
	for _, a := range families {
		for _, moves := range []bool{false, true} {
			t.Run(fmt.Sprint(a.name, "/moves:", moves), func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, nat)
				handshake := bpftest.Handshake(s.request(), s.reply())
				s.pass(t, "SYN", handshake[0])
				hop := s.Entries()[0].Hop
				run(t, f, handshake[1].Bytes(), sent(returned(handshake[1], s.virtual)), nil)
				run(t, f, handshake[2].Bytes(), sent(forwarded(handshake[2], s.server)), nil)
				if e := s.Entries(); !e[0].Sequence || e[0].Hop != 0 || e[1].Hop != hop || hop == 0 {
					t.Errorf("%+v, want the hop %#x in the reply entry alone", e, hop)
				}
				f.Age(second)
				later, events := handshake[2], map[string]uint64{}
				if moves {
					later.Source, events = bpftest.OtherRouterMAC, one("hop-changed")
				}
				run(t, f, later.Bytes(), sent(forwarded(later, s.server)), events)
				e := s.Entries()
				if e[0].Sequence || e[0].Hop != e[1].Hop || e[0].Hop == 0 || (e[0].Hop != hop) != moves {
					t.Errorf("%+v, want one hop in both, %#x unless the client moved", e, hop)
				}
				answer := s.reply()
				answer.Flags = "A"
				want := returned(answer, s.virtual)
				want.Destination = later.Source
				run(t, f, answer.Bytes(), sent(want), nil)
			})
		}
		t.Run(a.name+"/wide", func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			wideScene(t, s, 4711)
			handshake := bpftest.Handshake(s.request(), s.reply())
			back := sent(returned(handshake[1], s.virtual))
			s.pass(t, "SYN", handshake[0])
			run(t, f, handshake[1].Bytes(), back, nil)
			// Its hop is nowhere now, and there is no route.
			run(t, f, handshake[1].Bytes(), dropped, one("no-route"))
			s.pass(t, "SYN again", handshake[0])
			run(t, f, handshake[1].Bytes(), back, nil)
			s.pass(t, "ACK", handshake[2])
			answer := s.reply()
			answer.Flags = "A"
			run(t, f, answer.Bytes(), sent(returned(answer, s.virtual)), nil)
			if e := s.Entries()[0]; e.Sequence || e.Hop == 0 || !e.Proven {
				t.Errorf("%+v, want it proven, with its hop", e)
			}
		})
	}
}

// The proof in place is for live servers and simple connections only.
func TestProofInPlaceLeavesTheRestToOthers(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat, dr)
			first := s.service.Servers[0]
			handshake := bpftest.Handshake(s.request(), s.reply())
			s.pass(t, "SYN", handshake[0])
			s.pass(t, "SYN+ACK", handshake[1])
			s.service.Servers = s.service.Servers[1:]
			f.Apply(s.service)
			run(t, f, handshake[2].Bytes(), dropped, one("server-removed"))
			if e := s.forward(t, s.request()); e.Proven || e.State != synReceived {
				t.Errorf("%+v, want it as it was when its server went", e)
			}
			diffLoads(t, f, first)
		})
	}
}

// The service's counts of connections begun and proven, which its guard goes by.
func TestProofIsCounted(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, method := range []bpf.KernelMethod{nat, dr} {
			t.Run(fmt.Sprint(a.name, "/", method), func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, method)
				counted := func(begun, proven uint64) {
					t.Helper()
					if got := f.ServiceState(s.service); got.Begun != begun || got.Proven != proven {
						t.Errorf("%d begun, %d proven, want %d, %d", got.Begun, got.Proven, begun, proven)
					}
				}
				before := s.requestOf(1)
				s.pass(t, "SYN without a guard", before)
				f.PutLimits(s.service, guardAuto)
				s.prove(t, before)
				counted(0, 0)
				var crowd []bpftest.Packet
				for i := range 3 {
					crowd = append(crowd, s.requestOf(10+i))
					s.pass(t, "SYN", crowd[i])
					s.pass(t, "SYN again", crowd[i])
				}
				counted(3, 0)
				s.prove(t, crowd[:2]...)
				counted(3, 2)
			})
		}
	}
}

// Packets by chance, against the model: proven is what it says, after each.
func TestProofFollowsTheModel(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	random := rand.New(rand.NewPCG(6, 1))
	for _, a := range families {
		for _, kind := range []struct {
			name     string
			method   bpf.KernelMethod
			protocol uint8
			wide     bool
		}{
			{"nat/tcp", nat, bpftest.TCP, false},
			{"nat/tcp/wide", nat, bpftest.TCP, true},
			{"nat/udp", nat, bpftest.UDP, false},
			{"dr/tcp", dr, bpftest.TCP, false},
			{"dr/udp", dr, bpftest.UDP, false},
		} {
			t.Run(a.name+"/"+kind.name, func(t *testing.T) {
				s := newScene(t, f, a, kind.protocol, kind.method)
				if kind.wide {
					wideScene(t, s, 4711)
				}
				// Or a first segment would begin another connection.
				s.service.Flags |= bpf.KernelServiceFlagsSERVICE_REUSE_NEVER | bpf.KernelServiceFlagsSERVICE_SLOPPY_TCP
				f.Apply(s.service)
				proven := 0
				for i := range bpftest.Rounds(60) {
					if s.walk(t, random, s.requestOf(i), kind.wide) {
						proven++
					}
				}
				if proven == 0 {
					t.Error("no client was proven: nothing was compared")
				}
			})
		}
	}
}

// walk sends packets of one connection, by chance but near what proves; whether it
// was proven in the end.
func (s *scene) walk(t *testing.T, random *rand.Rand, request bpftest.Packet, wide bool) bool {
	t.Helper()
	const packets = 14
	flags := []string{"S", "A", "A", "A", "A", "A", "A", "A", "A", "FA", "RA", "SA", ""}
	replies := []string{"SA", "SA", "A", "A", "FA", "RA", "S"}
	method := s.service.Servers[0].Method
	refresh := int32(s.Plane.Clock.Ticks(1e9))
	model := conntrack.Proof{Wide: wide}
	number := random.Uint32N(4) * (math.MaxUint32 / 3) // 0 and the last among them
	request.Flags = []string{"S", "A"}[random.IntN(2)]
	s.pass(t, "the first packet", request)
	before := s.forward(t, request)
	var log []string
	for range packets {
		if random.IntN(2) == 0 {
			s.AgeBy(2e9)
			before.Seen -= s.Plane.Clock.Ticks(2e9)
		}
		p, direction := request, conntrack.InputOnly
		p.Flags, p.Ack = flags[random.IntN(len(flags))], number+random.Uint32N(3)
		if method == nat {
			direction = conntrack.Input
		}
		if method == nat && random.IntN(3) == 0 {
			p, direction = s.reply(), conntrack.Output
			p.To = request.From
			p.Flags, p.Seq = replies[random.IntN(len(replies))], number+random.Uint32N(2)
		}
		from := now(t, s.Fixture)
		s.Run(p.Bytes()) // replies of wide ones may have no way out
		after := s.forward(t, request)
		spaced := int32(from-before.Seen) >= refresh
		if later := now(t, s.Fixture); int32(later-before.Seen) >= refresh != spaced {
			return false // the machine took a second for it
		}
		segment := conntrack.Segment{Flags: tcpFlags(p.Flags), Seq: p.Seq, Ack: p.Ack, Spaced: spaced}
		model = model.After(direction, segment, conntrack.State(after.State))
		log = append(log, fmt.Sprintf("%s %q seq %#x ack %#x spaced %t", direction, p.Flags, p.Seq, p.Ack, spaced))
		if after.Proven != model.Proven || after.ByReply != model.ByReply {
			t.Fatalf("%+v, want proof %+v after %q", after, model, log)
		}
		before = after
	}
	return model.Proven
}
