package bench

import (
	"encoding/binary"
	"math"
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
)

// Protocol numbers and the TCP flags the frames carry.
const (
	tcp = 6
	udp = 17

	flagSYN = 0x02
	flagACK = 0x10
)

const frameSize = 6 + 9*8 // of the wrapper

// direction is which of a connection's packets a plan sends.
type direction int

const (
	toService direction = iota
	fromServer
	notOurs // to an address that is not ours
)

// order is how a plan visits the connections.
type order int

const (
	inOrder order = iota // all in turn, from the first on
	random               // each once, in pseudo-random order
)

// newPlan describes the packets of connections in one direction.
func newPlan(w *world, d direction, flags uint8, o order) BenchPlan {
	p := BenchPlan{
		Multiplier: 1, Addend: 1, Mask: w.connections - 1,
		Client: lastWord(w.family.clients), Server: lastWord(w.family.servers), ServerPort: virtualPort,
	}
	source, destination := w.family.clients, w.virtual
	kinds := [...][2]BenchVary{
		toService:  {BenchVaryVARY_CLIENT4, BenchVaryVARY_CLIENT6},
		fromServer: {BenchVaryVARY_REPLY4, BenchVaryVARY_REPLY6},
		notOurs:    {BenchVaryVARY_SOURCE4, BenchVaryVARY_SOURCE6},
	}
	p.Vary = uint32(kinds[d][0])
	if w.family.v6 {
		p.Vary = uint32(kinds[d][1])
	}
	switch d {
	case fromServer:
		source, destination = w.family.servers, w.family.clients
		if w.method == bpf.KernelMethodMETHOD_FULLNAT { // of one connection: its own port
			destination = w.family.local
			p.Client = lastWord(destination)
		}
		p.ServerPort = serverPort
	case notOurs:
		destination = w.family.others
	}
	if o == random {
		p.Multiplier, p.Addend = 1664525, 1013904223
	}
	p.setFrame(frame(source, destination, w.protocol, flags))
	return p
}

func (p *BenchPlan) setFrame(frame [frameSize]byte) {
	copy(p.Start[:], frame[:])
	for i := range p.Words {
		p.Words[i] = binary.NativeEndian.Uint64(frame[6+i*8:])
	}
}

// frame builds a frame of the wrapper's size. Ports are the wrapper's business,
// and so is what becomes of the checksums: the fast path never computes one.
func frame(source, destination netip.Addr, protocol, flags uint8) (f [frameSize]byte) {
	copy(f[:], []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9})
	l3 := f[14:]
	var l4 []byte
	if source.Is4() {
		binary.BigEndian.PutUint16(f[12:], 0x0800)
		l3[0] = 0x45
		binary.BigEndian.PutUint16(l3[2:], frameSize-14)
		l3[6] = 0x40 // DF
		l3[8], l3[9] = 64, protocol
		copy(l3[12:], source.AsSlice())
		copy(l3[16:], destination.AsSlice())
		l4 = l3[20:]
	} else {
		binary.BigEndian.PutUint16(f[12:], 0x86dd)
		l3[0] = 0x60
		binary.BigEndian.PutUint16(l3[4:], frameSize-14-40)
		l3[6], l3[7] = protocol, 64
		copy(l3[8:], source.AsSlice())
		copy(l3[24:], destination.AsSlice())
		l4 = l3[40:]
	}
	binary.BigEndian.PutUint16(l4, virtualPort)
	binary.BigEndian.PutUint16(l4[2:], virtualPort)
	if protocol == udp {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		binary.BigEndian.PutUint16(l4[6:], 0x1234) // a checksum, so that it is kept up
	} else {
		// After this number comes 0, which all segments acknowledge: it proves a client.
		binary.BigEndian.PutUint32(l4[4:], math.MaxUint32)
		l4[12], l4[13] = 5<<4, flags
	}
	return f
}
