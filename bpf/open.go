package bpf

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Plane is the loaded fast path: maps and programs. It is safe for concurrent
// use as far as its methods say; Commit replaces some of the maps and programs.
type Plane struct {
	KernelMaps
	KernelPrograms

	// Adopted is whether the maps were found pinned: connections, services and
	// servers are those of an earlier process.
	Adopted bool
	// Limits are the maps' actual sizes.
	Limits Limits
	// Clock converts between ticks and time.
	Clock Clock

	pinDir   string
	lock     *os.File
	settings *ebpf.Map
	filter   *ebpf.Map
	// control serialises the control programs: they are not written to run
	// beside one another.
	control sync.Mutex
	// kept are the settings that are ours alone, slots what we put there.
	kept  KernelSettings
	slots map[uint32]*ebpf.Program

	// newSpec reads the object.
	newSpec func() (*ebpf.CollectionSpec, error)
	version uint32 // of its layout
	pins    *pinned
	seeds   [12]uint64
	set     uint32 // the first of the slots that the program in force goes on to
}

// Names of the pinned data sections; a bpffs name must not have a dot.
const (
	pinSettings = "settings"
	pinFilter   = "filter"
)

// dataSections maps a section of the object to the name of its pin.
var dataSections = map[string]string{".data.settings": pinSettings, ".data.filter": pinFilter}

// lblcrExpiration is how long lblcr keeps a set of servers that does not change
// before it takes one out (kernel: net/netfilter/ipvs/ip_vs_lblcr.c, DEFAULT_EXPIRATION).
const lblcrExpiration = 24 * time.Hour

// transientMaps are made anew by every process: nothing in them outlives a packet.
var transientMaps = map[string]bool{
	KernelMapScratch: true, KernelMapAnswerBudgets: true, KernelMapServiceHints: true, KernelMapNewDestination: true,
	KernelMapNews: true, KernelMapCarryScratch: true, KernelMapMessages: true, KernelMapOptionSpace: true, KernelMapFragments: true,
}

// Open loads the programs over the maps pinned in pinDir, or makes and pins
// them. It attaches nothing. Maps are adopted with the sizes they have, whatever
// limits say: Prepare and Commit change those of the tables. Only whether connections
// are counted one by one is as limits say, from then on. Connections of tables with an
// earlier version's layout, or that were being resized, come over with their packets;
// see Carrying.
//
// pinDir must be on a BPF file system; it is made with mode 0700 and locked
// until Close. Errors wrap ErrInUse, ErrForeign, ErrLayout, ErrNoBPFFS, ErrKernel
// or the kernel's errno.
//
// Requires Linux 6.1.
func Open(pinDir string, limits Limits) (*Plane, error) {
	return openObject(pinDir, limits, LoadKernel)
}

func openObject(pinDir string, limits Limits, newSpec func() (*ebpf.CollectionSpec, error)) (*Plane, error) {
	limits = limits.withDefaults()
	if err := checkLimits(limits); err != nil {
		return nil, err
	}
	lock, err := lockPinDir(pinDir)
	if err != nil {
		return nil, err
	}
	p := &Plane{pinDir: pinDir, lock: lock, newSpec: newSpec}
	if err := p.load(limits); err != nil {
		if !p.Adopted {
			_ = os.Remove(pinDir) // if it is empty: nothing was pinned
		}
		lock.Close()
		return nil, err
	}
	return p, nil
}

func checkLimits(l Limits) error {
	if int(l.Servers) > MaxServers {
		return fmt.Errorf("limit of %d servers: at most %d", l.Servers, MaxServers)
	}
	for version, n := range map[string]uint64{"IPv4": l.Connections4, "IPv6": l.Connections6} {
		if n > MaxConnections {
			return fmt.Errorf("limit of %d %s connections: at most %d", n, version, MaxConnections)
		}
	}
	return nil
}

