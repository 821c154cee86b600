package bpftest

import (
	"cmp"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// Entries returns the live keys of both tables, client to server first, then in
// the order of their addresses.
func (f *Fixture) Entries() []bpf.Entry {
	f.t.Helper()
	var all []bpf.Entry
	for _, v6 := range []bool{false, true} {
		for e, err := range f.Plane.Entries(v6) {
			f.must(err)
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b bpf.Entry) int {
		if a.Reply != b.Reply {
			return int(flag(a.Reply)) - int(flag(b.Reply))
		}
		return cmp.Or(a.Source.Compare(b.Source), a.Destination.Compare(b.Destination),
			cmp.Compare(a.Protocol, b.Protocol))
	})
	return all
}

// Events returns by how much each event's counter grew since the last call;
// those that did not are left out.
func (f *Fixture) Events() map[string]uint64 {
	f.t.Helper()
	counts, err := f.Plane.EventCounts()
	f.must(err)
	grown := map[string]uint64{}
	for i, n := range counts {
		if n != f.events[i] {
			grown[bpf.Events[i].Name] = n - f.events[i]
		}
	}
	f.events = counts
	return grown
}

// Load returns a server's counts.
func (f *Fixture) Load(s *Server) bpf.KernelServerLoad {
	f.t.Helper()
	var load bpf.KernelServerLoad
	f.must(f.Plane.Loads.Lookup(s.Index, &load))
	return load
}

// Traffic returns a server's counters.
func (f *Fixture) Traffic(s *Server) bpf.KernelTraffic {
	f.t.Helper()
	traffic, err := f.Plane.Traffic(s.Index)
	f.must(err)
	return traffic
}

// Age lets time pass for all connections: their last packets were that many
// ticks earlier than they were.
func (f *Fixture) Age(ticks uint32) {
	f.t.Helper()
	f.edit(func(recipe *uint64, seen *uint32) {
		if !bpf.HasHopForSeen(*recipe) {
			*seen -= ticks
		}
	})
}

// EditRecipes changes the recipes of all connections: for tables that only a
// race could bring about.
func (f *Fixture) EditRecipes(change func(recipe uint64) uint64) {
	f.t.Helper()
	f.edit(func(recipe *uint64, _ *uint32) { *recipe = change(*recipe) })
}

// AgeBy is Age with a duration, rounded up.
func (f *Fixture) AgeBy(d time.Duration) {
	f.t.Helper()
	f.Age(f.Plane.Clock.Ticks(d))
}

// SetState puts all connections into a state, their servers' counts included.
func (f *Fixture) SetState(state bpf.KernelConnState) {
	f.t.Helper()
	const shift = bpf.KernelRecipeLayoutRECIPE_STATE
	f.edit(func(recipe *uint64, _ *uint32) {
		*recipe = *recipe&^(uint64(bpf.KernelMasksSTATE_MASK)<<shift) | uint64(state)<<shift
	})
	loads := map[uint32]*bpf.KernelServerLoad{}
	for _, e := range f.Entries() {
		if loads[e.Server] == nil {
			loads[e.Server] = &bpf.KernelServerLoad{}
		}
		switch {
		case e.Reply:
		case IsActive(e.State):
			loads[e.Server].Active++
		default:
			loads[e.Server].Inactive++
		}
	}
	for index, load := range loads {
		f.must(f.Plane.Loads.Put(index, load))
	}
}

// IsActive is whether IPVS counts a connection in this state as active (kernel:
// net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_state_active_table).
func IsActive(state uint8) bool {
	switch bpf.KernelConnState(state) {
	case bpf.KernelConnStateSTATE_ESTABLISHED, bpf.KernelConnStateSTATE_SYN_SENT,
		bpf.KernelConnStateSTATE_SYN_RECV, bpf.KernelConnStateSTATE_SYNACK:
		return true
	}
	return false
}

// EditTails changes the word of all live entries that is a next hop, a template's
// counts, or a place.
func (f *Fixture) EditTails(change func(id uint64, hop uint32) uint32) {
	f.t.Helper()
	editGroups(f, f.Plane.Connections4, func(g *bpf.KernelGroup4) {
		for i := range g.Slots {
			if s := &g.Slots[i]; s.Recipe != 0 {
				s.Hop = change(s.Id, s.Hop)
			}
		}
	})
	editGroups(f, f.Plane.Connections6, func(g *bpf.KernelGroup6) {
		for i := range g.Slots {
			if s := &g.Slots[i]; s.Recipe != 0 {
				s.Hop = change(s.Id, s.Hop)
			}
		}
	})
}

// edit changes the recipe and the last-seen tick of all live entries. No packet
// must run meanwhile.
func (f *Fixture) edit(change func(recipe *uint64, seen *uint32)) {
	f.t.Helper()
	editGroups(f, f.Plane.Connections4, func(g *bpf.KernelGroup4) {
		for i := range g.Slots {
			if s := &g.Slots[i]; s.Recipe != 0 {
				change(&s.Recipe, &s.Seen)
			}
		}
	})
	editGroups(f, f.Plane.Connections6, func(g *bpf.KernelGroup6) {
		for i := range g.Slots {
			if s := &g.Slots[i]; s.Recipe != 0 {
				change(&s.Recipe, &s.Seen)
			}
		}
	})
}

// editGroups rewrites all groups. The lock in them stays as it is: the kernel
// leaves it out.
func editGroups[G any](f *Fixture, table *ebpf.Map, change func(*G)) {
	f.t.Helper()
	for i := range table.MaxEntries() {
		var group G
		f.must(table.Lookup(i, &group))
		change(&group)
		f.must(table.Put(i, &group))
	}
}

// Sweep runs over both tables and returns how many connections it removed.
func (f *Fixture) Sweep() (removed uint32) {
	f.t.Helper()
	return f.SweepTemplates(bpf.KernelSweepTemplatesTEMPLATES_COUNTED)
}

// SweepTemplates is Sweep that does this about templates' connections.
func (f *Fixture) SweepTemplates(templates bpf.KernelSweepTemplates) (removed uint32) {
	f.t.Helper()
	for v6, table := range map[bool]*ebpf.Map{false: f.Plane.Connections4, true: f.Plane.Connections6} {
		args := bpf.KernelSweepArgs{Groups: table.MaxEntries(), Templates: uint32(templates)}
		f.must(f.Plane.Sweep(v6, &args))
		removed += args.Removed
		if args.Orphans != 0 {
			f.t.Errorf("%d reply keys without their connection", args.Orphans)
		}
	}
	return removed
}
