package scheduler

import (
	"net/netip"

	"github.com/shunt-lb/shunt/director"
)

// SourceHashSize is the number of buckets of sh (kernel:
// net/netfilter/ipvs/ip_vs_sh.c, IP_VS_SH_TAB_SIZE at its default of 8 bits).
const (
	SourceHashSize = 1 << sourceHashBits
	sourceHashBits = 8
)

// SourceHashTable returns sh's buckets: for each the index of its server, or -1
// if there are no servers. Every server takes as many consecutive buckets as
// its weight, in list order, round and round; one of weight 0 takes one, so its
// clients are refused unless sh-fallback is set. Those of draining servers are led
// to others.
func SourceHashTable(servers []Entry) []int { return relieved(servers, sourceHashTable) }

func sourceHashTable(servers []Entry) []int {
	table := make([]int, SourceHashSize)
	server, taken := 0, uint32(0)
	for i := range table {
		if len(servers) == 0 {
			table[i] = -1
			continue
		}
		table[i] = server
		if taken++; taken >= servers[server].Weight {
			server, taken = (server+1)%len(servers), 0
		}
	}
	return table
}

// SourceHashBucket returns the bucket of a client; the port is 0 without
// sh-port. offset is 0, or what sh-fallback tries.
func SourceHashBucket(client netip.Addr, port uint16, offset uint32) uint32 {
	return (offset + hash32(uint32(port)+Fold(client), sourceHashBits)) % SourceHashSize
}

// sourceHash is sh.
type sourceHash struct {
	list
	flags director.SchedulerFlags
	table []int
}

func newSourceHash(o Options) Model {
	return &sourceHash{flags: o.Flags, table: SourceHashTable(nil)}
}

func (m *sourceHash) Pick(client, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	return lookUp(m.list, loads, m.table, m.flags, client, SourceHashBucket)
}

func (m *sourceHash) Add(server netip.AddrPort, weight uint32) {
	m.list.Add(server, weight)
	m.table = SourceHashTable(m.list)
}

func (m *sourceHash) Remove(server netip.AddrPort) {
	m.remove(server)
	m.table = SourceHashTable(m.list)
}

func (m *sourceHash) Edit(server netip.AddrPort, weight uint32) {
	m.edit(server, weight)
	m.table = SourceHashTable(m.list)
}

func (m *sourceHash) drain(server netip.AddrPort, draining bool) {
	m.setDraining(server, draining)
	m.table = SourceHashTable(m.list)
}

// lookUp is the part that sh and mh share: the server in the client's bucket
// or, with fallback, the first usable one in the buckets of all other offsets.
func lookUp(servers list, loads Loads, table []int, flags director.SchedulerFlags, client netip.AddrPort,
	bucket func(netip.Addr, uint16, uint32) uint32,
) (netip.AddrPort, bool) {
	var port uint16
	if flags.Port {
		port = client.Port()
	}
	first := bucket(client.Addr(), port, 0)
	tries := 1
	if flags.Fallback {
		tries += len(table) // offset 0 comes up again among them, as in the kernel
	}
	at := first
	for k := range tries {
		if k > 0 {
			offset := (uint32(k-1) + first) % uint32(len(table))
			at = bucket(client.Addr(), port, offset)
		}
		if table[at] < 0 {
			break
		}
		if e := servers[table[at]]; e.eligible(loads) {
			return e.Address, true
		}
	}
	return netip.AddrPort{}, false
}
