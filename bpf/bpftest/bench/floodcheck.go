package bench

import (
	"fmt"

	"github.com/shunt-lb/shunt/bpf"
)

// cpuCounts are what one CPU has counted. Hits and their company are told apart by the
// CPU alone: they are of one service.
type cpuCounts struct{ connections, packets, evicted, notOurs uint64 }

func (c cpuCounts) minus(d cpuCounts) cpuCounts {
	return cpuCounts{c.connections - d.connections, c.packets - d.packets, c.evicted - d.evicted, c.notOurs - d.notOurs}
}

// counts are those of the hits' CPU and of the other one.
func (b *beside) counts() (c [2]cpuCounts, err error) {
	for i := b.w.firstServer(); i < b.w.firstServer()+servers; i++ {
		var traffic []bpf.KernelTraffic
		if err := b.w.Maps[bpf.KernelMapServerTraffic].Lookup(i, &traffic); err != nil {
			return c, fmt.Errorf("read traffic: %w", err)
		}
		for n, cpu := range b.cpus {
			c[n].connections += traffic[cpu].Connections
			c[n].packets += traffic[cpu].InPackets
		}
	}
	for event, of := range map[bpf.KernelEvent]func(*cpuCounts) *uint64{
		bpf.KernelEventEVENT_NOTE_EVICTED:  func(c *cpuCounts) *uint64 { return &c.evicted },
		bpf.KernelEventEVENT_PASS_NOT_OURS: func(c *cpuCounts) *uint64 { return &c.notOurs },
	} {
		var perCPU []uint64
		if err := b.w.Maps[bpf.KernelMapEvents].Lookup(uint32(event), &perCPU); err != nil {
			return c, fmt.Errorf("read events: %w", err)
		}
		for n, cpu := range b.cpus {
			*of(&c[n]) = perCPU[cpu]
		}
	}
	return c, nil
}

// takenBeside proves that all packets measured were hits, and that the company's, whose
// number it returns, were what they were meant to be: of a flood, nearly all began a
// connection in another's place. A run that a signal interrupts begins anew: more hits
// than asked for may have been counted.
func takenBeside(before, after [2]cpuCounts, packets uint64, isFlood bool) (uint64, error) {
	hits, others := after[0].minus(before[0]), after[1].minus(before[1])
	if hits.packets < packets || hits != (cpuCounts{packets: hits.packets}) {
		return 0, fmt.Errorf("the CPU of %d hits has counted %+v", packets, hits)
	}
	switch {
	case !isFlood && (others.notOurs == 0 || others != cpuCounts{notOurs: others.notOurs}):
		return 0, fmt.Errorf("the CPU of packets that are not ours has counted %+v", others)
	case isFlood && (others.connections == 0 || others.evicted < others.connections*9/10):
		return 0, fmt.Errorf("the CPU of the flood has counted %+v", others)
	case isFlood:
		return others.connections, nil
	}
	return others.notOurs, nil
}
