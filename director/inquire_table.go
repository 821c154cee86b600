package director

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/event"
)

// table returns the data plane as one whose table is its own; ErrUnsupported, with
// what was wanted of it, where it is none.
func (d *Director) table(what string) (Table, error) {
	if t, ok := d.dp.(Table); ok {
		return t, nil
	}
	return nil, fmt.Errorf("%s: %w by the data plane %s: the table is the kernel's own", what, ErrUnsupported, d.features.Plane)
}

// HasTable reports whether the data plane's connection table is its own.
func (d *Director) HasTable() bool {
	_, ok := d.dp.(Table)
	return ok
}

// checkFilter refuses what the data plane does not know of its connections.
func (d *Director) checkFilter(filter ConnectionFilter) error {
	if filter.Age == (Span{}) && filter.Idle == (Span{}) {
		return nil
	}
	_, err := d.table("select connections by age or idle time")
	return err
}

// Connections iterates over the data plane's connection table.
func (d *Director) Connections(ctx context.Context, filter ConnectionFilter) iter.Seq2[conntrack.Connection, error] {
	if err := d.checkFilter(filter); err != nil {
		return func(yield func(conntrack.Connection, error) bool) { yield(conntrack.Connection{}, err) }
	}
	return d.dp.Connections(ctx, filter)
}

// Kill removes the data plane's connections and templates that match, and
// returns how many there were. What is desired stays as it is.
func (d *Director) Kill(ctx context.Context, filter ConnectionFilter) (uint64, error) {
	if err := d.checkFilter(filter); err != nil {
		return 0, err
	}
	return d.dp.Kill(ctx, filter)
}

// Reset is Kill, and resets both ends of TCP's connections: see Table.
func (d *Director) Reset(ctx context.Context, filter ConnectionFilter) (uint64, error) {
	t, err := d.table("reset connections")
	if err != nil {
		return 0, err
	}
	return t.Reset(ctx, filter)
}

// Resize makes room for so many connections: see Table. What is desired stays as it
// is.
func (d *Director) Resize(ctx context.Context, v4, v6 uint64) (ResizeReport, error) {
	t, err := d.table("resize the connection tables")
	if err != nil {
		return ResizeReport{}, err
	}
	started := time.Now()
	report, err := t.Resize(ctx, v4, v6)
	if err != nil {
		return report, err
	}
	d.opts.Events.Publish(event.Event{Name: event.TableResized, Message: fmt.Sprintf(
		"the connection tables were resized%s%s in %s", resizedTo("IPv4", v4), resizedTo("IPv6", v6), time.Since(started).Round(time.Millisecond))})
	if report.Lost > 0 {
		d.opts.Events.Publish(event.Event{Name: event.ConnectionsLost, Message: fmt.Sprintf(
			"%d connections, templates included, found no room in the resized tables and are lost; %d came over", report.Lost, report.Carried)})
	}
	return report, nil
}

// resizedTo says what a family's table has room for now; nothing if it stayed as it is.
func resizedTo(family string, connections uint64) string {
	if connections == 0 {
		return ""
	}
	return fmt.Sprintf(", %s for %d connections", family, connections)
}

// Count counts what the filter selects, in groups if by is not CountAll. A data plane
// that is no Table is walked over; by age and idle time only a Table can count.
func (d *Director) Count(ctx context.Context, filter ConnectionFilter, by CountBy) (ConnectionCount, error) {
	if t, ok := d.dp.(Table); ok {
		return t.Count(ctx, filter, by)
	}
	var count ConnectionCount
	group, err := d.groupOf(by)
	if err != nil {
		return count, err
	}
	counts := map[string]uint64{}
	for c, err := range d.Connections(ctx, filter) {
		if err != nil {
			return ConnectionCount{}, err
		}
		count.Count++
		if group != nil {
			counts[group(c)]++
		}
	}
	for name, n := range counts {
		count.Groups = append(count.Groups, ConnectionGroup{Name: name, Count: n})
	}
	SortGroups(count.Groups)
	return count, nil
}

// groupOf returns what names the group of a connection; nil for no groups.
func (d *Director) groupOf(by CountBy) (func(conntrack.Connection) string, error) {
	switch by {
	case CountAll:
		return nil, nil
	case CountByClient:
		return func(c conntrack.Connection) string { return c.Client.Addr().String() }, nil
	case CountByServer:
		return func(c conntrack.Connection) string { return c.Server.String() }, nil
	case CountByState:
		return func(c conntrack.Connection) string { return c.State.String() }, nil
	default:
		_, err := d.table("count connections by " + string(by))
		return nil, err
	}
}

// SortGroups puts the largest group first, groups of one size by their names.
func SortGroups(groups []ConnectionGroup) {
	slices.SortFunc(groups, func(a, b ConnectionGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
}

// Watch iterates over what becomes of connections from now on: see Table.
func (d *Director) Watch(ctx context.Context, filter ConnectionFilter) (iter.Seq2[ConnectionChange, error], error) {
	t, err := d.table("watch connections")
	if err != nil {
		return nil, err
	}
	return t.Watch(ctx, filter), nil
}

// Check compares the connection tables with themselves and with the services: see
// Table.
func (d *Director) Check(ctx context.Context) ([]TableFault, error) {
	t, err := d.table("check the connection tables")
	if err != nil {
		return nil, err
	}
	return t.Check(ctx)
}

// Dump writes the connections that match as records: see Table.
func (d *Director) Dump(ctx context.Context, filter ConnectionFilter, w io.Writer) (uint64, error) {
	t, err := d.table("dump connections")
	if err != nil {
		return 0, err
	}
	return t.Dump(ctx, filter, w)
}

// LoadRecords makes the connections of the records the data plane's own: see Table.
func (d *Director) LoadRecords(ctx context.Context, r io.Reader) (LoadReport, error) {
	t, err := d.table("load connections")
	if err != nil {
		return LoadReport{}, err
	}
	return t.LoadRecords(ctx, r)
}
