package xdp

import (
	"context"
	"errors"
	"time"
	"unsafe"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// sliceTime is how long one run of the sweep's program may last, which packets wait
// for on its CPU: it ends some microseconds later.
const sliceTime = 20 * time.Microsecond

// sliceGroups is how many groups one run goes through at most: more than it can.
const sliceGroups = 1 << 12

// countInterval is how often the servers' counts are read while a sweep is under way.
const countInterval = 250 * time.Millisecond

// templateSweeps is how many sweeps there are to one that counts the connections
// under each template: that costs a look in the table for each of them, and is for
// faults alone.
const templateSweeps = 16

// sweepState is what sweeps have found. Guarded by Dataplane.mu.
type sweepState struct {
	started   uint64 // sweeps begun
	complete  uint64 // number of the last one that went through all
	keys      [2]uint64
	filling   [2]filling
	expired   [2]uint64
	corrected [2]uint64
	orphans   uint64
	doubts    map[uint32]doubt // servers whose counts differed in the last sweep
	// ofServices are services whose counts did.
	ofServices map[uint32]serviceDoubt
	udp        map[uint32]uint64 // UDP connections by server, in the last complete sweep
	unused     map[uint32]bool   // learned hops without a use in the last sweep
	// period and share are of the last sweep that another has followed.
	period time.Duration
	share  float64
}

// families in the order of the arrays above.
var families = [2]struct {
	name string
	v6   bool
}{{"ipv4", false}, {"ipv6", true}}

// flag is 1 if it is set: a family's place in families, by v6.
func flag(set bool) int {
	if set {
		return 1
	}
	return 0
}

// sweepRun is a sweep on its way over both tables.
type sweepRun struct {
	number     uint64
	templates  uint32 // enum sweep_templates
	began      time.Time
	used       time.Duration // CPU time so far
	counts     bounds        // of the servers' counts meanwhile
	counted    time.Time     // when those were read
	family     int
	group, set uint32 // where the next slice begins
	keys       uint64 // of the family so far
	tables     uint64 // carryState.number when it began
}

// errCarrying ends a sweep: connections are in two tables, or were when it began. It
// must not take servers for unused, nor counts for wrong, for what it does not see.
var errCarrying = errors.New("connections come over to other tables")

// sweep goes over both tables at once and acts on what it counted.
func (d *Dataplane) sweep(ctx context.Context) error {
	w, err := d.beginSweep(time.Now())
	if err != nil {
		return err
	}
	for done := false; !done; {
		if done, err = d.sweepSlice(ctx, w); err != nil {
			return err
		}
	}
	if err := d.finishSweep(w); err != nil {
		return err
	}
	return d.review()
}

func (d *Dataplane) beginSweep(now time.Time) (*sweepRun, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, context.Canceled
	}
	if d.carrying.active {
		return nil, errCarrying
	}
	if err := bpf.ClearArray[bpf.KernelRecount](d.plane.Recounts); err != nil {
		return nil, err
	}
	if err := bpf.ClearArray[uint32](d.plane.HopUses); err != nil {
		return nil, err
	}
	if err := d.locals.beginSweep(); err != nil {
		return nil, err
	}
	s := &d.sweeps
	s.started++
	w := &sweepRun{number: s.started, tables: d.carrying.number, templates: s.templatesIn(s.started), began: now, counted: now}
	return w, w.counts.begin(d.plane, d.model.usedServers())
}

// templatesIn says what the sweep of this number does about templates' connections: it
// takes one that begins to count and one that compares, both complete.
func (s *sweepState) templatesIn(number uint64) uint32 {
	switch {
	case number%templateSweeps == 0:
		return uint32(bpf.KernelSweepTemplatesTEMPLATES_BEGUN)
	case number%templateSweeps == 1 && s.complete == number-1:
		return uint32(bpf.KernelSweepTemplatesTEMPLATES_COUNTED)
	default:
		return uint32(bpf.KernelSweepTemplatesTEMPLATES_LEFT)
	}
}

// sweepSlice goes on with the sweep for the time of a slice; done: it has been everywhere.
func (d *Dataplane) sweepSlice(ctx context.Context, w *sweepRun) (done bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return false, err
	}
	if d.carrying.active || w.tables != d.carrying.number {
		return false, errCarrying
	}
	if now := time.Now(); now.Sub(w.counted) >= countInterval {
		w.counted = now
		if err := w.counts.widen(d.plane, d.model.usedServers()); err != nil {
			return false, err
		}
	}
	family := families[w.family]
	groups := d.plane.Connections4.MaxEntries()
	if family.v6 {
		groups = d.plane.Connections6.MaxEntries()
	}
	if w.group < groups {
		args := bpf.KernelSweepArgs{
			FirstGroup: w.group, FirstSet: w.set, Groups: min(sliceGroups, groups-w.group),
			Templates: w.templates, Limit: uint32(sliceTime),
		}
		if err := d.plane.Sweep(family.v6, &args); err != nil {
			return false, err
		}
		w.group, w.set = args.NextGroup, args.NextSet
		w.keys += uint64(args.LiveKeys)
		d.noteSlice(w.family, &args)
	}
	if w.group < groups {
		return false, nil
	}
	d.sweeps.noteKeys(w, time.Now())
	w.family, w.group, w.set, w.keys = w.family+1, 0, 0, 0
	return w.family == len(families), nil
}

func (d *Dataplane) noteSlice(family int, args *bpf.KernelSweepArgs) {
	d.sweeps.expired[family] += uint64(args.Removed)
	if args.Orphans > 0 {
		d.sweeps.orphans += uint64(args.Orphans)
		d.opts.Log.Error("removed reply keys that had no connection: please report this", "family", families[family].name, "keys", args.Orphans)
	}
}

// tables describes the connection tables.
func (s *sweepState) tables(plane *bpf.Plane) []director.TableStats {
	const slots = uint64(bpf.KernelTableShapeSLOTS)
	groups4, groups6 := uint64(plane.Connections4.MaxEntries()), uint64(plane.Connections6.MaxEntries())
	return []director.TableStats{
		{
			Family: families[0].name, Limit: plane.Limits.Connections4, Keys: s.keys[0], Slots: groups4 * slots,
			Bytes: groups4 * uint64(unsafe.Sizeof(bpf.KernelGroup4{})), Expired: s.expired[0], Corrected: s.corrected[0],
			SweepPeriod: s.period, SweepShare: s.share,
		},
		{
			Family: families[1].name, Limit: plane.Limits.Connections6, Keys: s.keys[1], Slots: groups6 * slots,
			Bytes: groups6 * uint64(unsafe.Sizeof(bpf.KernelGroup6{})), Expired: s.expired[1], Corrected: s.corrected[1],
			SweepPeriod: s.period, SweepShare: s.share,
		},
	}
}
