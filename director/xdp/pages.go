package xdp

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// The layout of a place, from its lowest bit: the slot in its group from 1, the group,
// the family, and which tables these are.
const (
	placeGroup  = 8
	placeFamily = placeGroup + 32
	placeTables = placeFamily + 1
)

// listPlace returns where the entry lies in the tables.
func listPlace(tables uint64, s *bpf.Slot) director.Place {
	place := tables<<placeTables | uint64(s.Group)<<placeGroup | uint64(s.Index+1)
	if s.V6 {
		place |= 1 << placeFamily
	}
	return director.Place(place)
}

// ConnectionsAfter iterates over the entries in the order in which they lie, IPv4's
// first: entries do not move in a table.
func (d *Dataplane) ConnectionsAfter(ctx context.Context, filter director.ConnectionFilter, after director.Place) iter.Seq2[director.PlacedConnection, error] {
	return func(yield func(director.PlacedConnection, error) bool) {
		err := d.visitAfter(ctx, filter, after, func(c director.PlacedConnection) bool { return yield(c, nil) })
		if err != nil {
			yield(director.PlacedConnection{}, err)
		}
	}
}

func (d *Dataplane) visitAfter(ctx context.Context, filter director.ConnectionFilter, after director.Place, visit func(director.PlacedConnection) bool) error {
	view, err := d.lockedView(ctx)
	if err != nil {
		return err
	}
	var tables uint64
	err = d.use(func() (err error) {
		tables, err = d.tablesNumber()
		return err
	})
	if err != nil {
		return err
	}
	if after != 0 && uint64(after)>>placeTables != tables {
		return fmt.Errorf("list connections in parts: %w: the tables are others since the part before: begin anew", director.ErrInvalid)
	}
	return d.walk(ctx, view.matcher(filter), func(s *bpf.Slot, traffic *conntrack.Traffic) bool {
		place := listPlace(tables, s)
		if place <= after {
			return true
		}
		e := s.Entry()
		_, c, _ := view.connection(&e)
		if traffic != nil {
			c.Traffic = new(*traffic)
		}
		return visit(director.PlacedConnection{Place: place, Connection: c})
	})
}

// tablesNumber tells the tables from those they replaced: by both maps' ids, which
// the kernel counts up.
func (d *Dataplane) tablesNumber() (uint64, error) {
	number := uint64(0)
	for _, table := range []*ebpf.Map{d.plane.Connections4, d.plane.Connections6} {
		info, err := table.Info()
		if err != nil {
			return 0, fmt.Errorf("list connections in parts: %w", err)
		}
		id, ok := info.ID()
		if !ok {
			return 0, errors.New("list connections in parts: the kernel does not tell the tables' ids")
		}
		number = number*31 + uint64(id)
	}
	return number & (1<<(64-placeTables) - 1), nil
}
