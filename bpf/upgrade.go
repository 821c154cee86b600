package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// upgrade makes the pinned maps of an earlier version those of this one: what is
// missing is made, the tables and what else has another shape now is set aside, to be
// brought over from. The version in the settings says that all of it is there; until
// then nothing has changed for the version before.
func (p *Plane) upgrade(spec *ebpf.CollectionSpec, has, version uint32, limits Limits) error {
	if err := p.checkVersions(has, version); err != nil {
		return err
	}
	for _, name := range replaceable {
		if err := p.pins.undo(name); err != nil {
			return err
		}
	}
	if len(p.pins.carried) > 0 {
		return fmt.Errorf("pinned maps in %s have %w: %d, with connections that still come over from a table before: "+
			"start the shuntd of that version once more, which brings them over in seconds, and then this one", p.pinDir, ErrLayout, has)
	}
	old := map[string]*ebpf.Map{}
	defer func() { closeAll(old) }()
	for name := range spec.Maps {
		if !hasPin(name) || !p.pins.names[pinName(name)] {
			continue
		}
		m, err := p.pins.open(pinName(name))
		if err != nil {
			return err
		}
		old[name] = m
		shape := name
		if as, ok := carriedMaps[name]; ok {
			shape = as // what is carried need not have the present one
		}
		if err := p.checkShape(spec, shape, m); err != nil {
			return err
		}
	}
	resize(spec, sizes(old, limits))
	for name := range spec.Maps {
		if !hasPin(name) {
			continue
		}
		if err := p.upgradeMap(spec, name, old[name], has); err != nil {
			return err
		}
	}
	if old[KernelMapServiceStates] == nil {
		if err := p.countServices(old); err != nil {
			return err
		}
	}
	// Point of no return.
	return changeVersion(old[".data.settings"], version)
}

// countServices has the services' counts of connections, which the version before has
// not kept, begin with those of their servers. What begins or ends until the switch is
// healed by the sweep.
func (p *Plane) countServices(old map[string]*ebpf.Map) error {
	states, err := p.pins.open(pinName(KernelMapServiceStates))
	if err != nil {
		return err
	}
	defer states.Close()
	servers, err := ReadArray[KernelServer](old[KernelMapServers])
	if err != nil {
		return err
	}
	loads, err := ReadArray[KernelServerLoad](old[KernelMapLoads])
	if err != nil {
		return err
	}
	counts := map[uint32]int64{}
	for i := range min(len(servers), len(loads)) {
		counts[servers[i].Service] += loads[i].Active + loads[i].Inactive
	}
	for service, n := range counts {
		if n == 0 {
			continue
		}
		if err := states.Put(service, &KernelServiceState{Connections: n}); err != nil {
			return fmt.Errorf("write the connections of service %d: %w", service, err)
		}
	}
	return nil
}

func changeVersion(settings *ebpf.Map, version uint32) error {
	var s KernelSettings
	if err := settings.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("read pinned settings: %w", err)
	}
	s.AbiVersion = version
	if err := settings.Put(uint32(0), &s); err != nil {
		return fmt.Errorf("write pinned settings: %w", err)
	}
	return nil
}

// checkVersions says why maps of version has cannot become those of this version.
func (p *Plane) checkVersions(has, version uint32) error {
	const oldest = uint32(KernelLayoutLAYOUT_OLDEST)
	switch {
	case has > version:
		return fmt.Errorf("pinned maps in %s have %w: %d, newer than this program's %d: start the newer shuntd again; or end all connections with: shuntd detach --pin-dir %s",
			p.pinDir, ErrLayout, has, version, p.pinDir)
	case has < oldest:
		return fmt.Errorf("pinned maps in %s have %w: %d, older than %d, the oldest this program brings over: start a shuntd of a version between them first; or end all connections with: shuntd detach --pin-dir %s",
			p.pinDir, ErrLayout, has, oldest, p.pinDir)
	}
	return nil
}

