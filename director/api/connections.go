package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// The media types of the list of connections.
const (
	linesType   = "application/x-ndjson"
	recordsType = "application/vnd.shunt.connections"
)

// pushAfter is after how many bytes a part of the list is pushed to the client.
const pushAfter = 128 << 10

// ListConnections answers listConnections: records, or one JSON object a line
// (NDJSON), so that neither side holds the table in memory. The status has gone out
// before the walk ends: an error in the middle is the last line, {"problem": …}.
func (e endpoints) ListConnections(w http.ResponseWriter, r *http.Request, p ListConnectionsParams) {
	filter, err := e.connectionFilter(filterParams{p.Service, p.Server, p.Client, p.Kind, p.State, p.MinAge, p.MaxAge, p.MinIdle, p.MaxIdle})
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	part := partOfList{}
	if p.Limit != nil {
		part.limit = *p.Limit
	}
	if p.Cursor != nil && *p.Cursor != "" {
		if part.after, err = parseCursor(*p.Cursor); err != nil {
			writeProblem(w, problemOf(err))
			return
		}
	}
	if part == (partOfList{}) && e.director.HasTable() && wants(r, recordsType, linesType) {
		e.sendRecords(w, r, filter)
		return
	}
	e.sendLines(w, r, filter, part)
}

// partOfList says which part of the list is asked for: after a place, and how many.
type partOfList struct {
	after director.Place
	limit uint64 // 0: all
}

// A cursor is a place as a text.
const cursorBase = 16

func parseCursor(text string) (director.Place, error) {
	place, err := strconv.ParseUint(text, cursorBase, 64)
	if err != nil || place == 0 {
		return 0, invalid(fmt.Sprintf("cursor %.80q is none", text), "the last line of the part before has it")
	}
	return director.Place(place), nil
}

// sendLines sends the part as lines.
func (e endpoints) sendLines(w http.ResponseWriter, r *http.Request, filter director.ConnectionFilter, part partOfList) {
	w.Header().Set("Content-Type", linesType)
	form := e.form()
	lines := make([]byte, 0, pushAfter+4096) // the longest line has an engine's data
	sent, last := uint64(0), director.Place(0)
	for c, err := range e.director.ConnectionsAfter(r.Context(), filter, part.after) {
		if err != nil && sent == 0 {
			writeProblem(w, problemOf(err))
			return
		}
		if err != nil {
			lines = appendProblem(lines, problemOf(err))
			break
		}
		if sent == part.limit && part.limit > 0 {
			if last != 0 {
				lines = fmt.Appendf(lines, "{\"next\":\"%s\"}\n", strconv.FormatUint(uint64(last), cursorBase))
			}
			break
		}
		lines = append(form.appendConnection(lines, &c.Connection), '\n')
		sent++
		last = c.Place
		if len(lines) < pushAfter {
			continue
		}
		if _, err := w.Write(lines); err != nil {
			return // the client has gone, or takes too long: nobody to tell
		}
		e.extend(w)
		lines = lines[:0]
	}
	_, _ = w.Write(lines)
}

// KillConnections answers killConnections. A filter that is left empty by mistake
// must not end everything: one is wanted, and none may be empty.
func (e endpoints) KillConnections(w http.ResponseWriter, r *http.Request, p KillConnectionsParams) {
	e.read(w, func() (any, error) {
		given := filterParams{p.Service, p.Server, p.Client, p.Kind, p.State, p.MinAge, p.MaxAge, p.MinIdle, p.MaxIdle}
		for _, f := range []struct {
			name  string
			value *string
		}{
			{"service", p.Service},
			{"server", p.Server},
			{"client", p.Client},
			{"kind", p.Kind},
			{"state", p.State},
			{"min-age", p.MinAge},
			{"max-age", p.MaxAge},
			{"min-idle", p.MinIdle},
			{"max-idle", p.MaxIdle},
		} {
			if f.value != nil && *f.value == "" {
				return nil, invalid(fmt.Sprintf("remove connections: %s is empty", f.name), "leave it out, if all are meant")
			}
		}
		filter, err := e.connectionFilter(given)
		if err != nil {
			return nil, err
		}
		if filter == (director.ConnectionFilter{}) {
			return nil, invalid("remove connections: which is not said", "give service, server, client, kind, state, age or idle time")
		}
		kill := e.director.Kill
		if p.Reset != nil && *p.Reset {
			kill = e.director.Reset
		}
		killed, err := kill(r.Context(), filter)
		switch {
		case errors.Is(err, director.ErrUnsupported): // it says all
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("remove connections, %d so far: %w", killed, err)
		}
		return ConnectionsKilled{Killed: killed}, nil
	})
}

// filterParams are the parameters that say which connections are meant; nil and
// empty match everything.
type filterParams struct {
	service, server, client, kind, state *string
	minAge, maxAge, minIdle, maxIdle     *string
}

func (h *Handler) connectionFilter(p filterParams) (director.ConnectionFilter, error) {
	var filter director.ConnectionFilter
	var err error
	if p.service != nil && *p.service != "" {
		if filter.Service, err = h.filterKey(*p.service); err != nil {
			return filter, err
		}
	}
	if p.server != nil && *p.server != "" {
		if filter.Server, err = netip.ParseAddrPort(*p.server); err != nil {
			return filter, invalid(fmt.Sprintf("server %.80q is not an address and port", *p.server), "write it as 10.0.0.1:80")
		}
	}
	if p.client != nil && *p.client != "" {
		if filter.Client, err = director.ParsePrefix(*p.client); err != nil {
			return filter, badWord("client", err)
		}
	}
	if p.kind != nil {
		switch filter.Kind = director.ConnectionKind(*p.kind); filter.Kind {
		case "", director.KindConnection, director.KindTemplate:
		default:
			return filter, invalid(fmt.Sprintf("kind %.80q: want connection or template", *p.kind), "leave it out for both")
		}
	}
	if p.state != nil && *p.state != "" {
		state, err := conntrack.ParseState(*p.state)
		if err != nil {
			return filter, badWord("state", err)
		}
		filter.State = state.String()
	}
	if filter.Age, err = parseSpan("age", p.minAge, p.maxAge); err != nil {
		return filter, err
	}
	filter.Idle, err = parseSpan("idle", p.minIdle, p.maxIdle)
	return filter, err
}

// parseSpan reads the parameters min-what and max-what.
func parseSpan(what string, least, below *string) (director.Span, error) {
	var span director.Span
	for _, bound := range []struct {
		name string
		text *string
		d    *time.Duration
	}{{"min-" + what, least, &span.AtLeast}, {"max-" + what, below, &span.Below}} {
		if bound.text == nil || *bound.text == "" {
			continue
		}
		d, err := time.ParseDuration(*bound.text)
		if err != nil {
			return span, invalid(fmt.Sprintf("%s %.40q is not a duration", bound.name, *bound.text), "write it as 10m")
		}
		if d <= 0 {
			return span, invalid(fmt.Sprintf("%s %s: want more than 0s", bound.name, d), "leave it out, if all are meant")
		}
		*bound.d = d
	}
	if span.Below != 0 && span.Below <= span.AtLeast {
		return span, invalid(fmt.Sprintf("min-%s %s and max-%s %s: nothing is between them", what, span.AtLeast, what, span.Below), "")
	}
	return span, nil
}

// filterKey reads a service's name or URL. A URL need not be a service any more:
// connections and events outlive it.
func (h *Handler) filterKey(text string) (director.ServiceKey, error) {
	if strings.Contains(text, "://") {
		return director.ParseFoundKey(text)
	}
	return h.resolve(text)
}
