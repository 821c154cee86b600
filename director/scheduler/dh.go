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
// weights: clients of one of weight 0 are refused, those of a draining one led to
// others.
func DestinationHashTable(servers []Entry) []int { return relieved(servers, destinationHashTable) }

func destinationHashTable(servers []Entry) []int {
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

// destinationHash is dh. The kernel makes its table anew when a server comes or
// goes; an edit needs no other one: it depends on the list's order alone.
type destinationHash struct {
	list
	table []int
}

func newDestinationHash(Options) Model { return &destinationHash{table: DestinationHashTable(nil)} }

func (m *destinationHash) Pick(_, virtual netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	i := m.table[DestinationHashBucket(virtual.Addr())]
	if i < 0 {
		return netip.AddrPort{}, false
	}
	return m.list[i].Address, m.list[i].eligible(loads)
}

func (m *destinationHash) Add(server netip.AddrPort, weight uint32) {
	m.list.Add(server, weight)
	m.table = DestinationHashTable(m.list)
}

func (m *destinationHash) Remove(server netip.AddrPort) {
	m.remove(server)
	m.table = DestinationHashTable(m.list)
}

func (m *destinationHash) drain(server netip.AddrPort, draining bool) {
	m.setDraining(server, draining)
	m.table = DestinationHashTable(m.list)
}
