package watch

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// serverID identifies a server of a service.
type serverID struct {
	service director.ServiceKey
	address netip.AddrPort
}

// serverState is what was known of a server at the last reading.
type serverState struct {
	isNew bool      // never seen reachable, and not told as unreachable
	since time.Time // when it was first seen, or told as unreachable
	told  bool      // told as unreachable
	seen  time.Time // the last reading that had it
}

// takeServers tells which servers lost or found their next hop. A server that
// is added, reachable or soon so, is no news; nor is one that is removed.
func (w *Watcher) takeServers(services []director.ServiceStats, now time.Time) {
	var lost, found []event.Event
	for i := range services {
		key := services[i].Key
		for _, server := range services[i].Servers {
			id := serverID{key, server.Server.Address}
			state := w.servers[id]
			if state == nil {
				state = &serverState{isNew: true, since: now}
				w.servers[id] = state
			}
			state.seen = now
			switch {
			case server.Reachable && state.told:
				found = append(found, id.event(event.ServerReachable, "", fmt.Sprintf(
					"server %s of %s is reachable again after %s", id.address, key, now.Sub(state.since).Round(time.Second))))
				*state = serverState{seen: now}
			case server.Reachable:
				state.isNew = false
			case !state.told && (!state.isNew || now.Sub(state.since) >= w.opts.Resolving):
				lost = append(lost, id.event(event.ServerUnreachable, server.Reason, fmt.Sprintf(
					"server %s of %s gets no new connections: %s", id.address, key, orUnknown(server.Reason))))
				*state = serverState{told: true, since: now, seen: now}
			}
		}
	}
	for id, state := range w.servers {
		if !state.seen.Equal(now) {
			delete(w.servers, id)
		}
	}
	w.publishSome(lost, "servers get no new connections")
	w.publishSome(found, "servers are reachable again")
}

// publishSome publishes the events, or the first of them and the number of the
// others.
func (w *Watcher) publishSome(events []event.Event, what string) {
	for i, e := range events {
		if i == w.opts.ServerEvents {
			w.events.Publish(event.Event{Name: e.Name, Message: fmt.Sprintf("%d more %s", len(events)-i, what)})
			return
		}
		w.events.Publish(e)
	}
}

func (id serverID) event(name event.Name, reason, message string) event.Event {
	return event.Event{Name: name, Service: id.service.String(), Server: id.address.String(), Reason: reason, Message: message}
}

func orUnknown(reason string) string {
	if reason == "" {
		return "it has no next hop"
	}
	return reason
}
