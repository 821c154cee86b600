package scheduler

import "net/netip"

// neverQueue is nq (kernel: net/netfilter/ipvs/ip_vs_nq.c).
type neverQueue struct{ list }

func newNeverQueue(Options) Model { return &neverQueue{} }

// Pick takes the first server without an active connection, or else sed's.
func (m *neverQueue) Pick(_, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	for _, e := range m.list {
		if e.eligible(loads) && loads[e.Address].Active == 0 {
			return e.Address, true
		}
	}
	e, ok := m.shortestDelay(loads)
	return e.Address, ok
}
