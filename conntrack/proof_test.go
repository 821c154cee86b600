package conntrack_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
)

// Flags as segments have them.
const (
	syn    = 0x02
	rst    = 0x04
	ack    = 0x10
	synAck = syn | ack
)

// seen is one packet of a connection and what is proven then.
type seen struct {
	direction conntrack.Direction
	segment   conntrack.Segment
	state     conntrack.State // after it
	proven    bool
}

func fromClient(flags uint8, number uint32, state conntrack.State, proven bool) seen {
	return seen{conntrack.Input, conntrack.Segment{Flags: flags, Ack: number}, state, proven}
}

func fromServer(flags uint8, seq uint32, state conntrack.State, proven bool) seen {
	return seen{conntrack.Output, conntrack.Segment{Flags: flags, Seq: seq}, state, proven}
}

func unanswered(flags uint8, spaced bool, state conntrack.State, proven bool) seen {
	return seen{conntrack.InputOnly, conntrack.Segment{Flags: flags, Spaced: spaced}, state, proven}
}

func TestProof(t *testing.T) {
	const (
		none, recv, established = conntrack.None, conntrack.SynRecv, conntrack.Established
		last                    = math.MaxUint32
	)
	tests := []struct {
		name    string
		begin   conntrack.Proof
		packets []seen
	}{
		{"nat: the server's number acknowledged", conntrack.Proof{}, []seen{
			fromClient(syn, 0, recv, false), fromServer(synAck, 5000, recv, false), fromClient(ack, 5001, established, true),
			fromClient(rst, 0, conntrack.Close, true),
		}},
		{"nat: an acknowledgement before there is anything to", conntrack.Proof{}, []seen{
			fromClient(syn, 0, recv, false), fromClient(ack, 5001, established, false),
			fromServer(synAck, 5000, established, false), fromClient(ack, 5001, established, true),
		}},
		{"nat: one less", conntrack.Proof{}, []seen{fromServer(synAck, 5000, recv, false), fromClient(ack, 5000, established, false)}},
		{"nat: the last within reach", conntrack.Proof{}, []seen{
			fromServer(synAck, 5000, recv, false), fromClient(ack, 5001+conntrack.AckReach-1, established, true),
		}},
		{"nat: the first beyond", conntrack.Proof{}, []seen{
			fromServer(synAck, 5000, recv, false), fromClient(ack, 5001+conntrack.AckReach, established, false),
		}},
		{"nat: after the last number comes 0", conntrack.Proof{}, []seen{
			fromServer(synAck, last, recv, false), fromClient(ack, last, established, false), fromClient(ack, 0, established, true),
		}},
		{"nat: within reach across 0", conntrack.Proof{}, []seen{
			fromServer(synAck, last-10, recv, false), fromClient(ack, 100, established, true),
		}},
		{"nat: another answer of the server", conntrack.Proof{}, []seen{
			fromServer(synAck, 5000, recv, false), fromServer(synAck, 1<<31, recv, false),
			fromClient(ack, 5001, established, false), fromClient(ack, 1<<31+1, established, true),
		}},
		{"nat: a reset acknowledges nothing, from either", conntrack.Proof{}, []seen{
			fromServer(rst|ack, 5000, conntrack.Close, false), fromServer(synAck, 5000, recv, false),
			fromClient(rst|ack, 5001, conntrack.Close, false), fromClient(synAck, 5001, recv, false),
		}},
		{"nat: begun in the middle, the server's first number", conntrack.Proof{}, []seen{
			fromClient(ack, 7000, established, false), fromServer(ack, 7000, established, false),
			fromServer(ack, 9000, established, false), fromClient(ack, 7000, established, true),
		}},
		{"nat: a first segment again leaves the number", conntrack.Proof{}, []seen{
			fromServer(synAck, 5000, recv, false), fromClient(syn, 0, recv, false), fromClient(ack, 5001, established, true),
		}},
		{"nat, wide: not there, until the server repeats it", conntrack.Proof{Wide: true}, []seen{
			fromServer(synAck, 5000, recv, false), fromClient(syn, 0, recv, false), fromClient(ack, 5001, established, false),
			fromServer(synAck, 5000, established, false), fromClient(ack, 5001, established, true),
		}},
		{"no replies: half of it by the handshake, the rest by time", conntrack.Proof{}, []seen{
			unanswered(syn, false, recv, false), unanswered(syn, true, recv, false), unanswered(ack, true, established, false),
			unanswered(ack, true, established, false), unanswered(ack, false, established, false),
			unanswered(ack, true, established, false), unanswered(ack, true, established, true),
		}},
		{"no replies: all of it where the guard was answered", conntrack.Proof{Validated: true}, []seen{
			unanswered(syn, false, recv, false), unanswered(ack, false, established, true),
		}},
		{"no replies: no end of a connection proves", conntrack.Proof{}, []seen{
			unanswered(ack, false, established, false), unanswered(ack, true, conntrack.FinWait, false),
			unanswered(ack, true, conntrack.FinWait, false), unanswered(ack, true, conntrack.FinWait, false),
		}},
		{"udp: a reply", conntrack.Proof{}, []seen{
			{conntrack.Input, conntrack.Segment{}, conntrack.UDPNormal, false},
			{conntrack.Output, conntrack.Segment{}, conntrack.UDPNormal, true},
			{conntrack.Input, conntrack.Segment{Spaced: true}, conntrack.UDPNormal, true},
		}},
		{"udp: a late reply", conntrack.Proof{}, []seen{
			{conntrack.Input, conntrack.Segment{Spaced: true}, conntrack.UDPNormal, false}, {conntrack.Output, conntrack.Segment{}, conntrack.UDPNormal, true},
		}},
		{"udp: time", conntrack.Proof{}, []seen{
			{conntrack.Input, conntrack.Segment{Spaced: true}, conntrack.UDPNormal, false},
			{conntrack.Input, conntrack.Segment{Spaced: true}, conntrack.UDPNormal, false},
			{conntrack.Input, conntrack.Segment{}, conntrack.UDPNormal, false},
			{conntrack.Input, conntrack.Segment{Spaced: true}, conntrack.UDPNormal, true},
		}},
		{"none: nothing proves a connection without a state", conntrack.Proof{}, []seen{unanswered(0, true, none, false)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.begin
			for i, packet := range tt.packets {
				p = p.After(packet.direction, packet.segment, packet.state)
				if p.Proven != packet.proven {
					t.Fatalf("packet %d, %+v: %+v, want proven %t", i, packet.segment, p, packet.proven)
				}
			}
			if p.Proven && fmt.Sprint(p) != fmt.Sprint(conntrack.Proof{Validated: tt.begin.Validated, Wide: tt.begin.Wide, Proven: true}) {
				t.Errorf("%+v: proven, there is nothing more to know", p)
			}
		})
	}
}

// A reply alone leaves a UDP connection to be given up, whatever its server sends.
func TestProofByReply(t *testing.T) {
	answer := func(p conntrack.Proof, spaced bool) conntrack.Proof {
		return p.After(conntrack.Output, conntrack.Segment{Spaced: spaced}, conntrack.UDPNormal)
	}
	ask := func(p conntrack.Proof, spaced bool) conntrack.Proof {
		return p.After(conntrack.Input, conntrack.Segment{Spaced: spaced}, conntrack.UDPNormal)
	}
	p := answer(answer(ask(answer(conntrack.Proof{}, false), false), true), true)
	if !p.Proven || !p.ByReply {
		t.Errorf("%+v, want it proven by a reply", p)
	}
	if p = ask(p, true); !p.Proven || p.ByReply {
		t.Errorf("%+v, want it proven by the client's later packet", p)
	}
}
