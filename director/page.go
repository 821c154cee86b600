package director

import (
	"context"
	"iter"

	"github.com/shunt-lb/shunt/conntrack"
)

// Place is where a data plane has a connection: a number that only it can read, not
// zero.
type Place uint64

// PlacedConnection is a connection with its place; zero where it has none.
type PlacedConnection struct {
	Place Place
	conntrack.Connection
}

// ConnectionsAfter iterates over the connections behind the place: see Table. Of a
// data plane that is none they have no places, and there is no place to go on from.
func (d *Director) ConnectionsAfter(ctx context.Context, filter ConnectionFilter, after Place) iter.Seq2[PlacedConnection, error] {
	t, err := d.table("list connections in parts")
	if err == nil {
		return t.ConnectionsAfter(ctx, filter, after)
	}
	return func(yield func(PlacedConnection, error) bool) {
		if after != 0 {
			yield(PlacedConnection{}, err)
			return
		}
		for c, err := range d.Connections(ctx, filter) {
			if !yield(PlacedConnection{Connection: c}, err) {
				return
			}
		}
	}
}
