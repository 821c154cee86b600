package bench

import (
	"encoding/binary"

	"github.com/shunt-lb/shunt/bpf"
)

const (
	fragmentID     = 4711
	fragmentFirst  = 0x2000   // more fragments
	fragmentOthers = 1480 / 8 // the last one's offset
)

// fragmentPlan is newPlan of packets that are a fragment by that member of the IPv4 header.
func fragmentPlan(w *world, place uint16) BenchPlan {
	plan := newPlan(w, toService, 0, random)
	whole := frame(w.family.clients, w.virtual, w.protocol, 0)
	binary.BigEndian.PutUint16(whole[14+4:], fragmentID)
	binary.BigEndian.PutUint16(whole[14+6:], place)
	plan.setFrame(whole)
	return plan
}

// fragments adds the later fragments of a datagram, whose first is sent before each run.
func (g *group) fragments(h *harness, w *world) {
	first := fragmentPlan(w, fragmentFirst)
	s := g.add("fragment-later/"+g.suffix, w.main(), fragmentPlan(w, fragmentOthers), xdpTX, nil)
	s.begin = func() (err error) {
		if _, err := h.run(&first, w.main(), 1, xdpTX); err != nil {
			return err
		}
		s.check, err = w.watch(inPackets, bpf.KernelEventEVENT_NOTE_FRAGMENTS)
		return err
	}
}
