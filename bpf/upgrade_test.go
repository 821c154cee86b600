package bpf_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// A process that dies at any step of a resize leaves what the next one goes on with:
// no connection is lost, and all is as it was or as it was to be.
func TestResizeOutlivesCrashes(t *testing.T) {
	w := newEstate(t, 1024)
	before := w.look()
	prepare := func(connections uint64) *bpf.Change {
		change, err := w.Plane.PrepareResize(connections, connections)
		if err != nil {
			t.Fatal(err)
		}
		return change
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	size := uint64(1024)
	for i, step := range []struct {
		name    string
		crash   func(connections uint64)
		happens bool // the tables are those that were to be
	}{
		{"nothing pinned", func(n uint64) { prepare(n) }, false},
		{"one table set aside", func(n uint64) { must(w.Plane.PinChange(prepare(n), 2, 0)) }, true},
		{"all set aside", func(n uint64) { must(w.Plane.PinChange(prepare(n), bpf.Replaceable, 0)) }, true},
		{"one promoted", func(n uint64) { must(w.Plane.PinChange(prepare(n), bpf.Replaceable, 2)) }, true},
		{"all promoted", func(n uint64) { must(w.Plane.PinChange(prepare(n), bpf.Replaceable, bpf.Replaceable)) }, true},
		{"switched", func(n uint64) {
			change := prepare(n)
			must(w.Plane.PinChange(change, bpf.Replaceable, bpf.Replaceable))
			must(w.Plane.EnterChange(change))
			w.talk(t, w.calls[:len(w.calls)/2], false)
		}, true},
		{"committed", func(n uint64) {
			must(w.Plane.Commit(prepare(n)))
			w.talk(t, w.calls[:len(w.calls)/2], true)
		}, true},
		{"all brought over", func(n uint64) {
			must(w.Plane.Commit(prepare(n)))
			_, err := w.Plane.Carry(t.Context())
			must(err)
		}, true},
	} {
		t.Run(step.name, func(t *testing.T) {
			w.T(t)
			wanted := uint64(2000 + 300*i)
			step.crash(wanted)
			w.Reopen()
			if w.Plane.Carrying() != step.happens {
				t.Fatalf("connections come over: %v", w.Plane.Carrying())
			}
			w.talk(t, w.calls, false)
			if step.happens {
				size = wanted
				w.end(t)
			}
			if got := w.Plane.Limits.Connections4; got+25 < size || got > size+25 {
				t.Errorf("tables for %d connections, want %d", got, size)
			}
			w.Events()
			w.diff(t, before)
			w.talk(t, w.calls, true)
		})
	}
}

// A newer version's programs go on with all connections, whose entries have another
// layout with it; the older one refuses what it then finds, by name.
func TestUpgrade(t *testing.T) {
	w := newEstate(t, 4096)
	if err := w.Plane.Close(); err != nil {
		t.Fatal(err)
	}
	w.openBy(t, bpf.OpenNext)
	if !w.Plane.Carrying() {
		t.Fatal("nothing comes over")
	}
	w.talk(t, w.calls[:len(w.calls)/2], true)
	report := w.end(t)
	if report.Lost+report.Left+report.Expired > 0 {
		t.Errorf("brought over: %+v", report)
	}
	w.talk(t, w.calls, false)
	events := w.Events()
	if events["carried"] != uint64(len(w.calls)+len(w.answered)) || events["carry-lost"]+events["busy"]+events["insert-race"] > 0 {
		t.Errorf("events: %v", events)
	}
	w.recount(t)
	if err := w.Plane.Close(); err != nil {
		t.Fatal(err)
	}
	pins := names(t, w.dir)
	if p, err := bpf.Open(w.dir, small); err == nil {
		p.Close()
		t.Error("the older version opened a newer one's maps")
	} else if !errors.Is(err, bpf.ErrLayout) || !strings.Contains(err.Error(), "newer") || !strings.Contains(err.Error(), "shuntd detach --pin-dir "+w.dir) {
		t.Errorf("refused by: %v", err)
	}
	if now := names(t, w.dir); !slices.Equal(now, pins) {
		t.Errorf("pins before %v, after %v", pins, now)
	}
	w.openBy(t, bpf.OpenNext)
	w.talk(t, w.calls, true)
}

// openBy opens what is pinned by that version of the programs.
func (w *estate) openBy(t *testing.T, open func(string, bpf.Limits) (*bpf.Plane, error)) {
	t.Helper()
	var err error
	w.Do(func() { w.Plane, err = open(w.dir, small) })
	if err != nil {
		t.Fatal(err)
	}
}

// recount holds the loads to what the programs' own sweep counts: tests do not know
// the layout of all versions.
func (w *estate) recount(t *testing.T) {
	t.Helper()
	if err := bpf.ClearArray[bpf.KernelRecount](w.Plane.Recounts); err != nil {
		t.Fatal(err)
	}
	for _, v6 := range []bool{false, true} {
		groups := w.Plane.Connections4.MaxEntries()
		if v6 {
			groups = w.Plane.Connections6.MaxEntries()
		}
		args := bpf.KernelSweepArgs{Groups: groups, Templates: uint32(bpf.KernelSweepTemplatesTEMPLATES_LEFT)}
		if err := w.Plane.Sweep(v6, &args); err != nil {
			t.Fatal(err)
		}
		if args.Removed+args.Orphans > 0 {
			t.Errorf("the sweep removed %d connections and %d orphans", args.Removed, args.Orphans)
		}
	}
	recounts, err := bpf.ReadArray[bpf.KernelRecount](w.Plane.Recounts)
	if err != nil {
		t.Fatal(err)
	}
	counted := 0
	for _, s := range w.servers {
		load, r := w.Load(s), recounts[s.Index]
		counted += int(r.Active + r.Inactive)
		if load.Active != int64(r.Active) || load.Inactive != int64(r.Inactive) || load.Templates != int64(r.Templates) {
			t.Errorf("server %v counts %+v, has %+v", s.Address, load, r)
		}
	}
	if all := len(w.calls) + len(w.answered); counted != all {
		t.Errorf("%d connections, want %d", counted, all)
	}
}

// The maps of layouts 4 and 5 become this version's: entries, counters by the events'
// names, and the slots that interfaces go by. All steps are as good twice as once.
func TestUpgradeFromOldLayouts(t *testing.T) {
	for _, layout := range []uint32{4, 5} {
		t.Run(fmt.Sprint(layout), func(t *testing.T) { testUpgradeFrom(t, layout) })
	}
}

func testUpgradeFrom(t *testing.T, layout uint32) {
	w := newEstateOf(t, 4096, false)
	before := lasting(w.look())
	for i := range before {
		before[i].Born = 0
	}
	counts := w.counts(t)
	path := w.makeLayout(t, layout)
	for round := range 2 {
		w.openBy(t, bpf.Open)
		if !w.Plane.Carrying() {
			t.Fatal("nothing comes over")
		}
		if round == 0 { // a later one's goes by the same slots
			w.runsRoot(t, path)
		}
		if services, servers := w.counted(t); services != servers || services == 0 {
			t.Errorf("the services' connections are %d, their servers' %d", services, servers)
		}
		for name, n := range w.counts(t) {
			if n != counts[name] && name != "not-ours" { // the interface's own neighbour discovery
				t.Errorf("event %s: %d, was %d", name, n, counts[name])
			}
		}
		if err := w.Plane.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w.openBy(t, bpf.Open)
	w.Events()
	w.talk(t, w.calls[:len(w.calls)/2], false)
	report := w.end(t)
	if report.Lost+report.Left+report.Expired > 0 {
		t.Errorf("brought over: %+v", report)
	}
	after := lasting(w.look())
	for i := range after {
		after[i].Born = 0
	}
	if diff := cmp.Diff(before, after, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("tables (-before +after):\n%s", diff)
	}
	w.talk(t, w.calls, true)
	w.talk(t, w.answered, true)
	w.recount(t)
	diffPairs(t, w.Fixture)
}

// counted is how many connections all services have by their counts, and all servers.
func (w *estate) counted(t *testing.T) (services, servers int64) {
	t.Helper()
	states, err := bpf.ReadArray[bpf.KernelServiceState](w.Plane.ServiceStates)
	if err != nil {
		t.Fatal(err)
	}
	loads, err := bpf.ReadArray[bpf.KernelServerLoad](w.Plane.Loads)
	if err != nil {
		t.Fatal(err)
	}
	for i := range states {
		services += states[i].Connections
	}
	for i := range loads {
		servers += loads[i].Active + loads[i].Inactive
	}
	return services, servers
}

// counts are the events' counters by name.
func (w *estate) counts(t *testing.T) map[string]uint64 {
	t.Helper()
	counts, err := w.Plane.EventCounts()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]uint64{}
	for i, n := range counts {
		byName[bpf.Events[i].Name] = n
	}
	return byName
}

// runsRoot holds that the pinned link runs the plane's root program.
func (w *estate) runsRoot(t *testing.T, path string) {
	t.Helper()
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		t.Fatal(err)
	}
	root, err := w.Plane.ShuntRoot.Info()
	if err != nil {
		t.Fatal(err)
	}
	if id, _ := root.ID(); info.Program != id {
		t.Errorf("the interface runs program %d, the root is %d", info.Program, id)
	}
}

