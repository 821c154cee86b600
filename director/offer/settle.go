package offer

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// effects are what follows from decisions, for Run to do without the Keeper's lock.
type effects struct {
	reoffer []director.ServiceKey
	kills   []director.ConnectionFilter
	events  []event.Event
	notes   []notice
}

// place is a server of a service.
type place struct {
	service director.ServiceKey
	server  netip.AddrPort
}

// settle takes in what is known now of a service, and decides anew.
func (k *Keeper) settle(e *entry, now time.Time, out *effects) {
	if !k.ready(e) {
		return
	}
	e.dirty, e.wake = false, time.Time{}
	seats := k.seats(e, e.service, e.leased, nil)
	told := telling{Keeper: k, entry: e, now: now, effects: out}
	for _, s := range seats {
		told.hear(s)
	}
	if e.loads != nil {
		if at := e.loads.Silent(now); !at.IsZero() {
			told.later(at)
		}
	}
	d := decide(e.service, seats, e.quorum)
	if d.panic && told.absolveAll(seats) {
		d = decide(e.service, seats, e.quorum)
	}
	if told.rise(seats, &d) {
		d = decide(e.service, seats, e.quorum)
	}
	told.tell(seats, &d)
	if e.last == nil && !e.plain() || e.last != nil && (e.strayed || !d.offersAs(e.last)) {
		out.reoffer = append(out.reoffer, e.service.Key)
	}
	e.last, e.strayed = &d, false
}

// ready reports whether all that is known of the service's servers has begun; it does
// so here where the kernel has nothing to say about it.
func (k *Keeper) ready(e *entry) bool {
	if !e.begun && !e.service.Health.IsZero() {
		return false // it is not planned yet
	}
	for addr, m := range e.members {
		if m.begun {
			continue
		}
		i := e.service.Server(addr)
		server := seatOf(e, addr, i)
		m.start(begins(e.service, server, nil, true))
		k.reassign = true
	}
	if !e.begun {
		e.begun, e.quorum = true, true
	}
	return true
}

// telling compares what is decided with what was, and tells it.
type telling struct {
	*Keeper
	*entry
	*effects
	now      time.Time
	absolved map[netip.AddrPort]bool // in this turn
}

// later has the entry looked at again at the time.
func (t *telling) later(at time.Time) {
	if t.wake.IsZero() || at.Before(t.wake) {
		t.wake = at
	}
}

// rise begins slow starts, and ends those of servers that are down; it reports whether
// one changed.
func (t *telling) rise(seats []seat, d *decision) bool {
	period, changed := t.service.Health.SlowStart, false
	for i := range d.rulings {
		r, m := &d.rulings[i], seats[i].member
		was, known := t.ups[r.server.Address]
		switch {
		case !r.up:
			changed = changed || m.ramp < full
			m.rising, m.ramp = time.Time{}, full
		case known && !was.up && period > 0 && !m.early && !t.absolved[r.server.Address]:
			m.rising, m.ramp, changed = t.now, firstShare, true
			t.later(t.now.Add(period / shares))
		}
		if r.up {
			m.early = false
		}
	}
	return changed
}

// tell notes what changed since the last decision.
func (t *telling) tell(seats []seat, d *decision) {
	for i := range d.rulings {
		t.tellServer(&d.rulings[i], seats[i].member, len(d.sorry) > 0)
	}
	if !t.since.IsZero() && d.quorum != t.quorum && !t.plain() {
		text := fmt.Sprintf("a weight of %d is up, of %d", d.weight, d.needed)
		if len(d.sorry) > 0 {
			text += "; sorry servers stand in"
		}
		what, name, state := EventQuorumLost, event.QuorumLost, stateDown
		command := t.service.Health.Notify.QuorumDown
		if d.quorum {
			what, name, state, command = EventQuorum, event.QuorumRegained, stateUp, t.service.Health.Notify.QuorumUp
		}
		t.say(what, name, netip.AddrPort{}, text)
		t.notes = append(t.notes, t.notice(netip.AddrPort{}, state, command, text))
	}
	if t.since.IsZero() || d.quorum != t.quorum {
		t.quorum, t.since = d.quorum, t.now
	}
	wasPanic := t.last != nil && t.last.panic
	switch {
	case d.panic && !wasPanic:
		t.say(EventPanic, event.PanicOn, netip.AddrPort{}, fmt.Sprintf("less than %d %% of the servers are up: the checks are doubted, all are offered", t.service.Health.Panic))
	case wasPanic && !d.panic:
		t.say(EventCalm, event.PanicOff, netip.AddrPort{}, "enough servers are up: the checks are believed again")
	}
}

// tellServer notes what changed for a server.
func (t *telling) tellServer(r *ruling, m *member, replaced bool) {
	addr := r.server.Address
	was, known := t.ups[addr]
	now := standing{up: r.up, why: r.why, since: was.since, weight: r.weight, keeps: r.keeps(), changes: was.changes}
	switch {
	case !known:
	case was.keeps && !now.keeps && t.service.Health.Established == director.EstablishedCut:
		// Whatever its weight was: it may have lost that before, to sorry servers for one.
		t.cut(addr, "")
	case was.weight > 0 && r.weight == 0 && (!r.serves || replaced) && t.service.Persistence.Timeout > 0:
		t.cut(addr, director.KindTemplate)
	}
	switch {
	case !known:
		now.since = t.now
	case was.up != r.up:
		now.since, now.changes = t.now, was.changes+1
		what, name, state, command := EventDown, event.ServerDown, stateDown, t.service.Health.Notify.Down
		if r.up {
			what, name, state, command = EventUp, event.ServerUp, stateUp, t.service.Health.Notify.Up
		}
		t.say(what, name, addr, r.why)
		t.notes = append(t.notes, t.notice(addr, state, command, r.why))
	}
	t.ups[addr] = now
	if m.suspended.IsZero() {
		m.spoken = false
	} else if !m.spoken {
		m.spoken = true
		t.say(EventSuspended, event.ServerSuspended, addr, m.evidence)
	}
}

// cut has what leads to a server removed: its templates, so that clients get another, or
// all.
func (t *telling) cut(addr netip.AddrPort, kind director.ConnectionKind) {
	t.kills = append(t.kills, director.ConnectionFilter{Service: t.service.Key, Server: addr, Kind: kind})
}

// say adds to the history and publishes.
func (t *telling) say(what Event, name event.Name, server netip.AddrPort, why string) {
	key := t.service.Key
	t.history.add(Change{At: t.now, Service: key, Server: server, What: what, Why: why})
	e := event.Event{Name: name, Service: key.String(), Message: fmt.Sprintf("service %s: %s", key, why)}
	if server.IsValid() {
		e.Server, e.Message = server.String(), fmt.Sprintf("server %s of %s: %s", server, key, why)
	}
	t.events = append(t.events, e)
}

// offersAs reports whether the decisions offer the same.
func (d *decision) offersAs(o *decision) bool {
	same := func(a, b ruling) bool {
		return a.server == b.server && a.origin == b.origin && a.serves == b.serves && a.keeps() == b.keeps() && a.weight == b.weight
	}
	return slices.EqualFunc(d.rulings, o.rulings, same) && slices.Equal(d.sorry, o.sorry)
}
