package xdp

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// Count counts the entries that the filter selects in one walk over the tables,
// without decoding them.
func (d *Dataplane) Count(ctx context.Context, filter director.ConnectionFilter, by director.CountBy) (director.ConnectionCount, error) {
	count, err := untilWhole(func() (director.ConnectionCount, error) { return d.count(ctx, filter, by) })
	if err != nil {
		return director.ConnectionCount{}, fmt.Errorf("count connections: %w", err)
	}
	return count, nil
}

func (d *Dataplane) count(ctx context.Context, filter director.ConnectionFilter, by director.CountBy) (count director.ConnectionCount, err error) {
	view, err := d.lockedView(ctx)
	if err != nil {
		return count, err
	}
	groups, err := newGrouping(view, by)
	if err != nil {
		return count, err
	}
	err = d.walk(ctx, view.matcher(filter), func(s *bpf.Slot, traffic *conntrack.Traffic) bool {
		count.Count++
		if groups != nil {
			groups.add(s, traffic)
		}
		return true
	})
	if groups != nil {
		count.Groups = groups.sorted()
	}
	return count, err
}

// grouping counts in groups. Where what they have in common is a small number, it is
// the group's in numbered; clients have theirs by address.
type grouping struct {
	view     *view
	by       director.CountBy
	bounds   []time.Duration
	numbered []tally
	clients4 map[uint32]int // index in numbered
	clients6 map[[4]uint32]int
	clients  []netip.Addr // as numbered
}

// tally is what a group has.
type tally struct {
	count   uint64
	traffic *director.Counters
}

// newGrouping begins to count; nil for no groups.
func newGrouping(v *view, by director.CountBy) (*grouping, error) {
	g := &grouping{view: v, by: by}
	switch by {
	case director.CountAll:
		return nil, nil
	case director.CountByClient:
		g.clients4, g.clients6 = map[uint32]int{}, map[[4]uint32]int{}
	case director.CountByServer:
		g.numbered = make([]tally, len(v.servers))
	case director.CountByState:
		g.numbered = make([]tally, bpf.KernelConnStateSTATES)
	case director.CountByAge, director.CountByIdle:
		g.bounds = director.AgeBounds()
		g.numbered = make([]tally, len(g.bounds)+1)
	default:
		return nil, fmt.Errorf("by %q: %w: want client, server, state, age or idle", by, director.ErrInvalid)
	}
	return g, nil
}

func (g *grouping) add(s *bpf.Slot, traffic *conntrack.Traffic) {
	t := &g.numbered[g.index(s)]
	t.count++
	if traffic == nil {
		return
	}
	if t.traffic == nil {
		t.traffic = new(director.Counters)
	}
	t.traffic.InPackets += traffic.InPackets
	t.traffic.InBytes += traffic.InBytes
	t.traffic.OutPackets += traffic.OutPackets
	t.traffic.OutBytes += traffic.OutBytes
}

// index returns which group the entry is of.
func (g *grouping) index(s *bpf.Slot) int {
	switch g.by {
	case director.CountByClient:
		return g.client(s)
	case director.CountByServer:
		return int(s.Server())
	case director.CountByState:
		return int(stateOf(s.State()))
	}
	age, idle := g.view.times(s.Born(), s.Seen)
	if g.by == director.CountByIdle {
		age = idle
	}
	for i, bound := range g.bounds {
		if age < bound {
			return i
		}
	}
	return len(g.bounds)
}

// client returns the index of the entry's client, a new one if it has none.
func (g *grouping) client(s *bpf.Slot) int {
	next := len(g.numbered)
	if s.V6 {
		if i, ok := g.clients6[s.Source]; ok {
			return i
		}
		g.clients6[s.Source] = next
	} else {
		if i, ok := g.clients4[s.Source[0]]; ok {
			return i
		}
		g.clients4[s.Source[0]] = next
	}
	g.numbered = append(g.numbered, tally{})
	g.clients = append(g.clients, bpf.ParseAddress(s.Source, s.V6))
	return next
}

// sorted returns the groups as director.ConnectionCount has them. Ages are all there;
// of others there is no empty group.
func (g *grouping) sorted() []director.ConnectionGroup {
	switch {
	case g.bounds != nil:
		names := director.AgeGroups()
		return g.inOrder(func(i int) int { return i }, func(i int) string { return names[i] })
	case g.by == director.CountByClient:
		return g.sortedClients()
	}
	byName := map[string]int{} // a server may be of two services
	var groups []director.ConnectionGroup
	for i, t := range g.numbered {
		if t.count == 0 {
			continue
		}
		name := g.name(i)
		at, known := byName[name]
		if !known {
			byName[name] = len(groups)
			groups = append(groups, director.ConnectionGroup{Name: name, Count: t.count, Traffic: t.traffic})
			continue
		}
		groups[at].Count += t.count
		groups[at].Traffic = sum(groups[at].Traffic, t.traffic)
	}
	director.SortGroups(groups)
	return groups
}

// sum returns the sum of what is counted, which may be nothing.
func sum(a, b *director.Counters) *director.Counters {
	if a != nil && b != nil {
		a.Add(*b)
	}
	return cmp.Or(a, b)
}

// inOrder returns all groups, the n-th of them the one with the number that order says.
func (g *grouping) inOrder(order func(n int) int, name func(i int) string) []director.ConnectionGroup {
	groups := make([]director.ConnectionGroup, len(g.numbered))
	for n := range groups {
		i := order(n)
		groups[n] = director.ConnectionGroup{Name: name(i), Count: g.numbered[i].count, Traffic: g.numbered[i].traffic}
	}
	return groups
}

// sortedClients sorts before there are names: there may be millions.
func (g *grouping) sortedClients() []director.ConnectionGroup {
	order := make([]int, len(g.numbered))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if by := cmp.Compare(g.numbered[b].count, g.numbered[a].count); by != 0 {
			return by
		}
		return g.clients[a].Compare(g.clients[b])
	})
	return g.inOrder(func(n int) int { return order[n] }, func(i int) string { return g.clients[i].String() })
}

func (g *grouping) name(i int) string {
	if g.by == director.CountByServer {
		return g.view.servers[i].address.String()
	}
	return conntrack.State(i).String()
}
