package decap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// Running is an interface with a program of Start, and what it was told. The
// configuration is the attached program's own: after an interrupted Start it need
// not be the same everywhere.
type Running struct {
	Interface

	Config Config
	// IsGone: the interface does not exist any more, or is one of another network
	// namespace. Its name and mode are not known.
	IsGone bool
}

// State is what Start has left in the kernel.
type State struct {
	Interfaces []Running // by index; none: nothing is running
	Counts     []Count   // of all interfaces, since the first Start
}

// Read returns what is running by the pins in pinDir. Errors wrap ErrForeign or
// ErrVersion.
func Read(pinDir string) (State, error) {
	p, err := readPins(pinDir)
	if err != nil {
		return State{}, err
	}
	var s State
	for _, index := range p.links {
		r, err := readLink(p.linkPath(index))
		if err != nil {
			return State{}, err
		}
		s.Interfaces = append(s.Interfaces, r)
	}
	counters, err := p.openCounters()
	if err != nil || counters == nil {
		return s, err
	}
	defer counters.Close()
	if counters.MaxEntries() != uint32(len(Events)) {
		return State{}, fmt.Errorf("read the counters: %w", ErrVersion)
	}
	s.Counts, err = readCounts(counters)
	return s, err
}

// readLink reads what the program behind a pinned link does.
func readLink(path string) (r Running, err error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return r, fmt.Errorf("open pinned link %s: %w", path, err)
	}
	defer l.Close()
	program, err := programOf(l)
	if err != nil {
		return r, err
	}
	defer program.Close()
	if r.Config, err = configOf(program); err != nil {
		return r, fmt.Errorf("read the program of %s: %w", path, err)
	}
	r.Index = linkIndex(l)
	info, err := program.Info()
	if err != nil {
		return r, fmt.Errorf("look at the program of %s: %w", path, err)
	}
	id, _ := info.ID()
	r.IsGone = true
	if found, err := netlink.LinkByIndex(r.Index); err == nil && r.Index != 0 {
		if xdp := found.Attrs().Xdp; xdp != nil && xdp.ProgId == uint32(id) {
			r.IsGone, r.Name, r.Mode = false, found.Attrs().Name, Native
			if xdp.AttachMode == nl.XDP_ATTACHED_SKB {
				r.Mode = Generic
			}
		}
	}
	return r, nil
}

// configOf reads the configuration that a program was loaded with from its maps.
func configOf(program *ebpf.Program) (c Config, err error) {
	info, err := program.Info()
	if err != nil {
		return c, fmt.Errorf("look at the program: %w", err)
	}
	ids, _ := info.MapIDs()
	maps := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range maps {
			m.Close()
		}
	}()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return c, fmt.Errorf("open a map of the program: %w", err)
		}
		info, err := m.Info()
		if err != nil {
			m.Close()
			return c, fmt.Errorf("look at a map of the program: %w", err)
		}
		maps[info.Name] = m
	}
	if maps[mapConstants] == nil || maps[mapPrefixes] == nil {
		return c, ErrVersion
	}
	return readConfig(maps[mapConstants], maps[mapPrefixes])
}

// Stop takes off what Start has attached and removes the pins; it returns how many
// interfaces that were. Nothing to stop is no error. Errors wrap ErrInUse or
// ErrForeign, and then nothing is removed.
func Stop(pinDir string) (int, error) {
	if _, err := os.Stat(pinDir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	p, err := lockPins(pinDir)
	if err != nil {
		return 0, err
	}
	stopped := len(p.links)
	var errs []error
	for _, index := range p.links {
		errs = append(errs, p.removeLink(index))
	}
	if p.counters {
		errs = append(errs, os.Remove(p.countersPath()))
	}
	return stopped, errors.Join(append(errs, p.close())...)
}
