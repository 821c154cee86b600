package scheduler

import "net/netip"

// failover is fo (kernel: net/netfilter/ipvs/ip_vs_fo.c).
type failover struct{ list }

func newFailover(Options) Model { return &failover{} }

// Pick takes the server of the greatest weight.
func (m *failover) Pick(_, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	e, ok := m.best(loads, func(e, best Entry) bool { return e.Weight > best.Weight })
	return e.Address, ok
}
