package main

import (
	"slices"

	"github.com/shunt-lb/shunt/director/api"
)

// topKind is a kind of view.
type topKind int

// The kinds of views.
const (
	viewServices topKind = iota
	viewServers
	viewConnections
	viewDrops
	viewHelp
)

// rateColumns are those of services and servers alike, as ipvsadm calls them;
// but it counts bytes.
var rateColumns = []topColumn{
	{head: "ACT", letter: 'a', number: true, rank: 3, help: "connections in an active state"},
	{head: "INACT", letter: 'i', number: true, rank: 5, help: "other connections: closing, or not proven yet"},
	{head: "CPS", letter: 'c', number: true, help: "new connections a second"},
	{head: "InPPS", letter: 'p', number: true, rank: 1, help: "packets a second from clients"},
	{head: "Inb/s", letter: 'b', number: true, rank: 2, help: "bits a second from clients"},
	{head: "OutPPS", letter: 'P', number: true, rank: 6, help: "packets a second to clients (seen with method nat only)"},
	{head: "Outb/s", letter: 'B', number: true, rank: 7, help: "bits a second to clients (seen with method nat only)"},
}

// topColumns are the columns of each kind of view.
var topColumns = map[topKind][]topColumn{
	viewServices: slices.Concat([]topColumn{
		{head: "SERVICE", letter: 'n', shrink: true, help: "name, or URL if it has none"},
		{head: "LISTEN", letter: 'l', extra: true, rank: 9, help: "URL, where there is room"},
		{head: "SCHED", letter: 'e', extra: true, rank: 10, help: "scheduler, where there is room"},
		{head: "SRV", letter: 'u', number: true, rank: 4, help: "servers that take new connections, of all"},
	}, rateColumns),
	viewServers: slices.Concat([]topColumn{
		{head: "SERVER", letter: 'n', shrink: true, help: "address and port"},
		{head: "WGT", letter: 'w', number: true, rank: 9, help: "weight"},
		{head: "METHOD", letter: 'm', rank: 8, help: "forwarding method"},
		{head: "STATE", letter: 't', rank: 4, help: "up; drain: drained, or weight 0; full: overloaded; down: unreachable"},
	}, rateColumns),
	viewConnections: {
		{head: "CLIENT", letter: 'n', shrink: true, help: "the client"},
		{head: "SERVER", letter: 's', shrink: true, rank: 3, help: "the server it is paired with"},
		{head: "STATE", letter: 't', help: "state; * is not proven yet"},
		{head: "EXPIRES", letter: 'x', number: true, rank: 1, help: "minutes and seconds left without a packet"},
		{head: "METHOD", letter: 'm', rank: 2, help: "forwarding method"},
		{head: "VIRTUAL", letter: 'v', extra: true, rank: 9, help: "the service's address, where there is room"},
	},
	viewDrops: {
		{head: "NAME", letter: 'n', shrink: true, help: "what happened to packets"},
		{head: "KIND", letter: 'k', help: "pass, drop, answer, note, or fault: a bug"},
		{head: "COUNT", letter: 'c', number: true, help: "packets since the data plane was loaded"},
		{head: "PPS", letter: 'p', number: true, help: "packets a second"},
		{head: "MEANING", letter: 'e', extra: true, rank: 1, help: "what it means, where there is room"},
	},
	viewHelp: {{head: "KEY"}, {head: "MEANING", shrink: true, prose: true}},
}

// topView is a view as the user left it.
type topView struct {
	kind            topKind
	service, server string // the URL and address it is about
	sort            int    // the column
	reverse         bool
	filter          string
	help            topKind // of which kind of view, in viewHelp

	// selected is the row's key. It is empty until the user selects one: the
	// first row is, whichever that becomes.
	selected string
	index    int // where it was, for when it goes
	offset   int // the first row on the screen
}

// newTopView returns a view sorted as is most useful: what is busiest first, but
// in lists that are looked up by address.
func newTopView(kind topKind, service, server string) *topView {
	v := &topView{kind: kind, service: service, server: server}
	busiest := map[topKind]rune{viewServices: 'p', viewDrops: 'p'}[kind]
	v.sort = max(0, v.column(busiest))
	return v
}

// columns returns the view's columns.
func (v *topView) columns() []topColumn { return topColumns[v.kind] }

// column returns the index of the column with the letter, or -1.
func (v *topView) column(letter rune) int {
	return slices.IndexFunc(v.columns(), func(c topColumn) bool { return c.letter == letter && letter != 0 })
}

// query is what the view asks for besides the rest: connections; else nil. A
// filter that is a client's address or prefix is the daemon's to apply, since
// only so many are listed.
func (v *topView) query() *api.ConnectionQuery {
	if v.kind != viewConnections {
		return nil
	}
	q := &api.ConnectionQuery{Service: v.service, Server: v.server, Limit: topConnections}
	if prefix, ok := clientFilter(v.filter); ok {
		q.Client = prefix.String()
	}
	return q
}

// topConnections is how many connections are listed at most.
const topConnections = 500
