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

// Flows remembers which server a client's packets went to last: the one whose
// replies a script means. The zero value knows none.
type Flows map[flow]int

// Answered notes the answer to a client's packet.
func (f Flows) Answered(e Event) {
	if n, err := strconv.Atoi(e.Answer); err == nil {
		f[flow{e.Client, e.Port, e.Virtual}] = n
	}
}

// Knows reports whether packets of the event's connection went to a server.
func (f Flows) Knows(e Event) bool {
	_, known := f[flow{e.Client, e.Port, e.Virtual}]
	return known
}

// Packet returns the packet of a Send or Reply, and whether there is one: no
// reply comes from a server that got nothing.
func (f Flows) Packet(c Case, e Event) (bpftest.Packet, bool) {
	p := bpftest.Packet{Protocol: uint8(c.protocol()), From: c.Client(e), To: c.Virtual(e.Virtual)}
	if e.Flags != "-" {
		p.Flags = e.Flags
	}
	if e.Verb == Reply {
		n, known := f[flow{e.Client, e.Port, e.Virtual}]
		p.From, p.To = c.ServerAddress(n), p.From
		return p, known
	}
	return p, true
}
