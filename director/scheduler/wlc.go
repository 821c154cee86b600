package scheduler

import "net/netip"

// weightedLeastConnection is wlc (kernel: net/netfilter/ipvs/ip_vs_wlc.c).
type weightedLeastConnection struct{ list }

func newWeightedLeastConnection(Options) Model { return &weightedLeastConnection{} }

func (m *weightedLeastConnection) Pick(_, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	e, ok := m.leastLoaded(loads)
	return e.Address, ok
}

// leastLoaded takes the server with the least overhead for its weight. lblc and
// lblcr choose with it too.
func (l list) leastLoaded(loads Loads) (Entry, bool) {
	return l.best(loads, func(e, best Entry) bool {
		return lessLoaded(loads[e.Address].overhead(), e, loads[best.Address].overhead(), best)
	})
}

// lessLoaded reports whether a's cost for its weight is less than b's, without
// the division.
func lessLoaded(costA int64, a Entry, costB int64, b Entry) bool {
	return costB*int64(a.Weight) > costA*int64(b.Weight)
}
