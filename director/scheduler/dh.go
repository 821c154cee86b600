package scheduler

import "net/netip"

// DestinationHashSize is the number of buckets of dh (kernel:
// net/netfilter/ipvs/ip_vs_dh.c, IP_VS_DH_TAB_SIZE at its default of 8 bits).
const (
	DestinationHashSize = 1 << destinationHashBits
	destinationHashBits = 8
)

// DestinationHashTable returns dh's buckets: for each the index of its server,
// or -1 if there are none. The servers take turns in list order, whatever their
// weights: clients of one of weight 0 are refused.
func DestinationHashTable(servers []Entry) []int {
	table := make([]int, DestinationHashSize)
	for i := range table {
		table[i] = -1
		if len(servers) > 0 {
			table[i] = i % len(servers)
		}
	}
	return table
}

// DestinationHashBucket returns the bucket of a virtual address.
func DestinationHashBucket(virtual netip.Addr) uint32 {
	return hash32(Fold(virtual), destinationHashBits)
}

// destinationHash is dh. Its table depends on the list's order alone, so an edit
// needs no other one, in the kernel either.
type destinationHash struct{ list }

func newDestinationHash(Options) Model { return &destinationHash{} }

func (m *destinationHash) Pick(_, virtual netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	if len(m.list) == 0 {
		return netip.AddrPort{}, false
	}
	e := m.list[int(DestinationHashBucket(virtual.Addr()))%len(m.list)]
	return e.Address, e.eligible(loads)
}
