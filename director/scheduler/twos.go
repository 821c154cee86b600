package scheduler

import "net/netip"

// twoRandomChoices is twos (kernel: net/netfilter/ipvs/ip_vs_twos.c).
type twoRandomChoices struct {
	list
	random func(n uint32) uint32
}

func newTwoRandomChoices(o Options) Model { return &twoRandomChoices{random: o.Random} }

// Pick draws two servers by weight and takes the second if it is less loaded.
// The draw is from 0 to the sum of the weights inclusive, which favours the
// first of the list by one unit, and the product has 32 bits: both the kernel's.
func (m *twoRandomChoices) Pick(_, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	var total uint32
	for _, e := range m.list {
		if e.eligible(loads) {
			total += e.Weight
		}
	}
	if total == 0 {
		return netip.AddrPort{}, false
	}
	first, second := m.at(m.random(total+1), loads), m.at(m.random(total+1), loads)
	loadOf := func(e Entry) int32 { return int32(loads[e.Address].overhead()) }
	if int32(second.Weight)*loadOf(first) > int32(first.Weight)*loadOf(second) {
		return second.Address, true
	}
	return first.Address, true
}

// at returns the server at which the weights, added up, reach the number.
func (m *twoRandomChoices) at(number uint32, loads Loads) Entry {
	var at Entry
	var sum uint32
	for _, e := range m.list {
		if !e.eligible(loads) {
			continue
		}
		at = e
		if sum += e.Weight; sum >= number {
			break
		}
	}
	return at
}
