package scheduler

import "net/netip"

// head is the place before the first element: the kernel's list head.
const head = -1

// roundRobin is rr (kernel: net/netfilter/ipvs/ip_vs_rr.c).
type roundRobin struct {
	list
	last int // the last chosen one's index, or head
}

func newRoundRobin(Options) Model { return &roundRobin{last: head} }

// Pick takes the next eligible server after the last chosen one. Starting at
// the head, one pass over the list is all there is; otherwise the list is
// walked to its end and from its head to the last chosen one, itself included.
func (m *roundRobin) Pick(_, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	for step := 1; step <= len(m.list); step++ {
		i := m.last + step
		if m.last != head {
			i %= len(m.list)
		} else if i >= len(m.list) {
			break
		}
		if m.list[i].eligible(loads) {
			m.last = i
			return m.list[i].Address, true
		}
	}
	return netip.AddrPort{}, false
}

// Add does not move the last chosen one.
func (m *roundRobin) Add(server netip.AddrPort, weight uint32) {
	m.list.Add(server, weight)
	if m.last != head {
		m.last++
	}
}

// Remove of the last chosen one makes its predecessor the last chosen one.
func (m *roundRobin) Remove(server netip.AddrPort) {
	if i := m.remove(server); i >= 0 && i <= m.last {
		m.last--
	}
}
