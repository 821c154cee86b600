package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// flushEvery is after how many connections the answer is pushed to the client.
const flushEvery = 1024

// ListConnections answers listConnections: one JSON object a line (NDJSON), so
// that neither side holds the table in memory. The status has gone out before
// the walk ends: an error in the middle is the last line, {"problem": …}.
func (e endpoints) ListConnections(w http.ResponseWriter, r *http.Request, p ListConnectionsParams) {
	filter, err := e.connectionFilter(filterParams{p.Service, p.Server, p.Client, p.Kind, p.State})
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	sent := uint64(0)
	for connection, err := range e.director.Connections(r.Context(), filter) {
		if err != nil {
			if sent == 0 {
				writeProblem(w, problemOf(err))
				return
			}
			_ = lines.Encode(connectionLine{Problem: problemOf(err)})
			return
		}
		if err := lines.Encode(connectionLine{Connection: connectionModel(connection)}); err != nil {
			return // the client has gone, or takes too long: nobody to tell
		}
		sent++
		if p.Limit != nil && sent == *p.Limit {
			return
		}
		if sent%flushEvery == 0 {
			e.extend(w)
		}
	}
}

// CountConnections answers countConnections.
func (e endpoints) CountConnections(w http.ResponseWriter, r *http.Request, p CountConnectionsParams) {
	e.read(w, func() (any, error) {
		filter, err := e.connectionFilter(filterParams{p.Service, p.Server, p.Client, p.Kind, p.State})
		if err != nil {
			return nil, err
		}
		if p.By != nil && *p.By != byState {
			return nil, invalid(fmt.Sprintf("by %.80q: want state", *p.By), "leave it out for one number")
		}
		var count ConnectionCount
		states := make(map[string]uint64)
		for c, err := range e.director.Connections(r.Context(), filter) {
			if err != nil {
				return nil, err
			}
			count.Count++
			if p.By != nil {
				states[c.State.String()]++
			}
		}
		if p.By != nil {
			count.Groups = stateGroups(states)
		}
		return count, nil
	})
}

// byState is what connections can be counted by.
const byState = "state"

// stateGroups are the states that there are, in the order of their numbers; those
// of protocols that have the same name are one.
func stateGroups(counts map[string]uint64) []ConnectionGroup {
	groups := []ConnectionGroup{}
	for _, state := range conntrack.AllStates() {
		name := state.String()
		if n := counts[name]; n > 0 {
			groups = append(groups, ConnectionGroup{Name: name, Count: n})
			delete(counts, name)
		}
	}
	return groups
}

// KillConnections answers killConnections. A filter that is left empty by mistake
// must not end everything: one is wanted, and none may be empty.
func (e endpoints) KillConnections(w http.ResponseWriter, r *http.Request, p KillConnectionsParams) {
	e.read(w, func() (any, error) {
		for _, f := range []struct {
			name  string
			value *string
		}{{"service", p.Service}, {"server", p.Server}, {"client", p.Client}, {"kind", p.Kind}, {"state", p.State}} {
			if f.value != nil && *f.value == "" {
				return nil, invalid(fmt.Sprintf("remove connections: %s is empty", f.name), "leave it out, if all are meant")
			}
		}
		filter, err := e.connectionFilter(filterParams{p.Service, p.Server, p.Client, p.Kind, p.State})
		if err != nil {
			return nil, err
		}
		if filter == (director.ConnectionFilter{}) {
			return nil, invalid("remove connections: which is not said", "give service, server, client, kind or state")
		}
		killed, err := e.director.Kill(r.Context(), filter)
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
type filterParams struct{ service, server, client, kind, state *string }

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
	return filter, nil
}

// filterKey reads a service's name or URL. A URL need not be a service any more:
// connections and events outlive it.
func (h *Handler) filterKey(text string) (director.ServiceKey, error) {
	if strings.Contains(text, "://") {
		return director.ParseFoundKey(text)
	}
	return h.resolve(text)
}

func connectionModel(c conntrack.Connection) *Connection {
	model := &Connection{
		Protocol: c.Protocol.String(), Client: c.Client.String(), Virtual: c.Virtual.String(),
		Server: c.Server.String(), Method: c.Method, State: c.State.String(), Proven: c.Proven,
		Template: c.Template, UnderTemplate: c.UnderTemplate, Mark: c.Mark, Engine: c.Engine, EngineData: c.EngineData,
		Expires: Duration(c.Expires.Truncate(time.Millisecond)),
	}
	if c.Template {
		model.Prefix, model.Controlled = new(c.Prefix), new(c.Controlled)
	}
	return model
}