func (p *Plane) load(limits Limits) (err error) {
	spec, err := p.newSpec()
	if err != nil {
		return fmt.Errorf("read the programs in this binary: %w", err)
	}
	if p.version, err = versionOf(spec); err != nil {
		return err
	}
	maps, err := p.adopt(spec, p.version, limits)
	if err != nil {
		return err
	}
	defer func() { closeAll(maps) }() // the programs have their own handles
	if p.Clock, err = p.clock(spec, maps); err != nil {
		return err
	}
	p.Adopted = maps != nil
	if p.Adopted {
		limits = sizes(maps, limits)
		if err := p.fitTraffic(spec, maps, limits); err != nil {
			return err
		}
	}
	p.Limits = limits
	if p.seeds, err = newSeeds(maps); err != nil {
		return err
	}
	set, err := slotSet(maps)
	if err != nil {
		return err
	}
	coll, err := p.loadPrograms(maps, limits, set)
	if err != nil {
		return err
	}
	defer coll.Close()
	p.settings, p.filter = coll.DetachMap(".data.settings"), coll.DetachMap(".data.filter")
	if !p.Adopted {
		if err := p.initialise(coll, p.seeds); err != nil {
			return err
		}
	}
	if err := coll.Assign(&p.KernelMaps); err != nil {
		return err
	}
	if err := coll.Assign(&p.KernelPrograms); err != nil {
		return err
	}
	if err := p.enter(&p.KernelPrograms, set); err != nil {
		return err
	}
	return errors.Join(p.takeSlots(), p.takeEvents(), p.endWatch())
}

// loadPrograms loads the object over the maps, by their names in it; those that are
// not given are made. Tables that something comes over from are among them.
func (p *Plane) loadPrograms(maps map[string]*ebpf.Map, limits Limits, set uint32) (*ebpf.Collection, error) {
	spec, err := p.newSpec()
	if err != nil {
		return nil, fmt.Errorf("read the programs in this binary: %w", err)
	}
	resize(spec, limits)
	if err := setConstants(spec, limits, p.Clock, p.seeds, set); err != nil {
		return nil, err
	}
	if err := p.setCarried(spec, maps); err != nil {
		return nil, err
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps})
	if err != nil {
		return nil, explainLoad(err)
	}
	return coll, nil
}

// enter puts the loaded programs in force: those that the fast path goes on to in the
// set's slots, and then itself. Which set is its own is noted before: who finds another
// program in force than the note says knows that this one never was.
func (p *Plane) enter(programs *KernelPrograms, set uint32) error {
	slots := map[uint32]*ebpf.Program{
		set + uint32(KernelSlotSLOT_SETTLE): programs.ShuntSettle, set + uint32(KernelSlotSLOT_CREATE): programs.ShuntCreate,
		set + uint32(KernelSlotSLOT_ADMIT): programs.ShuntAdmit, set + uint32(KernelSlotSLOT_ODD): programs.ShuntOdd,
		set + uint32(KernelSlotSLOT_CARRY): programs.ShuntCarry, set + uint32(KernelSlotSLOT_ICMP): programs.ShuntIcmp,
		set + uint32(KernelSlotSLOT_FRAGMENT): programs.ShuntFragment,
	}
	for slot, prog := range slots {
		if err := p.Slots.Put(slot, prog); err != nil {
			return fmt.Errorf("put program %s in place: %w", prog, err)
		}
	}
	if err := p.recordSlots(programs.ShuntMain, set); err != nil {
		return err
	}
	// Point of no return.
	if err := p.Slots.Put(uint32(KernelSlotSLOT_MAIN), programs.ShuntMain); err != nil {
		return fmt.Errorf("put the fast path in place: %w", err)
	}
	slots[uint32(KernelSlotSLOT_MAIN)] = programs.ShuntMain
	p.slots, p.set = slots, set
	return nil
}

// KeepSettings gives s the values of the settings that nobody but Open may
// change: what the maps are made with, and where the programs are.
func (p *Plane) KeepSettings(s *KernelSettings) {
	s.AbiVersion, s.Seed, s.Hz, s.SlotSet, s.MainId = p.kept.AbiVersion, p.kept.Seed, p.kept.Hz, p.kept.SlotSet, p.kept.MainId
}

// RepairSlots puts the programs back that somebody else has taken out of their
// slots, and says whether there were any.
func (p *Plane) RepairSlots() (repaired bool, err error) {
	for slot, prog := range p.slots {
		want, err := programID(prog)
		if err != nil {
			return repaired, err
		}
		var id uint32 // a program array gives its programs' numbers to user space
		err = p.Slots.Lookup(slot, &id)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return repaired, fmt.Errorf("read program slots: %w", err)
		}
		if err == nil && id == want {
			continue
		}
		if err := p.Slots.Put(slot, prog); err != nil {
			return repaired, fmt.Errorf("put program %s in place: %w", prog, err)
		}
		repaired = true
	}
	return repaired, nil
}

