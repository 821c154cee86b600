package scheduler

import (
	"net/netip"
	"slices"
	"time"
)

// replicatedLocality is lblcr (kernel: net/netfilter/ipvs/ip_vs_lblcr.c).
type replicatedLocality struct {
	list
	cache *cache[*serverSet]
	limit int // of a set; 0: none
	now   func() time.Time
	// weights of servers that were removed: sets go on to hold them.
	gone map[netip.AddrPort]uint32
}

// serverSet is the servers of one destination, newest first.
type serverSet struct {
	servers []netip.AddrPort
	changed time.Time
}

func newReplicatedLocality(o Options) Model {
	return &replicatedLocality{
		cache: newCache[*serverSet](o.Now), limit: o.SetLimit, now: o.Now,
		gone: make(map[netip.AddrPort]uint32),
	}
}

// Pick takes the least loaded server of the destination's set unless that is
// busier than it should be; else wlc's, which joins the set. A set that has not
// changed for long loses its most loaded member.
func (m *replicatedLocality) Pick(_, virtual netip.AddrPort, loads Loads) (netip.AddrPort, bool) {
	m.cache.collect()
	cached := m.cache.get(virtual.Addr())
	if cached != nil {
		set := cached.value
		least, ok := m.members(set, true).leastLoaded(loads)
		if len(set.servers) > 1 && m.now().After(set.changed.Add(CacheExpiration)) {
			m.shrink(set, loads)
		}
		if ok && !m.shouldMove(least, loads) {
			return least.Address, true
		}
	}
	e, ok := m.leastLoaded(loads)
	if !ok {
		return netip.AddrPort{}, false
	}
	if cached == nil {
		m.cache.add(virtual.Addr(), &serverSet{servers: []netip.AddrPort{e.Address}, changed: m.now()})
	} else {
		m.insert(cached.value, e.Address)
	}
	return e.Address, true
}

// members returns the set's servers with their weights, in the set's order;
// removed ones only if they are not to be available.
func (m *replicatedLocality) members(set *serverSet, available bool) list {
	var members list
	for _, server := range set.servers {
		if i := m.index(server); i >= 0 {
			members = append(members, m.list[i])
		} else if !available {
			members = append(members, NewEntry(server, m.gone[server]))
		}
	}
	return members
}

// shrink removes the member with the most overhead for its weight, the first of
// equals. Those of weight 0 stay; overloaded and removed ones need not.
func (m *replicatedLocality) shrink(set *serverSet, loads Loads) {
	most, ok := m.members(set, false).best(nil, func(e, best Entry) bool {
		return lessLoaded(loads[best.Address].overhead(), best, loads[e.Address].overhead(), e)
	})
	if ok {
		set.servers = slices.DeleteFunc(set.servers, func(s netip.AddrPort) bool { return s == most.Address })
		set.changed = m.now()
	}
}

func (m *replicatedLocality) insert(set *serverSet, server netip.AddrPort) {
	if slices.Contains(set.servers, server) {
		return
	}
	set.servers = slices.Insert(set.servers, 0, server)
	if m.limit > 0 && len(set.servers) > m.limit {
		set.servers = set.servers[:m.limit]
	}
	set.changed = m.now()
}

// Remove keeps the weight: the kernel's sets hold removed servers, and a server
// that comes back is the same one to them.
func (m *replicatedLocality) Remove(server netip.AddrPort) {
	if i := m.index(server); i >= 0 {
		m.gone[server] = m.list[i].Weight
		m.list.Remove(server)
	}
}

func (m *replicatedLocality) Add(server netip.AddrPort, weight uint32) {
	delete(m.gone, server)
	m.list.Add(server, weight)
}
