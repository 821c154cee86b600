package scheduler

import (
	"math/bits"
	"net/netip"

	"github.com/shunt-lb/shunt/director"
)

// MaglevSize is the size of mh's table, a prime (kernel:
// net/netfilter/ipvs/ip_vs_mh.c, IP_VS_MH_TAB_SIZE at its default index of 12).
const (
	MaglevSize  = 4093
	maglevIndex = 12

	maglevKey1 = 2654435761 // hash1: a server's first slot, and the flow's
	maglevKey2 = 2654446892 // hash2: the distance of a server's slots
)

// A service must not have more servers than the table has slots.
const _ = uint(MaglevSize - director.MaxServers)

// MaglevTable returns mh's table for a service: for each slot the index of its
// server, or -1 if there is none. The servers take turns in list order, each
// along its own permutation of the slots. The last weights that were not zero
// count, so that weight 0 leaves the table as it is: clients of such a server
// are refused unless mh-fallback is set. Those of a draining server are led to
// others.
func MaglevTable(vip netip.Addr, servers []Entry) []int {
	return relieved(servers, func(servers []Entry) []int { return maglevTable(vip, servers) })
}

func maglevTable(vip netip.Addr, servers []Entry) []int {
	table := make([]int, MaglevSize)
	for i := range table {
		table[i] = -1
	}
	setup := maglevSetup(vip, servers)
	for filled := 0; len(setup) > 0; {
		for i := range setup {
			s := &setup[i]
			for range s.turns {
				for table[s.slot] >= 0 {
					s.slot = (s.slot + s.skip) % MaglevSize
				}
				table[s.slot] = s.server
				if filled++; filled == MaglevSize {
					return table
				}
			}
		}
	}
	return table
}

// maglevServer is how a server takes slots.
type maglevServer struct {
	server     int
	slot, skip uint32
	turns      uint32 // slots a round
}

// maglevSetup leaves out servers that never had a weight. Weights above 64
// times their divisor are scaled down, so that a round stays short.
func maglevSetup(vip netip.Addr, servers []Entry) []maglevServer {
	var divisor, greatest uint32
	for _, e := range servers {
		divisor = gcd(divisor, e.LastWeight)
		greatest = max(greatest, e.LastWeight)
	}
	if greatest == 0 {
		return nil
	}
	shift := max(0, bits.Len32(greatest/divisor)-maglevIndex/2)
	setup := make([]maglevServer, 0, len(servers))
	for i, e := range servers {
		if e.LastWeight == 0 {
			continue
		}
		start, skip := MaglevStart(vip, e.Address)
		setup = append(setup, maglevServer{
			server: i, slot: start, skip: skip,
			turns: max(1, e.LastWeight/divisor>>shift),
		})
	}
	return setup
}

// MaglevStart returns a server's first slot and the distance to the next ones.
func MaglevStart(vip netip.Addr, server netip.AddrPort) (start, skip uint32) {
	v := uint32(server.Port()) + foldServer(server.Addr(), vip)
	return HSipHash(v, maglevKey1) % MaglevSize, HSipHash(v, maglevKey2)%(MaglevSize-1) + 1
}

// MaglevSlot returns the slot of a client; the port is 0 without mh-port.
// offset is 0, or what mh-fallback tries.
func MaglevSlot(client netip.Addr, port uint16, offset uint32) uint32 {
	return HSipHash(offset+uint32(port)+Fold(client), maglevKey1) % MaglevSize
}

// maglev is mh. The table depends on the family of the virtual address, which
// is known at the first pick.
type maglev struct {
	list
	flags director.SchedulerFlags
	table []int // nil: to be built
	vip   netip.Addr
}

func newMaglev(o Options) Model { return &maglev{flags: o.Flags} }

func (m *maglev) Pick(client, vip netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	if m.table == nil || m.vip != vip.Addr() {
		m.table, m.vip = MaglevTable(vip.Addr(), m.list), vip.Addr()
	}
	return lookUp(m.list, loads, m.table, m.flags, client, MaglevSlot)
}

func (m *maglev) Add(server netip.AddrPort, weight uint32) {
	m.list.Add(server, weight)
	m.table = nil
}

func (m *maglev) Remove(server netip.AddrPort) {
	m.remove(server)
	m.table = nil
}

func (m *maglev) Edit(server netip.AddrPort, weight uint32) {
	m.edit(server, weight)
	m.table = nil
}

func (m *maglev) drain(server netip.AddrPort, draining bool) {
	m.setDraining(server, draining)
	m.table = nil
}
