package scheduler

import "net/netip"

// shortestExpectedDelay is sed (kernel: net/netfilter/ipvs/ip_vs_sed.c).
type shortestExpectedDelay struct{ list }

func newShortestExpectedDelay(Options) Model { return &shortestExpectedDelay{} }

func (m *shortestExpectedDelay) Pick(_, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	e, ok := m.shortestDelay(loads)
	return e.Address, ok
}

// shortestDelay takes the server that would have the fewest active connections
// for its weight with this one; inactive ones do not count.
func (l list) shortestDelay(loads Loads) (Entry, bool) {
	return l.best(loads, func(e, best Entry) bool {
		return lessLoaded(loads[e.Address].delay(), e, loads[best.Address].delay(), best)
	})
}
