package xdp

import (
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// matcher is a filter made ready for entries as they lie in the tables, so that
// only those are decoded that it selects.
type matcher struct {
	view   *view
	filter director.ConnectionFilter
	skip   uint64 // bits of recipes that nothing selected has
	// servers, by index: those that are known and whose entries may be selected.
	servers []bool
	states  uint32 // a bit each
	// client is where the selected clients are; invalid: anywhere. network is its
	// address in the ABI's form.
	client  netip.Prefix
	network [4]uint32
	mask    [4]uint32
	timed   bool // age or idle time select
}

// matcher makes the filter ready.
func (v *view) matcher(filter director.ConnectionFilter) *matcher {
	m := &matcher{
		view: v, filter: filter, servers: make([]bool, len(v.servers)), client: filter.Client.Masked(),
		skip:  bpf.RecipeBits(bpf.KernelRecipeLayoutRECIPE_REPLY, bpf.KernelRecipeLayoutRECIPE_BUSY),
		timed: filter.Age != director.Span{} || filter.Idle != director.Span{},
	}
	for i := range v.servers {
		s := &v.servers[i]
		m.servers[i] = s.service != nil && (filter.Service == director.ServiceKey{} || filter.Service == s.service.key) &&
			(!filter.Server.IsValid() || filter.Server == s.address)
	}
	for state := range uint32(bpf.KernelConnStateSTATES) {
		if filter.State == "" || filter.State == stateOf(uint8(state)).String() {
			m.states |= 1 << state
		}
	}
	if m.client.IsValid() {
		m.network, m.mask = bpf.Address(m.client.Addr()), clientMask(m.client.Addr().Is6(), uint8(m.client.Bits()))
	}
	return m
}

// stateOf returns the state of entries of that number: a template's is None.
func stateOf(state uint8) conntrack.State {
	if state == uint8(bpf.KernelConnStateSTATE_TEMPLATE) {
		return conntrack.None
	}
	return conntrack.State(state)
}

// hasFamily says whether entries of that table can be selected.
func (m *matcher) hasFamily(v6 bool) bool {
	return !m.client.IsValid() || m.client.Addr().Is6() == v6
}

// matches says whether the entry, which has no bit of skip, is of a known server and
// selected.
func (m *matcher) matches(s *bpf.Slot) bool {
	server := s.Server()
	if server >= uint32(len(m.servers)) || !m.servers[server] || m.states>>s.State()&1 == 0 {
		return false
	}
	if s.IsTemplate() {
		return m.matchesTemplate(s)
	}
	return m.filter.Kind != director.KindTemplate && m.isIn(s, &m.mask) && (!m.timed || m.isInTime(s))
}

// matchesTemplate judges a template, whose network may be larger than the clients
// that are selected.
func (m *matcher) matchesTemplate(s *bpf.Slot) bool {
	service := m.view.servers[s.Server()].service
	if m.filter.Kind == director.KindConnection || !m.view.isOf(s.Destination[0], service) {
		return false
	}
	mask := m.mask
	if m.client.IsValid() && int(service.persistence.Prefix) < m.client.Bits() {
		mask = clientMask(s.V6, service.persistence.Prefix)
	}
	return m.isIn(s, &mask) && (!m.timed || m.isInTime(s))
}

// isIn says whether the entry's client is in the network, as far as the mask goes.
func (m *matcher) isIn(s *bpf.Slot, mask *[4]uint32) bool {
	if !m.client.IsValid() {
		return true
	}
	return s.V6 == m.client.Addr().Is6() &&
		(s.Source[0]^m.network[0])&mask[0]|(s.Source[1]^m.network[1])&mask[1]|
			(s.Source[2]^m.network[2])&mask[2]|(s.Source[3]^m.network[3])&mask[3] == 0
}

func (m *matcher) isInTime(s *bpf.Slot) bool {
	age, idle := m.view.times(s.Born(), s.Seen)
	return m.filter.Age.Contains(age) && m.filter.Idle.Contains(idle)
}