// makeLayout makes what is pinned that of layout 4 or 5, with an interface attached, closes
// the plane, and returns the path of the interface's link.
func (w *estate) makeLayout(t *testing.T, layout uint32) string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if layout == 4 {
		toLayout4(t, w.Plane.Connections4, func(g *bpf.KernelGroup4, i int) (id, recipe *uint64, hop *uint32) {
			return &g.Slots[i].Id, &g.Slots[i].Recipe, &g.Slots[i].Hop
		})
		toLayout4(t, w.Plane.Connections6, func(g *bpf.KernelGroup6, i int) (id, recipe *uint64, hop *uint32) {
			return &g.Slots[i].Id, &g.Slots[i].Recipe, &g.Slots[i].Hop
		})
	}
	programSlots := map[uint32]uint32{4: 7, 5: 11}[layout]
	replace := func(name string, m *ebpf.Map) {
		must(os.Remove(filepath.Join(w.dir, name)))
		must(m.Pin(filepath.Join(w.dir, name)))
	}
	names := bpf.LayoutEvents[layout]
	events, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: uint32(len(names))})
	must(err)
	defer events.Close()
	counts := w.counts(t)
	for i, name := range names {
		if i > 0 {
			perCPU := make([]uint64, ebpf.MustPossibleCPU())
			perCPU[i%len(perCPU)] = counts[name]
			must(events.Put(uint32(i), perCPU))
		}
	}
	slots, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: programSlots})
	must(err)
	defer slots.Close()
	must(slots.Put(uint32(0), w.Plane.ShuntMain))
	spec, err := bpf.LoadKernel()
	must(err)
	spec.Maps[bpf.KernelMapSlots].MaxEntries = programSlots
	spec.Programs = map[string]*ebpf.ProgramSpec{bpf.KernelProgShuntRoot: spec.Programs[bpf.KernelProgShuntRoot]}
	for name := range spec.Maps {
		if name != bpf.KernelMapSlots {
			delete(spec.Maps, name)
		}
	}
	spec.Variables = nil
	root, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{bpf.KernelMapSlots: slots}})
	must(err)
	defer root.Close()
	path := filepath.Join(w.dir, fmt.Sprintf("link_%d", w.Outside))
	w.Do(func() {
		var l link.Link
		if l, err = link.AttachXDP(link.XDPOptions{Program: root.Programs[bpf.KernelProgShuntRoot], Interface: int(w.Outside), Flags: link.XDPDriverMode}); err == nil {
			err = errors.Join(l.Pin(path), l.Close())
		}
	})
	must(err)
	must(w.Plane.ChangeSettings(func(s *bpf.KernelSettings) { s.AbiVersion = layout }))
	must(w.Plane.Close())
	replace(bpf.KernelMapEvents, events)
	replace(bpf.KernelMapSlots, slots)
	later := []string{
		bpf.KernelMapOptions, bpf.KernelMapTunnels, bpf.KernelMapTunnelIndex, bpf.KernelMapLocals, bpf.KernelMapFragments,
		bpf.KernelMapDrops, bpf.KernelMapVirtualAddresses, bpf.KernelMapEvidence, bpf.KernelMapPassive,
	}
	if layout == 4 {
		later = append(later,
			bpf.KernelMapLimits, bpf.KernelMapServiceStates, bpf.KernelMapSources, bpf.KernelMapValidated, bpf.KernelMapTableStates,
			bpf.KernelMapConnectionTraffic4, bpf.KernelMapConnectionTraffic6)
	}
	for _, name := range later {
		if err := os.Remove(filepath.Join(w.dir, name)); !errors.Is(err, os.ErrNotExist) { // not all are pinned
			must(err)
		}
	}
	return path
}

