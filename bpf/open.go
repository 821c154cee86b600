package bpf

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Plane is the loaded fast path: maps and programs. It is safe for concurrent
// use as far as its methods say.
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
	KernelMapNews: true,
}

// Open loads the programs over the maps pinned in pinDir, or makes and pins
// them. It attaches nothing. limits are ignored where maps are adopted.
//
// pinDir must be on a BPF file system; it is made with mode 0700 and locked
// until Close. Errors wrap ErrInUse, ErrForeign, ErrLayout, ErrNoBPFFS, ErrKernel
// or the kernel's errno.
//
// Requires Linux 6.1.
func Open(pinDir string, limits Limits) (*Plane, error) {
	limits = limits.withDefaults()
	if err := checkLimits(limits); err != nil {
		return nil, err
	}
	lock, err := lockPinDir(pinDir)
	if err != nil {
		return nil, err
	}
	p := &Plane{pinDir: pinDir, lock: lock}
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

func (p *Plane) load(limits Limits) error {
	spec, err := LoadKernel()
	if err != nil {
		return fmt.Errorf("read the programs in this binary: %w", err)
	}
	pinned, err := p.adopt(spec)
	if err != nil {
		return err
	}
	if p.Clock, err = p.clock(spec, pinned); err != nil {
		return err
	}
	p.Adopted = pinned != nil
	if p.Adopted {
		limits = sizes(pinned)
	}
	resize(spec, limits)
	p.Limits = limits

	seeds, err := p.seeds(pinned)
	if err != nil {
		return err
	}
	set, err := p.slotSet(pinned)
	if err != nil {
		return err
	}
	if err := setConstants(spec, limits, p.Clock, seeds, set); err != nil {
		return err
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: pinned})
	closeAll(pinned) // the collection has its own handles
	if err != nil {
		return explainLoad(err)
	}
	defer coll.Close()
	p.settings, p.filter = coll.DetachMap(".data.settings"), coll.DetachMap(".data.filter")
	if !p.Adopted {
		if err := p.initialise(coll, seeds); err != nil {
			return err
		}
	}
	if err := coll.Assign(&p.KernelMaps); err != nil {
		return err
	}
	if err := coll.Assign(&p.KernelPrograms); err != nil {
		return err
	}
	p.slots = map[uint32]*ebpf.Program{
		set + uint32(KernelSlotSLOT_SETTLE): p.ShuntSettle, set + uint32(KernelSlotSLOT_CREATE): p.ShuntCreate,
		set + uint32(KernelSlotSLOT_ADMIT): p.ShuntAdmit, set + uint32(KernelSlotSLOT_ODD): p.ShuntOdd,
		uint32(KernelSlotSLOT_MAIN): p.ShuntMain,
	}
	for slot, prog := range p.slots {
		if slot == uint32(KernelSlotSLOT_MAIN) {
			continue
		}
		if err := p.Slots.Put(slot, prog); err != nil {
			return fmt.Errorf("put program %s in place: %w", prog, err)
		}
	}
	// Point of no return.
	if err := p.Slots.Put(uint32(KernelSlotSLOT_MAIN), p.ShuntMain); err != nil {
		return fmt.Errorf("put the fast path in place: %w", err)
	}
	if err := p.recordSlots(set); err != nil {
		return err
	}
	p.kept, err = p.Settings()
	return err
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
	var settings KernelSettings
	if err := pinned[".data.settings"].Lookup(uint32(0), &settings); err != nil {
		return Clock{}, fmt.Errorf("read pinned settings: %w", err)
	}
	return newClock(float64(settings.Hz)), nil
}

// recordSlots notes which set of slots the program in force goes on to. A
// process that dies before it leaves a program in force that the note is not of:
// slotSet sees that.
func (p *Plane) recordSlots(set uint32) error {
	id, err := programID(p.ShuntMain)
	if err != nil {
		return err
	}
	return p.ChangeSettings(func(s *KernelSettings) {
		s.SlotSet = (set - uint32(KernelSlotSLOT_SETS)) / uint32(KernelSlotSLOTS_IN_SET)
		s.MainId = id
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
	settings := KernelSettings{AbiVersion: abiVersion, Seed: seeds, Hz: p.Clock.hz}
	if err := p.settings.Put(uint32(0), &settings); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	for name, m := range coll.Maps {
		if !isPinned(name) {
			continue
		}
		if err := m.Pin(filepath.Join(p.pinDir, name)); err != nil {
			return fmt.Errorf("pin map %s in %s: %w", name, p.pinDir, err)
		}
	}
	if err := p.filter.Pin(filepath.Join(p.pinDir, pinFilter)); err != nil {
		return fmt.Errorf("pin map %s in %s: %w", pinFilter, p.pinDir, err)
	}
	// Point of no return.
	if err := p.settings.Pin(filepath.Join(p.pinDir, pinSettings)); err != nil {
		return fmt.Errorf("pin map %s in %s: %w", pinSettings, p.pinDir, err)
	}
	return nil
}

// seeds returns the tables' hash seeds: those of the pinned settings, or new ones.
func (p *Plane) seeds(pinned map[string]*ebpf.Map) (seeds [12]uint64, err error) {
	if pinned != nil {
		var settings KernelSettings
		if err := pinned[".data.settings"].Lookup(uint32(0), &settings); err != nil {
			return seeds, fmt.Errorf("read pinned settings: %w", err)
		}
		return settings.Seed, nil
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

// slotSet returns the first of the slots that the program in force does not use.
func (p *Plane) slotSet(pinned map[string]*ebpf.Map) (uint32, error) {
	first := uint32(KernelSlotSLOT_SETS)
	if pinned == nil {
		return first, nil
	}
	var settings KernelSettings
	if err := pinned[".data.settings"].Lookup(uint32(0), &settings); err != nil {
		return 0, fmt.Errorf("read pinned settings: %w", err)
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

		KernelMapConnectionTraffic4: trafficEntries(l, l.Connections4),
		KernelMapConnectionTraffic6: trafficEntries(l, l.Connections6),
	} {
		spec.Maps[name].MaxEntries = entries
	}
}

// sizes reads the limits back from maps.
func sizes(maps map[string]*ebpf.Map) Limits {
	return Limits{
		Connections4: connections(maps[KernelMapConnections4].MaxEntries()),
		Connections6: connections(maps[KernelMapConnections6].MaxEntries()),
		Services:     maps[KernelMapServices].MaxEntries(),
		Servers:      maps[KernelMapServers].MaxEntries(),
		Words:        maps[KernelMapWords].MaxEntries(),
		Prefixes:     maps[KernelMapAccess].MaxEntries(),
		Destinations: maps[KernelMapDestinations].MaxEntries(),
		Matches:      maps[KernelMapMatches].MaxEntries(),
		Sources:      maps[KernelMapSources].MaxEntries(),

		CountConnections: maps[KernelMapConnectionTraffic4].MaxEntries() > 1,
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
