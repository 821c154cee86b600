package scheduler

import "net/netip"

// firstEligible is the worked example of ADDING.md: the first server of the list
// that may be chosen. It is registered nowhere but in the test that all
// algorithms pass.
type firstEligible struct{ list }

// NewFirstEligible makes its model.
func NewFirstEligible(Options) Model { return &firstEligible{} }

func (m *firstEligible) Pick(_, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	e, ok := m.best(loads, func(_, _ Entry) bool { return false })
	return e.Address, ok
}
