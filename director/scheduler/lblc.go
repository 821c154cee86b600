package scheduler

import "net/netip"

// locality is lblc (kernel: net/netfilter/ipvs/ip_vs_lblc.c).
type locality struct {
	list
	cache *cache[netip.AddrPort]
}

func newLocality(o Options) Model {
	return &locality{cache: newCache[netip.AddrPort](o.Now)}
}

// Pick takes the server that the destination had before unless that is gone, of
// weight 0, suspended or busier than it should be; else wlc's, which is remembered.
// The overload flag of the remembered one is not looked at.
func (m *locality) Pick(_, virtual netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	m.cache.collect()
	cached := m.cache.get(virtual.Addr())
	if cached != nil {
		if i := m.index(cached.value); i >= 0 && m.list[i].Weight > 0 && !loads[cached.value].Suspended && !m.shouldMove(m.list[i], loads) {
			return cached.value, true
		}
	}
	e, ok := m.leastLoaded(loads)
	if !ok {
		return netip.AddrPort{}, false
	}
	if cached == nil || cached.value != e.Address {
		// The kernel makes a new element, whose place in its bucket is the first.
		m.cache.remove(virtual.Addr())
		m.cache.add(virtual.Addr(), e.Address)
	}
	return e.Address, true
}

// shouldMove is the kernel's is_overloaded of lblc and lblcr: the server has more
// active connections than its weight while another is less than half full.
func (l list) shouldMove(e Entry, loads Loads) bool {
	if loads[e.Address].Active <= int64(e.Weight) {
		return false
	}
	for _, other := range l {
		if loads[other.Address].Active*2 < int64(other.Weight) {
			return true
		}
	}
	return false
}
