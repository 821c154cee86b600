package watch

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// serviceState is what was known of a service at the last reading.
type serviceState struct {
	guarded bool
	since   time.Time           // when the guard went on
	before  director.GuardStats // at that time
	refused map[string]*burst   // by the limit's name; those that were ever counted
	seen    time.Time           // the last reading that had it
}

// takeServices tells which limits are hit, and what guards do. A service that is
// there at the first reading has done what it has done; a new one begins with nothing.
func (w *Watcher) takeServices(services []director.ServiceStats, now time.Time) {
	var hit, ended []event.Event
	for i := range services {
		s := &services[i]
		state := w.services[s.Key]
		if state == nil {
			state = &serviceState{guarded: s.Guard.On && !w.begun, since: now, before: s.Guard}
			w.services[s.Key] = state
		}
		state.seen = now
		w.takeGuard(s, state, now)
		for _, name := range slices.Sorted(maps.Keys(s.Refused)) {
			if name == director.RefusedTableFull {
				continue // the table's news
			}
			step, n := state.refusedFor(name, s.Refused[name], !w.begun).take(s.Refused[name], now, w.opts.Quiet)
			switch step {
			case burstBegan:
				hit = append(hit, limitEvent(event.LimitHit, s.Key, name, fmt.Sprintf("new connections of %s are refused for its limit %s, %d so far", s.Key, name, n)))
			case burstEnded:
				ended = append(ended, limitEvent(event.LimitHitEnded, s.Key, name, fmt.Sprintf(
					"no new connection of %s was refused for its limit %s for %s, %d before", s.Key, name, w.opts.Quiet, n)))
			}
		}
	}
	maps.DeleteFunc(w.services, func(_ director.ServiceKey, s *serviceState) bool { return !s.seen.Equal(now) })
	w.publishSome(hit, "limits of services are hit")
	w.publishSome(ended, "limits of services are hit no more")
}

// refusedFor returns the burst of a limit. What was counted before the first reading
// is nobody's news.
func (s *serviceState) refusedFor(limit string, count uint64, first bool) *burst {
	b := s.refused[limit]
	switch {
	case b != nil:
		return b
	case count == 0:
		return new(burst) // kept when there is something to keep: services are many
	case s.refused == nil:
		s.refused = make(map[string]*burst)
	}
	b = new(burst)
	if first {
		b.count = count
	}
	s.refused[limit] = b
	return b
}

// takeGuard tells when the guard goes on and off.
func (w *Watcher) takeGuard(s *director.ServiceStats, state *serviceState, now time.Time) {
	if s.Guard.On == state.guarded {
		return
	}
	if state.guarded = s.Guard.On; s.Guard.On {
		state.since, state.before = now, s.Guard
		w.tellGuard(event.GuardOn, s.Key, "the guard of %s is on: clients have to show first that they are real", s.Key)
		return
	}
	w.tellGuard(
		event.GuardOff, s.Key, "the guard of %s is off after %s: it answered %d first segments, and %d clients were real", s.Key,
		now.Sub(state.since).Round(time.Second), since(state.before.Challenged, s.Guard.Challenged), since(state.before.Validated, s.Guard.Validated))
}

// since returns what was counted since a count, which may have begun anew.
func since(before, now uint64) uint64 { return now - min(before, now) }

func limitEvent(name event.Name, service director.ServiceKey, limit, message string) event.Event {
	return event.Event{Name: name, Service: service.String(), Reason: limit, Message: message}
}

func (w *Watcher) tellGuard(name event.Name, service director.ServiceKey, format string, args ...any) {
	w.events.Publish(event.Event{Name: name, Service: service.String(), Message: fmt.Sprintf(format, args...)})
}