// clock returns the clock the pinned tables' ticks are of, or measures the kernel's.
func (p *Plane) clock(spec *ebpf.CollectionSpec, pinned map[string]*ebpf.Map) (Clock, error) {
	if pinned == nil {
		return measureClock(spec)
	}
	settings, err := pinnedSettings(pinned)
	if err != nil {
		return Clock{}, err
	}
	return newClock(float64(settings.Hz)), nil
}

// recordSlots notes which set of slots the program goes on to that is put in force next.
func (p *Plane) recordSlots(main *ebpf.Program, set uint32) error {
	id, err := programID(main)
	if err != nil {
		return err
	}
	return p.ChangeSettings(func(s *KernelSettings) {
		s.SlotSet = (set - uint32(KernelSlotSLOT_SETS)) / uint32(KernelSlotSLOTS_IN_SET)
		s.MainId = id
		p.kept = *s
	})
}

func programID(prog *ebpf.Program) (uint32, error) {
	info, err := prog.Info()
	if err != nil {
		return 0, fmt.Errorf("look at program %s: %w", prog, err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, fmt.Errorf("%w: it does not tell the number of program %s", ErrKernel, prog)
	}
	return uint32(id), nil
}

// initialise writes the settings of new maps and pins all maps, settings last:
// its pin says that the others are complete.
func (p *Plane) initialise(coll *ebpf.Collection, seeds [12]uint64) error {
	settings := KernelSettings{AbiVersion: p.version, Seed: seeds, Hz: p.Clock.hz}
	if err := p.settings.Put(uint32(0), &settings); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	for name, m := range coll.Maps {
		if !isPinned(name) {
			continue
		}
		if err := p.pins.pin(m, name); err != nil {
			return err
		}
	}
	if err := p.pins.pin(p.filter, pinFilter); err != nil {
		return err
	}
	// Point of no return.
	return p.pins.pin(p.settings, pinSettings)
}

// newSeeds returns the tables' hash seeds: those of the pinned settings, or new ones.
func newSeeds(pinned map[string]*ebpf.Map) (seeds [12]uint64, err error) {
	if pinned != nil {
		settings, err := pinnedSettings(pinned)
		return settings.Seed, err
	}
	var raw [12 * 8]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return seeds, fmt.Errorf("draw the hash seed: %w", err)
	}
	for i := range seeds {
		seeds[i] = binary.NativeEndian.Uint64(raw[i*8:])
	}
	return seeds, nil
}

func pinnedSettings(pinned map[string]*ebpf.Map) (settings KernelSettings, err error) {
	if err := pinned[".data.settings"].Lookup(uint32(0), &settings); err != nil {
		return settings, fmt.Errorf("read pinned settings: %w", err)
	}
	return settings, nil
}

// slotSet returns the first of the slots that the program in force does not use.
func slotSet(pinned map[string]*ebpf.Map) (uint32, error) {
	const first = uint32(KernelSlotSLOT_SETS)
	if pinned == nil {
		return first, nil
	}
	settings, err := pinnedSettings(pinned)
	if err != nil {
		return 0, err
	}
	var inForce uint32 // a program array gives its programs' numbers to user space
	if err := pinned[KernelMapSlots].Lookup(uint32(KernelSlotSLOT_MAIN), &inForce); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, fmt.Errorf("read program slots: %w", err)
	}
	set := settings.SlotSet
	if inForce == settings.MainId {
		set ^= 1
	}
	return first + set*uint32(KernelSlotSLOTS_IN_SET), nil
}

// otherSet returns the first of the slots that the program in force does not use.
func (p *Plane) otherSet() uint32 {
	const first, length = uint32(KernelSlotSLOT_SETS), uint32(KernelSlotSLOTS_IN_SET)
	return 2*first + length - p.set
}

