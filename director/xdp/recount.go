package xdp

import (
	"fmt"

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

// healCounts corrects a server's counts by what the table holds. Where nothing
// moved between two sweeps, a difference they agree on is real. On a busy server
// it is real when sweep after sweep finds one in the same direction, and then at
// least as large as the smallest of them.
func (d *Dataplane) healCounts(recounts []bpf.KernelRecount) error {
	doubts := map[uint32]doubt{}
	loads := make([]bpf.KernelServerLoad, d.model.usedServers())
	if err := bpf.ReadRange(d.plane.Loads, 0, loads); err != nil {
		return err
	}
	for i, s := range d.model.servers {
		load := loads[i]
		recount := &recounts[i]
		diffs := [3]int64{
			int64(recount.Active) - load.Active, int64(recount.Inactive) - load.Inactive, int64(recount.Templates) - load.Templates,
		}
		if diffs == ([3]int64{}) {
			continue
		}
		traffic, err := d.plane.Traffic(i)
		if err != nil {
			return err
		}
		before := d.sweeps.doubts[i]
		now := doubt{load: load, connections: traffic.Connections}
		steady := before.load == load && before.connections == traffic.Connections
		var by [3]int64
		for c, diff := range diffs {
			now.counts[c], by[c] = before.counts[c].next(diff, steady)
		}
		doubts[i] = now
		if by == ([3]int64{}) {
			continue
		}
		if err := d.plane.Correct(bpf.KernelCorrectArgs{Server: i, Active: by[0], Inactive: by[1], Templates: by[2]}); err != nil {
			return fmt.Errorf("correct connection counts of %s: %w", s.address, err)
		}
		family := 0
		if s.address.Addr().Is6() {
			family = 1
		}
		d.sweeps.corrected[family]++
		d.opts.Log.Warn("connection counts corrected", "server", s.address, "service", s.service.key,
			"active", by[0], "inactive", by[1], "templates", by[2])
	}
	d.sweeps.doubts = doubts
	return nil
}
