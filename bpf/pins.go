package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	bpffsMagic = 0xcafe4a11 // BPF_FS_MAGIC, kernel: include/uapi/linux/magic.h

	linkPrefix = "link_" // and the interface's index: names may have dots, pins may not
	// nextPrefix and a map's name: the map that is to be pinned under it.
	nextPrefix = "next_"
	// carriedPrefix, a map's name, layoutInfix and the version of its layout: the map
	// that was pinned under the name before, of which something still has to come over.
	carriedPrefix, layoutInfix = "carried_", "_layout"
)

// isPinned says whether the object's map of that name is pinned under it.
func isPinned(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "carried") && !transientMaps[name]
}

// hasPin is isPinned, and of data sections too.
func hasPin(name string) bool {
	_, isSection := dataSections[name]
	return isSection || isPinned(name)
}

// lockPinDir makes the pin directory and takes it for this process.
func lockPinDir(dir string) (*os.File, error) {
	if err := checkBPFFS(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make pin directory: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open pin directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("pin directory %s: %w by another shuntd; give each its own --pin-dir", dir, ErrInUse)
		}
		return nil, fmt.Errorf("lock pin directory %s: %w", dir, err)
	}
	return f, nil
}

func checkBPFFS(dir string) error {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	if err == nil && uint32(st.Type) == bpffsMagic {
		return nil
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	return fmt.Errorf("%w at %s; mount one with: mount -t bpf bpf /sys/fs/bpf", ErrNoBPFFS, dir)
}

// pinName returns the name under which the object's map is pinned.
func pinName(name string) string {
	if pin, ok := dataSections[name]; ok {
		return pin
	}
	return name
}

// carriedPin returns the name of the pin of a map of that layout whose place another one has.
func carriedPin(name string, layout uint32) string {
	return carriedPrefix + name + layoutInfix + strconv.FormatUint(uint64(layout), 10)
}

// parseCarriedPin is the inverse of carriedPin.
func parseCarriedPin(pin string) (name string, layout uint32, ok bool) {
	rest, ok := strings.CutPrefix(pin, carriedPrefix)
	at := strings.LastIndex(rest, layoutInfix)
	if !ok || at < 0 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(rest[at+len(layoutInfix):], 10, 32)
	return rest[:at], uint32(n), err == nil
}

// pinned are the maps pinned in a directory, and what is done to their pins. A step
// that is taken twice is as good as once: any of them may be the last before a crash.
type pinned struct {
	dir   string
	names map[string]bool // pins of maps
	links int
	// carried are the layouts of the maps that are pinned as carried, by their names.
	carried map[string]uint32
}

// knownPins are the names under which the object's maps are pinned.
func knownPins(spec *ebpf.CollectionSpec) map[string]bool {
	known := map[string]bool{}
	for name := range spec.Maps {
		if hasPin(name) {
			known[pinName(name)] = true
		}
	}
	return known
}

// readPins reads what is pinned; foreign pins are an error.
func readPins(dir string, spec *ebpf.CollectionSpec) (*pinned, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	known := knownPins(spec)
	p := &pinned{dir: dir, names: map[string]bool{}, carried: map[string]uint32{}}
	for _, entry := range entries {
		pin := entry.Name()
		name, layout, isCarried := parseCarriedPin(pin)
		switch next, isNext := strings.CutPrefix(pin, nextPrefix); {
		case strings.HasPrefix(pin, linkPrefix):
			p.links++
			continue
		case isCarried && known[name]:
			p.carried[name] = layout
		case !known[pin] && (!isNext || !known[next]):
			return nil, fmt.Errorf("%w: %s; remove it or give another --pin-dir", ErrForeign, p.path(pin))
		}
		p.names[pin] = true
	}
	return p, nil
}

func (p *pinned) path(pin string) string { return filepath.Join(p.dir, pin) }

// open opens the map of the pin, which must be there.
func (p *pinned) open(pin string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(p.path(pin), nil)
	if err != nil {
		return nil, fmt.Errorf("open pinned map %s: %w", p.path(pin), err)
	}
	return m, nil
}

// pin pins the map under one more name.
func (p *pinned) pin(m *ebpf.Map, pin string) error {
	again, err := m.Clone() // a handle that knows of a pin of its own would move that
	if err != nil {
		return fmt.Errorf("open map %s again: %w", m, err)
	}
	defer again.Close()
	if err := again.Pin(p.path(pin)); err != nil {
		return fmt.Errorf("pin map %s: %w", p.path(pin), err)
	}
	p.names[pin] = true
	return nil
}

func (p *pinned) remove(pin string) error {
	if err := os.Remove(p.path(pin)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pin: %w", err)
	}
	delete(p.names, pin)
	if name, _, ok := parseCarriedPin(pin); ok {
		delete(p.carried, name)
	}
	return nil
}

// setAside pins next as what is to have the name's place, and old, which has it, as
// carried. Nothing has changed until promote; what was begun before is taken away.
func (p *pinned) setAside(name string, layout uint32, next, old *ebpf.Map) error {
	if err := p.remove(nextPrefix + name); err != nil {
		return err
	}
	if err := p.pin(next, nextPrefix+name); err != nil {
		return err
	}
	if err := p.pin(old, carriedPin(name, layout)); err != nil {
		return err
	}
	p.carried[name] = layout
	return nil
}

// promote gives the map that setAside has pinned the name's place.
func (p *pinned) promote(name string) error {
	if !p.names[nextPrefix+name] {
		return nil
	}
	if err := os.Rename(p.path(nextPrefix+name), p.path(name)); err != nil {
		return fmt.Errorf("put the new map in its place: %w", err)
	}
	delete(p.names, nextPrefix+name)
	p.names[name] = true
	return nil
}

// isSetAside says whether the map that is pinned as carried has the name's place still.
func (p *pinned) isSetAside(name string) (bool, error) {
	layout, ok := p.carried[name]
	if !ok || !p.names[name] {
		return false, nil
	}
	var ids [2]ebpf.MapID
	for i, pin := range []string{name, carriedPin(name, layout)} {
		m, err := p.open(pin)
		if err != nil {
			return false, err
		}
		info, err := m.Info()
		m.Close()
		if err != nil {
			return false, fmt.Errorf("look at pinned map %s: %w", p.path(pin), err)
		}
		ids[i], _ = info.ID()
	}
	return ids[0] == ids[1], nil
}

// undo takes away what setAside has pinned for the name, if promote has not been.
func (p *pinned) undo(name string) error {
	errs := []error{p.remove(nextPrefix + name)}
	waits, err := p.isSetAside(name)
	if waits {
		errs = append(errs, p.remove(carriedPin(name, p.carried[name])))
	}
	return errors.Join(append(errs, err)...)
}

// demote undoes setAside, and promote too.
func (p *pinned) demote(name string) error {
	layout, ok := p.carried[name]
	waits, err := p.isSetAside(name)
	if err != nil || !ok || waits {
		return errors.Join(err, p.undo(name))
	}
	if err := os.Rename(p.path(carriedPin(name, layout)), p.path(name)); err != nil {
		return fmt.Errorf("put the map of before back: %w", err)
	}
	delete(p.names, carriedPin(name, layout))
	delete(p.carried, name)
	return nil
}

// resume ends what an earlier process had begun to change in the pins, of maps of this
// layout: both maps are pinned, or nothing has been changed.
func (p *pinned) resume(names []string) error {
	for _, name := range names {
		waits, err := p.isSetAside(name)
		if err != nil {
			return err
		}
		isAlone := false // counters are nothing without their table
		if table := tableOf[name]; table != "" {
			_, isCarried := p.carried[table]
			isAlone = !isCarried
		}
		switch layout, isCarried := p.carried[name]; {
		case waits && p.names[nextPrefix+name] && !isAlone:
			err = p.promote(name)
		case isCarried && isAlone:
			err = errors.Join(p.undo(name), p.remove(carriedPin(name, layout)))
		default:
			err = p.undo(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
