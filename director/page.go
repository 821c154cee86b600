package director

import (
	"context"
	"fmt"
	"iter"

	"github.com/shunt-lb/shunt/conntrack"
)

// Pager is a Table that can be listed in parts.
type Pager interface {
	// ConnectionsAfter iterates over the connections that match and lie behind the
	// place, which an earlier walk came by; zero: over all. Between the parts of a list
	// connections stay where they are: none is missed or met twice but those that come
	// or go. ErrInvalid if the tables are others since.
	ConnectionsAfter(ctx context.Context, filter ConnectionFilter, after Place) iter.Seq2[PlacedConnection, error]
}

// Place is where a data plane has a connection: a number that only it can read, not
// zero.
type Place uint64

// PlacedConnection is a connection with its place; zero where it has none.
type PlacedConnection struct {
	Place Place
	conntrack.Connection
}

// ConnectionsAfter iterates over the connections behind the place: see Pager. Of a
// data plane that is none they have no places, and there is no place to go on from.
func (d *Director) ConnectionsAfter(ctx context.Context, filter ConnectionFilter, after Place) iter.Seq2[PlacedConnection, error] {
	if p, ok := d.dp.(Pager); ok {
		return p.ConnectionsAfter(ctx, filter, after)
	}
	return func(yield func(PlacedConnection, error) bool) {
		if after != 0 {
			yield(PlacedConnection{}, fmt.Errorf("list connections in parts: %w by the data plane %s", ErrUnsupported, d.features.Plane))
			return
		}
		for c, err := range d.Connections(ctx, filter) {
			if !yield(PlacedConnection{Connection: c}, err) {
				return
			}
		}
	}
}
