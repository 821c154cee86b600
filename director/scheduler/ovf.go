package scheduler

import "net/netip"

// overflow is ovf (kernel: net/netfilter/ipvs/ip_vs_ovf.c).
type overflow struct{ list }

func newOverflow(Options) Model { return &overflow{} }

// Pick takes the server of the greatest weight among those whose active
// connections are not more than their weight: one of weight w takes w+1. When
// all have more there is none.
func (m *overflow) Pick(_, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	var best Entry
	for _, e := range m.list {
		if e.eligible(loads) && loads[e.Address].Active <= int64(e.Weight) && e.Weight > best.Weight {
			best = e
		}
	}
	return best.Address, best.Weight > 0
}
