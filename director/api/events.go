package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/director/event"
)

// eventFilter selects events; zero fields match everything.
type eventFilter struct {
	names   []string
	service string
}

func (f eventFilter) matches(e event.Event) bool {
	return (len(f.names) == 0 || slices.Contains(f.names, string(e.Name))) && (f.service == "" || f.service == e.Service)
}

// ListEvents answers listEvents, with a page or a stream.
func (e endpoints) ListEvents(w http.ResponseWriter, r *http.Request, p ListEventsParams) {
	filter, err := e.eventFilter(p)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	w.Header().Set("Vary", "Accept")
	if !wantsStream(r) {
		e.read(w, func() (any, error) { return e.eventPage(filter, p) })
		return
	}
	after, resumes, err := lastEventID(p.LastEventID)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	switch {
	case resumes: // what the client has seen since it first asked
	case p.After != nil:
		after = *p.After
	default:
		after = e.opts.Events.Last()
	}
	e.stream(w, r, func(ctx context.Context, s *sender) error { return e.sendEvents(ctx, s, filter, after) })
}

func (e endpoints) eventFilter(p ListEventsParams) (eventFilter, error) {
	f := eventFilter{names: p.Name}
	for _, name := range f.names {
		if !slices.ContainsFunc(event.Names(), func(i event.Info) bool { return string(i.Name) == name }) {
			return f, invalid("name: there is no event named "+strings.ToValidUTF8(harmless(name), "?"), "known: "+eventNames())
		}
	}
	if p.Service != nil && *p.Service != "" {
		key, err := e.filterKey(*p.Service)
		if err != nil {
			return f, err
		}
		f.service = key.String()
	}
	return f, nil
}

func eventNames() string {
	var names []string
	for _, info := range event.Names() {
		names = append(names, string(info.Name))
	}
	return strings.Join(names, ", ")
}

// eventPage returns the first events after an id, or without one the newest.
func (e endpoints) eventPage(filter eventFilter, p ListEventsParams) (EventList, error) {
	size, err := pageSize(p.Limit)
	if err != nil {
		return EventList{}, err
	}
	after := uint64(0)
	if p.After != nil {
		after = *p.After
	}
	all, missed := e.opts.Events.After(after)
	list := EventList{Events: []Event{}, Missed: missed, Next: after}
	if len(all) > 0 {
		list.Next = all[len(all)-1].ID
	}
	var matching []event.Event
	for _, one := range all {
		if filter.matches(one) {
			matching = append(matching, one)
		}
	}
	switch {
	case len(matching) <= size:
	case p.After == nil:
		matching = matching[len(matching)-size:]
	default:
		matching = matching[:size]
		list.Next = matching[size-1].ID
	}
	for _, one := range matching {
		list.Events = append(list.Events, eventModel(one))
	}
	return list, nil
}

// sendEvents sends the events after the id, and then those that come.
func (e endpoints) sendEvents(ctx context.Context, s *sender, filter eventFilter, after uint64) error {
	for {
		err := e.await(ctx, after, func(batch []event.Event, missed bool) error {
			if missed {
				if err := s.event(0, missedName, Missed{After: after}); err != nil {
					return err
				}
			}
			for _, one := range batch {
				after = one.ID
				if !filter.matches(one) {
					continue
				}
				if err := s.event(one.ID, string(one.Name), eventModel(one)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := s.heartbeat(); err != nil {
			return err
		}
	}
}

// await passes on the events after the id that come until the next heartbeat is
// due or the context ends. It returns the error of take, or of a context that had
// ended before: by then all is passed on that was published before the end, and
// that may be the end's own event.
func (h *Handler) await(ctx context.Context, after uint64, take func([]event.Event, bool) error) error {
	over := ctx.Err()
	until, cancel := context.WithTimeout(ctx, h.limits.heartbeat)
	defer cancel()
	for batch, missed := range h.opts.Events.Follow(until, after) {
		if err := take(batch, missed); err != nil {
			return err
		}
	}
	return over
}

func eventModel(e event.Event) Event {
	return Event{
		ID: e.ID, Time: e.Time.UTC(), Name: string(e.Name), Message: e.Message,
		Service: e.Service, Server: e.Server, Interface: e.Interface, Reason: e.Reason, Revision: e.Revision,
	}
}
