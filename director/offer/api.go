package offer

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Verdicts returns what is offered now of every service in force, and why, by their
// keys; of no other than those given, if some are.
func (k *Keeper) Verdicts(keys ...director.ServiceKey) []ServiceVerdict {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(keys) == 0 {
		keys = slices.SortedFunc(maps.Keys(k.entries), director.ServiceKey.Compare)
	}
	all := make([]ServiceVerdict, 0, len(keys))
	for _, key := range keys {
		if e := k.entries[key]; e != nil {
			all = append(all, k.verdict(e))
		}
	}
	return all
}

// History returns up to limit of the last changes, newest first; 0: all that are kept.
// The zero values of key and server stand for every service, and server.
func (k *Keeper) History(key director.ServiceKey, server netip.AddrPort, limit int) []Change {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.history.last(key, server, limit)
}

// Notified returns what changes were told of since the start.
func (k *Keeper) Notified() Notified {
	k.notices.mu.Lock()
	defer k.notices.mu.Unlock()
	return k.notices.counts
}

// Away returns how many files are in each maintenance folder that services name.
func (k *Keeper) Away() map[string]int {
	all := make(map[string]int)
	for _, path := range k.folders() {
		all[path] = 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for path := range all {
		all[path] = len(k.away[path])
	}
	return all
}

// verdict says what is offered of a service.
func (k *Keeper) verdict(e *entry) ServiceVerdict {
	h := &e.service.Health
	v := ServiceVerdict{Service: e.service.Key, Name: e.service.Name, QuorumSince: e.since}
	d := e.last
	if d == nil { // it is about to be planned
		now := decide(e.service, k.known(e), e.quorum)
		d = &now
	}
	v.Quorum, v.Weight, v.Needed = d.quorum, d.weight, d.needed
	v.Panic, v.Sorry = d.panic, len(d.sorry) > 0
	for i := range d.rulings {
		r := &d.rulings[i]
		m := e.members[r.server.Address]
		if m == nil {
			continue // it left since
		}
		one := Verdict{
			Server: r.server.Address, Origin: r.origin, Up: r.up, Why: r.why, Since: e.ups[r.server.Address].since,
			Weight: r.weight, Withdrawn: r.withdrawn(h), Suspended: !m.suspended.IsZero(), Held: m.held, Changes: e.ups[r.server.Address].changes, Suspensions: m.suspends, Steps: slices.Clone(r.steps[:]),
		}
		if r.up && r.server.Draining {
			one.Why += drainingText
		}
		if m.counted && !h.Passive.IsZero() {
			counts := m.counts
			one.Evidence = &counts
		}
		if e.loads != nil {
			one.Load = e.loads.state(r.server.Address, time.Now())
		}
		for _, q := range m.questions {
			status, _ := k.opts.status(q.key)
			one.Checks = append(one.Checks, CheckState{Check: q.check, Key: q.key, Status: status})
		}
		v.Servers = append(v.Servers, one)
	}
	for _, server := range d.sorry {
		v.Servers = append(v.Servers, Verdict{
			Server: server.Address, Origin: FromSorry, Up: true, Weight: server.Weight, Since: e.since, Why: d.quorumText() + "; sorry servers are not checked",
		})
	}
	return v
}

// known returns the seats of those servers that have begun.
func (k *Keeper) known(e *entry) []seat {
	var seats []seat
	add := func(servers []realserver.Server, origin Origin) {
		for _, server := range servers {
			if m := e.members[server.Address]; m != nil && m.begun {
				seats = append(seats, seat{server, origin, m})
			}
		}
	}
	add(e.service.Servers, FromConfiguration)
	add(e.leased, FromLease)
	return seats
}
