package directortest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/conntrack/record"
	"github.com/shunt-lb/shunt/director"
)

var _ director.Table = (*Fake)(nil)

// fakeTable is what a Fake has as a director.Table; its connections are those of
// SetConnections.
type fakeTable struct {
	faults   []director.TableFault
	resets   []director.ConnectionFilter
	watchers map[*fakeWatcher]bool
	resized  director.ResizeReport
	fail     error
}

// fakeWatcher is one that Watch serves.
type fakeWatcher struct {
	changes chan director.ConnectionChange // a full one loses what comes
	lost    uint64
}

// NoTable returns the data plane as one that is no director.Table.
func NoTable(dp director.Dataplane) director.Dataplane { return struct{ director.Dataplane }{dp} }

// FailTable makes what a director.Table has return the error, until it is called with
// nil: Dump at its end, the others at once.
func (f *Fake) FailTable(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.table.fail = err
}

// SetFaults sets what Check returns.
func (f *Fake) SetFaults(faults ...director.TableFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.table.faults = faults
}

// Resets returns the filters that Reset was called with, and forgets them.
func (f *Fake) Resets() []director.ConnectionFilter {
	f.mu.Lock()
	defer f.mu.Unlock()
	filters := f.table.resets
	f.table.resets = nil
	return filters
}

// Announce tells the watchers of a change, and returns how many there are.
func (f *Fake) Announce(change director.ConnectionChange) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.table.watchers {
		told := change
		told.Lost += w.lost
		select {
		case w.changes <- told:
			w.lost = 0
		default:
			w.lost++
		}
	}
	return len(f.table.watchers)
}

// SetResized sets what Resize returns.
func (f *Fake) SetResized(report director.ResizeReport) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.table.resized = report
}

// Resize sets the limits of the tables of SetStats; ErrInvalid if the fake has more
// connections.
func (f *Fake) Resize(_ context.Context, v4, v6 uint64) (director.ResizeReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.table.fail != nil {
		return director.ResizeReport{}, f.table.fail
	}
	f.stats.Table = slices.Clone(f.stats.Table)
	for i := range f.stats.Table {
		t := &f.stats.Table[i]
		limit := map[string]uint64{"ipv4": v4, "ipv6": v6}[t.Family]
		if limit == 0 {
			continue
		}
		if there := uint64(len(f.conns)); limit < there {
			return director.ResizeReport{}, fmt.Errorf("resize the %s table to %d connections: %w: there are %d", t.Family, limit, director.ErrInvalid, there)
		}
		t.Limit = limit
	}
	return f.table.resized, nil
}

// Count counts the matching ones of SetConnections.
func (f *Fake) Count(ctx context.Context, filter director.ConnectionFilter, by director.CountBy) (director.ConnectionCount, error) {
	f.mu.Lock()
	err := f.table.fail
	f.mu.Unlock()
	if err != nil {
		return director.ConnectionCount{}, err
	}
	var count director.ConnectionCount
	groups, order := map[string]*director.ConnectionGroup{}, []string{}
	group := func(name string) *director.ConnectionGroup {
		if groups[name] == nil {
			groups[name] = &director.ConnectionGroup{Name: name}
			order = append(order, name)
		}
		return groups[name]
	}
	ages := by == director.CountByAge || by == director.CountByIdle
	if ages {
		for _, name := range director.AgeGroups() {
			group(name)
		}
	}
	for c, err := range f.Connections(ctx, filter) {
		if err != nil {
			return director.ConnectionCount{}, err
		}
		count.Count++
		if by == director.CountAll {
			continue
		}
		g := group(groupName(by, c))
		g.Count++
		if t := c.Traffic; t != nil {
			if g.Traffic == nil {
				g.Traffic = &director.Counters{}
			}
			g.Traffic.Add(director.Counters{InPackets: t.InPackets, InBytes: t.InBytes, OutPackets: t.OutPackets, OutBytes: t.OutBytes})
		}
	}
	for _, name := range order {
		count.Groups = append(count.Groups, *groups[name])
	}
	if !ages {
		director.SortGroups(count.Groups)
	}
	return count, nil
}

func groupName(by director.CountBy, c conntrack.Connection) string {
	switch by {
	case director.CountByClient:
		return c.Client.Addr().String()
	case director.CountByServer:
		return c.Server.String()
	case director.CountByState:
		return c.State.String()
	case director.CountByIdle:
		return ageGroup(c.Idle)
	default:
		return ageGroup(c.Age)
	}
}

// ageGroup is the name of the group that the age is in.
func ageGroup(age time.Duration) string {
	n := 0
	for _, bound := range director.AgeBounds() {
		if age >= bound {
			n++
		}
	}
	return director.AgeGroups()[n]
}