func setConstants(spec *ebpf.CollectionSpec, limits Limits, clock Clock, seeds [12]uint64, slotSet uint32) error {
	var weak uint8
	if runtime.GOARCH != "amd64" {
		weak = 1
	}
	var counts uint8
	if limits.CountConnections {
		counts = 1
	}
	for name, value := range map[string]any{
		"counts_connections": counts,

		"groups4":        groups(limits.Connections4),
		"groups6":        groups(limits.Connections6),
		"tick_shift":     clock.shift,
		"refresh_ticks":  clock.refresh(),
		"set_ticks":      clock.Ticks(lblcrExpiration),
		"seeds":          seeds,
		"slot_set":       slotSet,
		"weakly_ordered": weak,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	return nil
}

// resize sets the maps' sizes in the spec.
func resize(spec *ebpf.CollectionSpec, l Limits) {
	for name, entries := range map[string]uint32{
		KernelMapConnections4:   groups(l.Connections4),
		KernelMapConnections6:   groups(l.Connections6),
		KernelMapServiceIndex:   l.Services,
		KernelMapServices:       l.Services,
		KernelMapRetiredTraffic: l.Services,
		KernelMapServers:        l.Servers,
		KernelMapLoads:          l.Servers,
		KernelMapRecounts:       l.Servers,
		KernelMapEvidence:       l.Servers,
		KernelMapPassive:        l.Services,
		KernelMapServerTraffic:  l.Servers,
		KernelMapZeroedTraffic:  l.Servers,
		KernelMapWords:          l.Words,
		KernelMapAccess:         l.Prefixes,
		KernelMapTimeouts:       l.Services,
		KernelMapLimits:         l.Services,
		KernelMapServiceStates:  l.Services,
		KernelMapSources:        l.Sources,
		KernelMapValidated:      l.Sources,
		KernelMapDestinations:   l.Destinations,
		KernelMapMatches:        l.Matches,
		KernelMapTunnels:        tunnels(l),
		KernelMapTunnelIndex:    tunnels(l),

		// One more: before Linux 6.13 a full trie refuses to replace a key.
		KernelMapVirtualAddresses: l.Services + 1,
		KernelMapFragments:        l.Fragments,
		KernelMapDrops:            uint32(KernelDropShapeDROP_ROWS) * uint32(ebpf.MustPossibleCPU()),

		KernelMapConnectionTraffic4: trafficEntries(l, l.Connections4),
		KernelMapConnectionTraffic6: trafficEntries(l, l.Connections6),
	} {
		spec.Maps[name].MaxEntries = entries
	}
}

// sizes reads the limits back from maps; of those that are not there, they are as asked.
func sizes(maps map[string]*ebpf.Map, asked Limits) Limits {
	size := func(name string, otherwise uint32) uint32 {
		if m := maps[name]; m != nil {
			return m.MaxEntries()
		}
		return otherwise
	}
	return Limits{
		Connections4: connections(size(KernelMapConnections4, groups(asked.Connections4))),
		Connections6: connections(size(KernelMapConnections6, groups(asked.Connections6))),
		Services:     size(KernelMapServices, asked.Services),
		Servers:      size(KernelMapServers, asked.Servers),
		Words:        size(KernelMapWords, asked.Words),
		Prefixes:     size(KernelMapAccess, asked.Prefixes),
		Destinations: size(KernelMapDestinations, asked.Destinations),
		Matches:      size(KernelMapMatches, asked.Matches),
		Sources:      size(KernelMapSources, asked.Sources),
		Fragments:    asked.Fragments,

		CountConnections: asked.CountConnections,
	}
}

// explainLoad turns the loader's error into one that says what to do.
func explainLoad(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		// Not %w: the verifier says EACCES, which is not for want of a right.
		return fmt.Errorf("%w: load the programs (Linux 6.1 or newer is needed): %v", ErrKernel, err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: load the programs (Linux 6.1 or newer is needed): %w", ErrKernel, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("load the programs (needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON): %w", err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("load the programs: not enough memory for the maps, lower connections.max: %w", err)
	default:
		return fmt.Errorf("load the programs: %w", err)
	}
}

func closeAll(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

// Close releases the handles and the pin directory. The programs stay attached
// and the maps pinned: traffic flows on.
func (p *Plane) Close() error {
	return errors.Join(p.KernelMaps.Close(), p.KernelPrograms.Close(), p.settings.Close(), p.filter.Close(), p.lock.Close())
}