// upgradeMap sees to one map: old is what is pinned, nil if nothing is.
func (p *Plane) upgradeMap(spec *ebpf.CollectionSpec, name string, old *ebpf.Map, has uint32) error {
	isTable := carriedMaps[name] != ""
	if old != nil && !isTable && (name == ".data.settings" || name == ".data.filter" || old.MaxEntries() == spec.Maps[name].MaxEntries) {
		return nil
	}
	made, err := ebpf.NewMap(spec.Maps[name])
	if err != nil {
		return fmt.Errorf("make map %s of this version: %w", name, err)
	}
	defer made.Close()
	if old == nil {
		return p.pins.pin(made, pinName(name))
	}
	if !isTable && name != KernelMapEvents && name != KernelMapSlots {
		return p.layoutError(fmt.Sprintf("%s has %d elements, want %d", p.pins.path(name), old.MaxEntries(), spec.Maps[name].MaxEntries))
	}
	return p.pins.setAside(name, has, made, old)
}

// takeSlots puts the fast path in force for the interfaces that still go by the slots
// of the version before, and then has them go by these.
func (p *Plane) takeSlots() error {
	layout, ok := p.pins.carried[KernelMapSlots]
	if !ok {
		return nil
	}
	old, err := p.pins.open(carriedPin(KernelMapSlots, layout))
	if err != nil {
		return err
	}
	defer old.Close()
	// Point of no return. The first slot has been SLOT_MAIN in every version.
	if err := old.Put(uint32(0), p.ShuntMain); err != nil {
		return fmt.Errorf("put the fast path in place of the version before: %w", err)
	}
	indices, err := pinnedLinks(p.pinDir)
	if err != nil {
		return err
	}
	for _, index := range indices {
		if err := p.updateLink(index, p.ShuntRoot); err != nil {
			return err
		}
	}
	return p.pins.remove(carriedPin(KernelMapSlots, layout))
}

// updateLink has the interface's link run the program.
func (p *Plane) updateLink(index int, root *ebpf.Program) error {
	path := filepath.Join(p.pinDir, linkPrefix+strconv.Itoa(index))
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pinned link %s: %w", path, err)
	}
	defer l.Close()
	// Kernel: net/core/dev.c, bpf_xdp_link_update: the interface is gone.
	if err := l.Update(root); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("update the program of pinned link %s: %w", path, err)
	}
	return nil
}

// takeEvents adds what the version before has counted to the counters of this one, by
// the events' names. Programs of before may be counting their last packets: it is done
// once more at the end, which removes the pin.
func (p *Plane) takeEvents() error {
	layout, ok := p.pins.carried[KernelMapEvents]
	if !ok {
		return nil
	}
	old, err := p.pins.open(carriedPin(KernelMapEvents, layout))
	if err != nil {
		return err
	}
	defer old.Close()
	names, ok := layoutEvents[layout]
	if !ok {
		return p.layoutError(fmt.Sprintf("nothing is known of the events of version %d", layout))
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	index := map[string]uint32{}
	for i, e := range AllEvents() {
		index[e.Name] = uint32(i)
	}
	counts := make([]uint64, old.MaxEntries())
	if err := readPerCPU(old, old.MaxEntries(), func(i uint32, n *uint64) { counts[i] += *n }); err != nil {
		return err
	}
	for i, n := range counts {
		if n == 0 || i >= len(names) || index[names[i]] == 0 {
			continue
		}
		if err := p.run(p.ShuntAddEvent, func(prog *ebpf.Program) (int32, error) {
			return 0, runControl(prog, &KernelEventArgs{Event: index[names[i]], Count: n})
		}); err != nil {
			return fmt.Errorf("add to the count of event %s: %w", names[i], err)
		}
		if err := old.Put(uint32(i), make([]uint64, cpus)); err != nil {
			return fmt.Errorf("clear the count of event %s of the version before: %w", names[i], err)
		}
	}
	return nil
}
