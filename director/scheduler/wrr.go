package scheduler

import "net/netip"

// WeightStep returns what wrr counts with: its current weight starts at mw, the
// greatest weight minus (di - 1), and goes down by di, the greatest common
// divisor of the weights that are not zero (1 if there is none). mw is 0 if no
// server is eligible (kernel: net/netfilter/ipvs/ip_vs_wrr.c).
func WeightStep(servers []Entry) (mw, di uint32) {
	for _, e := range servers {
		mw = max(mw, e.Weight)
		di = gcd(di, e.Weight)
	}
	if mw == 0 {
		return 0, 1
	}
	return mw - (di - 1), di
}

// gcd returns the greatest common divisor; 0 divides nothing and is left out.
func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// CurrentWeight returns wrr's current weight after a change of the servers gave
// these steps: cut to the maximum, and with a step above 1 moved to where the
// steps from the maximum pass.
func CurrentWeight(cw, mw, di uint32) uint32 {
	switch {
	case cw > mw || cw == 0:
		return mw
	case di > 1:
		return cw/di*di + 1
	default:
		return cw
	}
}

// weightedRoundRobin is wrr.
type weightedRoundRobin struct {
	list
	cl     int // where the last pick ended, or head
	cw     uint32
	mw, di uint32
}

func newWeightedRoundRobin(Options) Model {
	return &weightedRoundRobin{cl: head, di: 1}
}

// Pick walks the list from where the last pick ended, takes the first server of
// at least the current weight, and lowers the current weight at every end of
// the list. It gives up when every server was seen at the lowest weight.
func (m *weightedRoundRobin) Pick(_, _ netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	if m.mw == 0 {
		return netip.AddrPort{}, false
	}
	var (
		start     = m.cl
		stop      = len(m.list) // no element
		lastPass  bool          // this pass is at the lowest weight, for all of the list
		restarted bool          // the current weight went round to the maximum
	)
	for i := m.cl + 1; ; i = 0 {
		for ; i < len(m.list); i++ {
			if e := m.list[i]; e.Weight >= m.cw && loads[e.Address].isFit() {
				m.cl = i
				return e.Address, true
			}
			if i == stop {
				m.cl = i
				return netip.AddrPort{}, false
			}
		}
		if m.cw <= m.di {
			m.cw = m.mw
			if lastPass || start == head {
				m.cl = head
				return netip.AddrPort{}, false
			}
			restarted = true
		} else {
			m.cw -= m.di
		}
		lastPass = m.cw <= m.di
		if lastPass && restarted && start != head {
			stop = start // what is after it was seen at the lowest weight first
		}
	}
}

func (m *weightedRoundRobin) Add(server netip.AddrPort, weight uint32) {
	m.list.Add(server, weight)
	m.changed()
}

func (m *weightedRoundRobin) Remove(server netip.AddrPort) {
	if m.remove(server) >= 0 {
		m.changed()
	}
}

func (m *weightedRoundRobin) Edit(server netip.AddrPort, weight uint32) {
	if m.edit(server, weight) {
		m.changed()
	}
}

// changed is ip_vs_wrr_dest_changed.
func (m *weightedRoundRobin) changed() {
	m.cl = head
	m.mw, m.di = WeightStep(m.list)
	m.cw = CurrentWeight(m.cw, m.mw, m.di)
}