// ConnectionsAfter walks over the matching ones of SetConnections, whose places are
// their numbers from 1.
func (f *Fake) ConnectionsAfter(ctx context.Context, filter director.ConnectionFilter, after director.Place) iter.Seq2[director.PlacedConnection, error] {
	f.mu.Lock()
	conns := slices.Clone(f.conns)
	f.mu.Unlock()
	return func(yield func(director.PlacedConnection, error) bool) {
		if after > director.Place(len(conns)) {
			yield(director.PlacedConnection{}, fmt.Errorf("list connections in parts: %w", director.ErrInvalid))
			return
		}
		for i := int(after); i < len(conns); i++ {
			if err := ctx.Err(); err != nil {
				yield(director.PlacedConnection{}, err)
				return
			}
			if matches(filter, conns[i]) && !yield(director.PlacedConnection{Place: director.Place(i + 1), Connection: conns[i]}, nil) {
				return
			}
		}
	}
}

// Reset is Kill; Resets tells the filter.
func (f *Fake) Reset(ctx context.Context, filter director.ConnectionFilter) (uint64, error) {
	f.mu.Lock()
	f.table.resets = append(f.table.resets, filter)
	f.mu.Unlock()
	return f.Kill(ctx, filter)
}

// watched is how many changes a watcher may be behind before it loses some.
const watched = 64

// Watch yields what Announce is given, of connections that match.
func (f *Fake) Watch(ctx context.Context, filter director.ConnectionFilter) iter.Seq2[director.ConnectionChange, error] {
	return func(yield func(director.ConnectionChange, error) bool) {
		w := &fakeWatcher{changes: make(chan director.ConnectionChange, watched)}
		f.mu.Lock()
		if err := f.table.fail; err != nil {
			f.mu.Unlock()
			yield(director.ConnectionChange{}, err)
			return
		}
		if f.table.watchers == nil {
			f.table.watchers = map[*fakeWatcher]bool{}
		}
		f.table.watchers[w] = true
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.table.watchers, w)
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case c := <-w.changes:
				if filter.Matches(c.Service, c.Connection) && !yield(c, nil) {
					return
				}
			}
		}
	}
}

// Check returns what SetFaults set.
func (f *Fake) Check(context.Context) ([]director.TableFault, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table.faults, f.table.fail
}

// Dump writes the matching ones of SetConnections.
func (f *Fake) Dump(ctx context.Context, filter director.ConnectionFilter, w io.Writer) (uint64, error) {
	out, err := record.NewWriter(w, record.Header{Director: "fake"})
	if err != nil {
		return 0, err
	}
	n := uint64(0)
	for c, err := range f.Connections(ctx, filter) {
		if err == nil {
			key := record.Service{Protocol: c.Protocol, Address: c.Virtual, Mark: c.Mark}
			err = out.Write(&record.Record{Service: key, Connection: c})
		}
		if err != nil {
			return n, err
		}
		n++
	}
	f.mu.Lock()
	err = f.table.fail
	f.mu.Unlock()
	if err != nil {
		return n, err
	}
	return n, out.Close()
}

// LoadRecords adds the connections of the records to those of SetConnections; of a
// server that the fake has not, or expired, they are skipped.
func (f *Fake) LoadRecords(_ context.Context, r io.Reader) (director.LoadReport, error) {
	report := director.LoadReport{Skipped: map[string]uint64{}}
	in, err := record.NewReader(r)
	if err != nil {
		return report, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for one := (record.Record{}); ; {
		switch err := in.Next(&one); {
		case errors.Is(err, io.EOF):
			return report, f.table.fail
		case err != nil:
			return report, err
		}
		c := one.Connection
		if t := c.Traffic; t != nil {
			c.Traffic = new(*t)
		}
		switch {
		case c.Expires <= 0:
			report.Skipped["expired"]++
		case !f.hasServer(c):
			report.Skipped["no-such-server"]++
		case slices.ContainsFunc(f.conns, func(o conntrack.Connection) bool { return o.Client == c.Client && o.Virtual == c.Virtual }):
			report.Known++
		default:
			f.conns = append(f.conns, c)
			report.Loaded++
		}
	}
}

// hasServer reports whether a service that the connection could be of has its server.
func (f *Fake) hasServer(c conntrack.Connection) bool {
	for _, s := range f.state.Services {
		if s.Key.Protocol == c.Protocol && s.Key.Contains(c.Virtual) && s.Server(c.Server) >= 0 {
			return true
		}
	}
	return false
}
