package decap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// DefaultPinDir is where the agent's pins are.
const DefaultPinDir = "/sys/fs/bpf/shunt-agent"

const (
	bpffsMagic = 0xcafe4a11 // BPF_FS_MAGIC, kernel: include/uapi/linux/magic.h

	linkPrefix  = "link_" // and the interface's index: names may have dots, pins may not
	pinCounters = "counters"
)

// pins are what is pinned in a directory: links hold the programs, and those their
// maps. The counters have a pin of their own, so that the next program goes on with them.
type pins struct {
	dir      string
	lock     *os.File
	links    []int // indices of interfaces
	counters bool
}

// lockPins makes the directory where it is missing and takes it for this process.
func lockPins(dir string) (*pins, error) {
	if err := checkBPFFS(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make pin directory: %w", err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open pin directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("pin directory %s: %w by another shunt-agent", dir, ErrInUse)
		}
		return nil, fmt.Errorf("lock pin directory %s: %w", dir, err)
	}
	p, err := readPins(dir)
	if err != nil {
		lock.Close()
		return nil, err
	}
	p.lock = lock
	return p, nil
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

// readPins reads what is pinned; what the agent does not pin is an error. A
// directory that is not there has nothing.
func readPins(dir string) (*pins, error) {
	p := &pins{dir: dir}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	for _, entry := range entries {
		digits, isLink := strings.CutPrefix(entry.Name(), linkPrefix)
		index, err := strconv.Atoi(digits)
		switch {
		case isLink && err == nil && index > 0:
			p.links = append(p.links, index)
		case entry.Name() == pinCounters:
			p.counters = true
		default:
			return nil, fmt.Errorf("%w: %s; remove it or give another --pin-dir", ErrForeign, filepath.Join(dir, entry.Name()))
		}
	}
	slices.Sort(p.links)
	return p, nil
}

func (p *pins) linkPath(index int) string {
	return filepath.Join(p.dir, linkPrefix+strconv.Itoa(index))
}

func (p *pins) countersPath() string { return filepath.Join(p.dir, pinCounters) }

// openCounters opens the pinned counters; nil: there are none.
func (p *pins) openCounters() (*ebpf.Map, error) {
	if !p.counters {
		return nil, nil
	}
	m, err := ebpf.LoadPinnedMap(p.countersPath(), nil)
	if err != nil {
		return nil, fmt.Errorf("open the pinned counters: %w", err)
	}
	return m, nil
}

// keepCounters pins the program's counters where others or none are pinned.
func (p *pins) keepCounters(program *Program) error {
	if program.goesOn {
		return nil
	}
	if err := os.Remove(p.countersPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the counters of another version: %w", err)
	}
	if err := program.counters.Pin(p.countersPath()); err != nil {
		return fmt.Errorf("pin the counters: %w", err)
	}
	return nil
}

// close lets go of the directory, and removes it if it is empty.
func (p *pins) close() error {
	_ = os.Remove(p.dir)
	return p.lock.Close()
}
