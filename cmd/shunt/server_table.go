package main

import (
	"slices"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// serverColumns are the columns of a table of servers: those of what no server
// has are left out.
type serverColumns struct{ tunnels, thresholds, templates bool }

// columnsOf returns the columns that the servers need.
func columnsOf(servers ...api.Server) serverColumns {
	return serverColumns{
		tunnels:    slices.ContainsFunc(servers, func(s api.Server) bool { return tunnelText(s) != "" }),
		thresholds: slices.ContainsFunc(servers, func(s api.Server) bool { return s.Upper > 0 }),
		templates:  slices.ContainsFunc(servers, func(s api.Server) bool { return s.Templates > 0 }),
	}
}

func (c serverColumns) header() []any {
	row := []any{"SERVER", "METHOD"}
	if c.tunnels {
		row = append(row, "TUNNEL")
	}
	row = append(row, "WEIGHT")
	if c.thresholds {
		row = append(row, "UPPER", "LOWER")
	}
	row = append(row, "ACTIVE", "INACTIVE")
	if c.templates {
		row = append(row, "TEMPLATES")
	}
	return append(row, "STATE")
}

// row shows a server; down is whether its health keeps new connections from it. A
// threshold that is not set is a dash.
func (c serverColumns) row(t *table, s serverOf, down bool) []any {
	row := []any{s.Address, s.Method}
	if c.tunnels {
		row = append(row, tunnelText(s.Server))
	}
	row = append(row, s.Weight)
	if c.thresholds {
		for _, n := range []uint32{s.Upper, s.Lower} {
			if n == 0 {
				row = append(row, "")
				continue
			}
			row = append(row, n)
		}
	}
	row = append(row, s.Active, s.Inactive)
	if c.templates {
		row = append(row, s.Templates)
	}
	return append(row, serverState(t, s, down))
}

// serverState says in a word whether the server can be reached, or why not, and
// what else keeps new connections from it.
func serverState(t *table, s serverOf, down bool) string {
	var words []string
	if s.Leased {
		words = append(words, "leased")
	}
	switch {
	case !s.Draining:
	case s.Active+s.Inactive == 0:
		words = append(words, t.in(green, "drained"))
	case s.Drain != nil && director.DrainPhase(s.Drain.Phase) == director.PhaseOverdue:
		words = append(words, t.in(red, "overdue"))
	case s.Drain != nil && s.Drain.Deadline != nil:
		words = append(words, t.in(yellow, "draining until "+s.Drain.Deadline.Local().Format(time.RFC3339)))
	default:
		words = append(words, t.in(yellow, "draining"))
	}
	if down && s.Override == nil { // an order says as much
		words = append(words, t.in(red, "down"))
	}
	if s.Override != nil {
		words = append(words, t.in(yellow, overrideText(*s.Override)))
	}
	if s.Overloaded {
		words = append(words, t.in(yellow, "overloaded"))
	}
	switch {
	case s.Reachable:
		words = append(words, t.in(green, "reachable"))
	case s.Reason == "":
		words = append(words, t.in(red, "unreachable"))
	default: // last: it may be long, and have commas
		words = append(words, t.in(red, "unreachable: "+s.Reason))
	}
	return strings.Join(words, ", ")
}
