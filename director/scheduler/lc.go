package scheduler

import "net/netip"

// leastConnection is lc (kernel: net/netfilter/ipvs/ip_vs_lc.c).
type leastConnection struct{ list }

func newLeastConnection(Options) Model { return &leastConnection{} }

// Pick takes the server with the least overhead, whatever the weights.
func (m *leastConnection) Pick(_, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	e, ok := m.best(loads, func(e, best Entry) bool {
		return loads[e.Address].overhead() < loads[best.Address].overhead()
	})
	return e.Address, ok
}
