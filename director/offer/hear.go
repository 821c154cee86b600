package offer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// A slow start goes in so many steps of the same length; it begins with firstShare per
// cent of the weight.
const (
	shares     = 10
	firstShare = full / shares
)

// hear takes in what is known of a server now.
func (t *telling) hear(s seat) {
	m, h := s.member, &t.service.Health
	m.away = t.awayBy(t.service, s.server.Address)
	if h.Passive.IsZero() {
		m.suspended, m.absolved = time.Time{}, false // the data plane forgets too
	}
	before, wasKnown := m.alive, m.known
	settled := t.listen(m)
	if m.alive != before && m.known && wasKnown {
		t.damp(s)
	}
	if !m.held.IsZero() {
		if t.now.Before(m.held) {
			t.later(m.held)
		} else {
			m.held = time.Time{}
		}
	}
	if !m.suspended.IsZero() {
		end := m.suspended.Add(cmp.Or(h.Passive.Suspend, defaultSuspend))
		switch {
		case m.isOrderedUp():
			t.absolveOne(s, "it is ordered up")
		case settled && m.alive && len(m.questions) > 0:
			t.absolveOne(s, "its checks contradict what packets told")
		case !t.now.Before(end):
			t.absolveOne(s, "its time is over")
		default:
			t.later(end)
		}
	}
	silence := ""
	if m.load = nil; t.loads != nil {
		silence = t.silence(s)
		if parts, why := t.loads.Weight(s.server.Address, shareWhole, t.now); why != "" {
			if silence != "" {
				why += " (" + silence + ")"
			}
			m.load = &share{parts, why}
		}
	}
	if m.carried > 0 {
		if t.now.Before(m.carriedUntil) && m.weight == (told{}) && m.load == nil {
			t.later(m.carriedUntil)
		} else {
			m.carried = 0
		}
	}
	if m.load == nil && m.carried == 0 && silence != "" {
		m.load = &share{shareWhole, "load: never heard (" + silence + ")"}
	}
	if !m.rising.IsZero() {
		t.grow(m)
	}
}

// listen asks what the checks say together; it reports whether all of them know, and
// none is in doubt. Before they know, the server is what it was.
func (t *telling) listen(m *member) bool {
	if len(t.service.Health.Checks) == 0 {
		m.alive, m.known, m.why, m.weight = true, true, "not checked", told{}
		return true
	}
	alive, known, settled, why, weight := true, true, true, "", told{}
	for _, q := range m.questions {
		status, asked := t.opts.now(q.key)
		switch {
		case !asked || !status.Known || !status.Up && status.Failures == 0: // asked for the first times
			alive, known, settled = alive && m.alive, false, false
			continue
		case status.Assumed && !m.alive && (m.known || m.recalled):
			// Another service's word, not the check's: by an order, or in panic, its server may
			// be offered whatever the check says. This one takes its passes.
			alive, known, settled = false, false, false
			continue
		case !status.Up && alive:
			alive, why = false, fmt.Sprintf("%s check: %s", q.check.Kind, status.Reason)
		case why == "":
			why = fmt.Sprintf("%s check: %s", q.check.Kind, status.Reason)
		}
		settled = settled && !status.Suspected
		if status.Weight != nil && status.Absolute {
			weight.absolute = status.Weight
		} else if status.Weight != nil {
			weight.delta += *status.Weight
		}
	}
	if len(m.questions) == 0 || !known && alive == m.alive {
		return false // nothing is heard yet
	}
	if alive && len(m.questions) > 1 {
		why = fmt.Sprintf("all %d checks passed", len(m.questions))
	}
	m.alive, m.known, m.why, m.weight = alive, known || !alive, why, weight
	return settled
}

// damp counts a change of what the checks say.
func (t *telling) damp(s seat) {
	rule := t.service.Health.Damping
	if rule.Changes == 0 {
		return
	}
	s.changes = append(slices.DeleteFunc(s.changes, func(at time.Time) bool { return t.now.Sub(at) >= rule.Within }), t.now)
	if len(s.changes) < int(rule.Changes) || !s.held.IsZero() {
		return
	}
	s.held, s.changes = t.now.Add(rule.Hold), nil
	t.say(EventHeld, event.ServerHeld, s.server.Address, fmt.Sprintf("%d changes within %s: held down for %s", rule.Changes, rule.Within, rule.Hold))
}

// grow takes a slow start's next step.
func (t *telling) grow(m *member) {
	period, gone := t.service.Health.SlowStart, t.now.Sub(m.rising)
	if gone >= period {
		m.rising, m.ramp = time.Time{}, full
		return
	}
	step := gone * shares / period
	m.ramp = uint8(min(firstShare*(step+1), full))
	t.later(m.rising.Add(period * (step + 1) / shares))
}

// absolveOne ends a suspension, here and then in the data plane.
func (t *telling) absolveOne(s seat, why string) {
	s.suspended, s.absolved = time.Time{}, true
	if t.absolved == nil {
		t.absolved = make(map[netip.AddrPort]bool)
	}
	t.absolved[s.server.Address] = true
	t.say(EventAbsolved, event.ServerAbsolved, s.server.Address, why)
}

// absolveAll ends all suspensions: what packets told is doubted too. It reports whether
// there was one.
func (t *telling) absolveAll(seats []seat) bool {
	any := false
	for _, s := range seats {
		if !s.suspended.IsZero() {
			t.absolveOne(s, "too many servers look dead")
			any = true
		}
	}
	return any
}

// status is the Checker's Status; nothing is asked without one.
func (o Options) status(k health.Key) (health.Status, bool) {
	if o.Checks == nil {
		return health.Status{}, false
	}
	return o.Checks.Status(k)
}

// now is the Checker's Now.
func (o Options) now(k health.Key) (health.Status, bool) {
	if o.Checks == nil {
		return health.Status{}, false
	}
	return o.Checks.Now(k)
}

// seatOf returns the server that a member is, at i in the service's list or of a lease.
func seatOf(e *entry, addr netip.AddrPort, i int) realserver.Server {
	if i >= 0 {
		return e.service.Servers[i]
	}
	for _, server := range e.leased {
		if server.Address == addr {
			return server
		}
	}
	return realserver.Server{Address: addr}
}
