package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// versionOf returns the version of an object's layout, ABI_VERSION of src/abi.h.
func versionOf(spec *ebpf.CollectionSpec) (uint32, error) {
	var versions *btf.Enum
	if err := spec.Types.TypeByName("abi_version", &versions); err != nil {
		return 0, fmt.Errorf("find the version of the programs in this binary: %w", err)
	}
	return uint32(versions.Values[0].Value), nil
}

// replaceable are the maps whose place another one may take while packets flow: what
// was in them comes over. Tables' counters stand before their tables.
var replaceable = []string{
	KernelMapConnectionTraffic4, KernelMapConnections4, KernelMapConnectionTraffic6, KernelMapConnections6,
	KernelMapEvents, KernelMapSlots,
}

// tableOf are the tables that the maps with their connections' counters belong to.
var tableOf = map[string]string{
	KernelMapConnectionTraffic4: KernelMapConnections4, KernelMapConnectionTraffic6: KernelMapConnections6,
}

// adopt opens the pinned maps, by their names in the object; nil if there are none.
// What an interrupted start or resize left behind is ended or removed; maps of an
// earlier version are made those of this one (upgrade.go).
func (p *Plane) adopt(spec *ebpf.CollectionSpec, version uint32, limits Limits) (map[string]*ebpf.Map, error) {
	pins, err := readPins(p.pinDir, spec)
	if err != nil {
		return nil, err
	}
	p.pins = pins
	if !pins.names[pinSettings] {
		if pins.links > 0 {
			return nil, fmt.Errorf("%w: %s has links but no settings; remove all with: shuntd detach --pin-dir %s",
				ErrForeign, p.pinDir, p.pinDir)
		}
		for pin := range pins.names {
			if err := pins.remove(pin); err != nil {
				return nil, fmt.Errorf("undo an interrupted start: %w", err)
			}
		}
		return nil, nil
	}
	has, err := p.pinnedVersion(spec)
	if err != nil {
		return nil, err
	}
	if has != version {
		if err := p.upgrade(spec, has, version, limits); err != nil {
			return nil, err
		}
	}
	if err := pins.resume(replaceable); err != nil {
		return nil, err
	}
	if err := p.addMissing(spec, limits); err != nil {
		return nil, err
	}
	return p.openPins(spec)
}

// addedMaps have joined layout 6, of which nothing else has changed: of what was pinned
// before they are missing, and empty ones are as good.
var addedMaps = map[string]bool{KernelMapEvidence: true, KernelMapPassive: true}

// addMissing makes and pins those of addedMaps that are not pinned, of the sizes that the
// others have.
func (p *Plane) addMissing(spec *ebpf.CollectionSpec, limits Limits) error {
	maps := map[string]*ebpf.Map{}
	defer func() { closeAll(maps) }()
	for name := range addedMaps {
		if p.pins.names[name] {
			continue
		}
		for _, sized := range []string{KernelMapServers, KernelMapServices} {
			if maps[sized] != nil {
				continue
			}
			m, err := p.pins.open(sized)
			if err != nil {
				return p.layoutError(err.Error())
			}
			maps[sized] = m
		}
		resize(spec, sizes(maps, limits))
		made, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			return fmt.Errorf("make map %s, which the version before has not: %w", name, err)
		}
		err = p.pins.pin(made, name)
		made.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// pinnedVersion reads the version of the layout that the pinned maps have.
func (p *Plane) pinnedVersion(spec *ebpf.CollectionSpec) (uint32, error) {
	m, err := p.pins.open(pinSettings)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	if err := p.checkShape(spec, ".data.settings", m); err != nil {
		return 0, err
	}
	var settings KernelSettings
	if err := m.Lookup(uint32(0), &settings); err != nil {
		return 0, fmt.Errorf("read pinned settings: %w", err)
	}
	return settings.AbiVersion, nil
}

// openPins opens all pinned maps, those included that something comes over from.
func (p *Plane) openPins(spec *ebpf.CollectionSpec) (_ map[string]*ebpf.Map, err error) {
	maps := map[string]*ebpf.Map{}
	defer func() {
		if err != nil {
			closeAll(maps)
		}
	}()
	for name := range spec.Maps {
		if !hasPin(name) {
			continue
		}
		m, err := p.pins.open(pinName(name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, p.layoutError(fmt.Sprintf("%s is missing", p.pins.path(pinName(name))))
		}
		if err != nil {
			return nil, err
		}
		maps[name] = m
		if err := p.checkShape(spec, name, m); err != nil {
			return nil, err
		}
	}
	for name, as := range carriedMaps {
		layout, ok := p.pins.carried[name]
		if !ok {
			continue
		}
		if maps[as], err = p.pins.open(carriedPin(name, layout)); err != nil {
			return nil, err
		}
		if err := p.checkShape(spec, as, maps[as]); err != nil {
			return nil, err
		}
	}
	return maps, nil
}

// carriedMaps are the maps in which the programs find what comes over.
var carriedMaps = map[string]string{
	KernelMapConnections4: KernelMapCarried4, KernelMapConnections6: KernelMapCarried6,
	KernelMapConnectionTraffic4: KernelMapCarriedTraffic4, KernelMapConnectionTraffic6: KernelMapCarriedTraffic6,
}

// checkShape holds a pinned map to what the object says of the map of that name.
func (p *Plane) checkShape(spec *ebpf.CollectionSpec, name string, m *ebpf.Map) error {
	want := spec.Maps[name]
	if m.Type() == want.Type && m.KeySize() == want.KeySize && m.ValueSize() == want.ValueSize {
		return nil
	}
	return p.layoutError(fmt.Sprintf("%s is %v %d→%d, want %v %d→%d", p.pins.path(pinName(name)), m.Type(), m.KeySize(), m.ValueSize(),
		want.Type, want.KeySize, want.ValueSize))
}

// layoutError says what does not fit, and the command that starts anew.
func (p *Plane) layoutError(what string) error {
	return fmt.Errorf("pinned maps in %s have %w: %s; nothing can be done with them but to end all connections: shuntd detach --pin-dir %s",
		p.pinDir, ErrLayout, what, p.pinDir)
}

// removePins removes the pins of a directory, links aside: those that maps of this
// version have, and all if another version's settings are among them.
func removePins(dir string) error {
	spec, err := LoadKernel()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read pin directory: %w", err)
	}
	known := knownPins(spec)
	isOther := isOtherVersion(dir, spec)
	for _, entry := range entries {
		pin := entry.Name()
		name, _, isCarried := parseCarriedPin(pin)
		next, isNext := strings.CutPrefix(pin, nextPrefix)
		if !isOther && !known[pin] && !(isCarried && known[name]) && !(isNext && known[next]) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, pin)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove pin: %w", err)
		}
	}
	return nil
}

// isOtherVersion says whether the settings pinned in dir are those of another version.
func isOtherVersion(dir string, spec *ebpf.CollectionSpec) bool {
	p := &Plane{pinDir: dir, pins: &pinned{dir: dir}}
	version, err := versionOf(spec)
	if err != nil {
		return false
	}
	has, err := p.pinnedVersion(spec)
	return err == nil && has != version
}
