package bpf

import "github.com/cilium/ebpf"

// trafficEntries is how many elements the counters of a table's connections have:
// one for each group and one more, so that adopted ones tell whether they count.
func trafficEntries(l Limits, connections uint64) uint32 {
	if !l.CountConnections {
		return 1
	}
	return groups(connections) + 1
}

// SlotTraffic fills traffic with the counters of the connection tables' slots, from
// group first on, without a system call: element i's slot j has what the packets
// with the key of the entry in slot j of group first+i have carried. A forward
// entry's are those from the client, a reply entry's those from the server. They
// are true while the entry is there; a free slot's tell nothing. Where
// Limits.CountConnections is not set, traffic is set to zero.
func (p *Plane) SlotTraffic(v6 bool, first uint32, traffic []KernelGroupTraffic) error {
	if !p.Limits.CountConnections {
		clear(traffic)
		return nil
	}
	return ReadRange(p.trafficMap(v6), first, traffic)
}

func (p *Plane) trafficMap(v6 bool) *ebpf.Map {
	if v6 {
		return p.ConnectionTraffic6
	}
	return p.ConnectionTraffic4
}
