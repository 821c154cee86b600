package differential

import (
	"strconv"

	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// flow identifies a connection of a case.
type flow struct {
	client  int
	port    uint16
	virtual int
}

func flowOf(e Event) flow { return flow{e.Client, e.Port, e.Virtual} }

// Flows remembers what a script has done so far: which server a client's packets
// went to last, whose replies it then means, and which servers are there.
type Flows struct {
	servers map[flow]int
	present map[int]bool
}

// NewFlows returns what is known before the first event.
func NewFlows() Flows { return Flows{map[flow]int{}, map[int]bool{}} }

// Note takes an event that was run, with its answer.
func (f Flows) Note(e Event) {
	switch e.Verb {
	case Add, Remove:
		f.present[e.Server] = e.Verb == Add
	case Send:
		if n, err := strconv.Atoi(e.Answer); err == nil {
			f.servers[flowOf(e)] = n
		}
	}
}

// Knows reports whether packets of the event's connection went to a server.
func (f Flows) Knows(e Event) bool {
	_, known := f.servers[flowOf(e)]
	return known
}

// Packet returns the packet of a Send or Reply, and whether there is one. No reply
// comes from a server that got nothing; nor from one that was removed, whose
// packets Shunt drops in both directions, the kernel only the clients'.
func (f Flows) Packet(c Case, e Event) (bpftest.Packet, bool) {
	p := bpftest.Packet{Protocol: uint8(c.protocol()), From: c.Client(e), To: c.Virtual(e.Virtual)}
	if e.Flags != "-" {
		p.Flags = e.Flags
	}
	if e.Verb == Reply {
		n := f.servers[flowOf(e)]
		p.From, p.To = c.ServerAddress(n), p.From
		return p, f.Knows(e) && f.present[n]
	}
	return p, true
}
