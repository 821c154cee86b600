package director

import (
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
)

// Table is a Dataplane whose connection table is its own: the XDP program's. What it
// offers needs no more of the director than its observations do.
type Table interface {
	// Resize makes room for so many connections, of IPv4 and IPv6, while traffic
	// flows: connections come over to the new tables one by one. 0 leaves a family as
	// it is. ErrInvalid if there are more connections than that.
	Resize(ctx context.Context, v4, v6 uint64) (ResizeReport, error)

	// Count counts what the filter selects, in groups if by is not CountAll.
	Count(ctx context.Context, filter ConnectionFilter, by CountBy) (ConnectionCount, error)

	// ConnectionsAfter iterates over the connections that match and lie behind the
	// place, which an earlier walk came by; zero: over all. Between the parts of a list
	// connections stay where they are: none is missed or met twice but those that come
	// or go. ErrInvalid if the tables are others since.
	ConnectionsAfter(ctx context.Context, filter ConnectionFilter, after Place) iter.Seq2[PlacedConnection, error]

	// Reset removes the connections that match, as Kill, and resets both ends of
	// TCP's by the next packets that come from them; it returns how many there were.
	Reset(ctx context.Context, filter ConnectionFilter) (uint64, error)

	// Watch iterates over what becomes of connections from now on, until the context
	// ends. Watchers that are too slow are not told of all: Lost says so.
	Watch(ctx context.Context, filter ConnectionFilter) iter.Seq2[ConnectionChange, error]

	// Check compares the tables with themselves, with the servers' counts and with
	// the services, while traffic flows: what a second look does not find again is
	// no fault. Faults are bugs.
	Check(ctx context.Context) ([]TableFault, error)

	// Dump writes the connections that match as records (package conntrack/record)
	// to w and returns how many; LoadRecords reads them and makes them its own.
	Dump(ctx context.Context, filter ConnectionFilter, w io.Writer) (uint64, error)
	LoadRecords(ctx context.Context, r io.Reader) (LoadReport, error)
}

// ResizeReport says what became of the connections, and templates, of tables that were
// resized.
type ResizeReport struct {
	Carried uint64 // connections that came over
	Expired uint64 // their time was over
	// Lost found no room, though there may be some elsewhere in the table, or another
	// connection had their place.
	Lost uint64
	// Evicted are unproven ones that gave way meanwhile: to those that came over, or to
	// new ones.
	Evicted uint64
}

// CountBy says what the connections of one group have in common.
type CountBy string

// What connections can be counted by.
const (
	CountAll      CountBy = "" // no groups
	CountByClient CountBy = "client"
	CountByServer CountBy = "server"
	CountByState  CountBy = "state"
	CountByAge    CountBy = "age" // the histogram: AgeBounds
	CountByIdle   CountBy = "idle"
)

// AgeBounds are the upper bounds of the groups of CountByAge and CountByIdle, whole
// numbers of one unit; the last group has no bound.
func AgeBounds() []time.Duration {
	return []time.Duration{
		10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour,
	}
}

// AgeGroups are the names of these groups: "<10s" and so on, and ">=24h".
func AgeGroups() []string {
	var names []string
	last := ""
	for _, bound := range AgeBounds() {
		switch {
		case bound%time.Hour == 0:
			last = fmt.Sprintf("%dh", bound/time.Hour)
		case bound%time.Minute == 0:
			last = fmt.Sprintf("%dm", bound/time.Minute)
		default:
			last = fmt.Sprintf("%ds", bound/time.Second)
		}
		names = append(names, "<"+last)
	}
	return append(names, ">="+last)
}

// ConnectionCount is how many connections there are.
type ConnectionCount struct {
	Count  uint64
	Groups []ConnectionGroup // the largest first; of ages, in their order
}

// ConnectionGroup is a part of them.
type ConnectionGroup struct {
	Name  string // the client's or the server's address, the state, or one of AgeGroups
	Count uint64
	// Traffic is of the group's connections that exist; nil where connections are not
	// counted one by one.
	Traffic *Counters
}

// ConnectionChange is one step of a connection's life.
type ConnectionChange struct {
	What       ChangeKind
	Service    ServiceKey
	Connection conntrack.Connection
	Lost       uint64 // how many changes this watcher was not told of before this one
}

// ChangeKind is what happened.
type ChangeKind string

// What happens to connections.
const (
	ConnectionOpened      ChangeKind = "opened"
	ConnectionEstablished ChangeKind = "established" // proven
	ConnectionClosed      ChangeKind = "closed"      // its entry is gone
)

// TableFault is something that cannot be.
type TableFault struct {
	Kind  string // such as reply-missing, server-unknown, count-active
	What  string // the connection or the server
	Found string // in words
}