// toLayout4 rewrites a table: generations of 24 bits, no births, no flag that it had not.
func toLayout4[G any](t *testing.T, table *ebpf.Map, slot func(*G, int) (id, recipe *uint64, hop *uint32)) {
	t.Helper()
	const generation, upper, sequence = 0xffff, 0x120000, 1 << 58
	for i := range table.MaxEntries() {
		var group G
		if err := table.Lookup(i, &group); err != nil {
			t.Fatal(err)
		}
		for j := range int(bpf.KernelTableShapeSLOTS) {
			id, recipe, hop := slot(&group, j)
			if *recipe == 0 {
				continue
			}
			if *recipe&sequence != 0 {
				*hop = 0
			}
			*id = *id&(1<<40-1) | (*recipe&generation|upper)<<40
			*recipe = *recipe&(1<<58-1)&^0xffffff | *recipe&generation | upper
		}
		if err := table.Put(i, &group); err != nil {
			t.Fatal(err)
		}
	}
}

// What another version has pinned is refused with the way out.
func TestOtherVersionsAreRefused(t *testing.T) {
	for version, hint := range map[uint32]string{
		bpf.Version + 1: "start the newer shuntd again; or", 3: "start a shuntd of a version between them first; or",
	} {
		dir := bpftest.PinDir(t)
		p := open(t, dir, small)
		if err := p.ChangeSettings(func(s *bpf.KernelSettings) { s.AbiVersion = version }); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		before := names(t, dir)
		if p, err := bpf.Open(dir, small); err == nil {
			p.Close()
			t.Errorf("opened maps of version %d", version)
		} else if !errors.Is(err, bpf.ErrLayout) || !strings.Contains(err.Error(), hint) || !strings.Contains(err.Error(), "shuntd detach --pin-dir "+dir) {
			t.Errorf("version %d: %v", version, err)
		}
		if after := names(t, dir); !slices.Equal(before, after) {
			t.Errorf("pins before %v, after %v", before, after)
		}
		if err := bpf.Remove(dir); err != nil {
			t.Error(err)
		}
	}
}
