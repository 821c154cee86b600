package xdp

import (
	"fmt"
	"slices"

	"github.com/shunt-lb/shunt/bpf"
)

// patience is how many sweeps in a row must find a busy server's count wrong in
// the same direction before it is corrected.
const patience = 8

// doubt is what is known about a server whose counts are not what the table held.
// The table is read while it changes: a connection that comes or goes between
// the sweep's reading and the count's makes a difference that is none.
type doubt struct {
	load        bpf.KernelServerLoad
	connections uint64     // made since the server was added
	counts      [3]suspect // active, inactive, templates
}

// suspect is a count that differed in the last sweeps.
type suspect struct {
	diff   int64 // in the last sweep
	least  int64 // the smallest of those in a row; all have its sign
	sweeps int   // how many
}

// next adds a sweep's difference. steady: nothing moved since the sweep before.
// It returns what to correct by, 0 for nothing.
func (s suspect) next(diff int64, steady bool) (suspect, int64) {
	now := suspect{diff: diff, least: diff, sweeps: 1}
	switch {
	case diff == 0:
		return suspect{}, 0
	case s.sweeps == 0 || (s.diff < 0) != (diff < 0):
		return now, 0
	case steady && diff == s.diff:
		return suspect{}, diff
	}
	now.sweeps = s.sweeps + 1
	if max(s.least, -s.least) < max(diff, -diff) {
		now.least = s.least
	}
	if now.sweeps >= patience {
		return suspect{}, now.least
	}
	return now, 0
}

// next adds a sweep that found the counts so far outside of their bounds, within which
// active connections went up and down by swing. What began or closed behind the sweep's
// back is in no bounds: the count may be where it was, as many having gone that the
// sweep met. On a busy server that makes a difference in every sweep, and the same way.
// It is no larger than what began since the last one, and swing: what else closed.
func (d doubt) next(load bpf.KernelServerLoad, connections uint64, diffs [3]int64, swing int64) (now doubt, by [3]int64) {
	now = doubt{load: load, connections: connections}
	steady := d.load == load && d.connections == connections
	unseen := swing
	if d != (doubt{}) { // else this is the first, which corrects nothing
		unseen += max(0, int64(connections-d.connections))
	}
	for c, diff := range diffs {
		now.counts[c], by[c] = d.counts[c].next(outside(diff, -unseen, unseen), steady)
	}
	return now, by
}

// bounds are between what servers' counts were while a sweep counted, by index. It takes
// its time: a count that changes, and what is found of it on the way, are between them.
type bounds struct {
	low, high []bpf.KernelServerLoad
	now       []bpf.KernelServerLoad // as read last
}

// begin has the bounds be the counts of so many servers as they are now.
func (b *bounds) begin(plane *bpf.Plane, servers uint32) error {
	b.now = make([]bpf.KernelServerLoad, servers)
	err := bpf.ReadRange(plane.Loads, 0, b.now)
	b.low, b.high = slices.Clone(b.now), slices.Clone(b.now)
	return err
}

// widen takes in the counts of so many servers as they are now.
func (b *bounds) widen(plane *bpf.Plane, servers uint32) error {
	now := make([]bpf.KernelServerLoad, servers)
	err := bpf.ReadRange(plane.Loads, 0, now)
	b.include(now)
	return err
}

// include takes in counts; servers that were not there before had none.
func (b *bounds) include(now []bpf.KernelServerLoad) {
	b.now = now
	for len(b.low) < len(now) {
		b.low, b.high = append(b.low, bpf.KernelServerLoad{}), append(b.high, bpf.KernelServerLoad{})
	}
	for i := range b.now {
		n, low, high := &b.now[i], &b.low[i], &b.high[i]
		low.Active, high.Active = min(low.Active, n.Active), max(high.Active, n.Active)
		low.Inactive, high.Inactive = min(low.Inactive, n.Inactive), max(high.Inactive, n.Inactive)
		low.Templates, high.Templates = min(low.Templates, n.Templates), max(high.Templates, n.Templates)
	}
}

// outside returns by how much what a sweep found of a server is outside of the bounds.
func (b *bounds) outside(i int, found *bpf.KernelRecount) [3]int64 {
	low, high := &b.low[i], &b.high[i]
	return [3]int64{
		outside(int64(found.Active), low.Active, high.Active), outside(int64(found.Inactive), low.Inactive, high.Inactive),
		outside(int64(found.Templates), low.Templates, high.Templates),
	}
}

// outside returns by how much n is.
func outside(n, low, high int64) int64 {
	switch {
	case n < low:
		return n - low
	case n > high:
		return n - high
	}
	return 0
}

// healCounts corrects servers' counts by what the sweep found. Where nothing moved
// between two sweeps, a difference they agree on is real. On a busy server it is real
// when sweep after sweep finds one in the same direction, and then at least as large
// as the smallest of them.
func (d *Dataplane) healCounts(counts *bounds, recounts []bpf.KernelRecount) error {
	doubts := map[uint32]doubt{}
	for n := range recounts {
		i, load := uint32(n), counts.now[n]
		diffs := counts.outside(n, &recounts[n])
		if diffs == ([3]int64{}) {
			continue
		}
		s := d.model.servers[i]
		if s == nil {
			continue
		}
		traffic, err := d.plane.Traffic(i)
		if err != nil {
			return err
		}
		swing := counts.high[n].Active - counts.low[n].Active
		now, by := d.sweeps.doubts[i].next(load, traffic.Connections, diffs, swing)
		doubts[i] = now
		if by == ([3]int64{}) {
			continue
		}
		if err := d.plane.Correct(bpf.KernelCorrectArgs{Server: i, Active: by[0], Inactive: by[1], Templates: by[2]}); err != nil {
			return fmt.Errorf("correct connection counts of %s: %w", s.address, err)
		}
		d.sweeps.corrected[flag(s.service.isV6())]++
		d.opts.Log.Warn("connection counts corrected", "server", s.address, "service", s.service.key,
			"active", by[0], "inactive", by[1], "templates", by[2])
	}
	d.sweeps.doubts = doubts
	return nil
}
