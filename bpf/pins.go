package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// abiVersion is ABI_VERSION of src/abi.h; a test compares them.
const abiVersion = 5

const (
	bpffsMagic = 0xcafe4a11 // BPF_FS_MAGIC, kernel: include/uapi/linux/magic.h
	linkPrefix = "link_"    // and the interface's index: names may have dots, pins may not
)

// isPinned says whether the object's map of that name is pinned under it.
func isPinned(name string) bool {
	return !strings.HasPrefix(name, ".") && !transientMaps[name]
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

// adopt opens the pinned maps, by their names in the object; nil if there are
// none. What an interrupted first start left behind is removed.
func (p *Plane) adopt(spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	pins := map[string]string{} // name of the pin to name in the object
	for name := range spec.Maps {
		if isPinned(name) {
			pins[name] = name
		}
	}
	for section, pin := range dataSections {
		pins[pin] = section
	}
	entries, err := os.ReadDir(p.pinDir)
	if err != nil {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	found := map[string]bool{}
	links := 0
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), linkPrefix) {
			links++
			continue
		}
		if _, ok := pins[entry.Name()]; !ok {
			return nil, fmt.Errorf("%w: %s; remove it or give another --pin-dir", ErrForeign,
				filepath.Join(p.pinDir, entry.Name()))
		}
		found[entry.Name()] = true
	}
	if !found[pinSettings] {
		if links > 0 {
			return nil, fmt.Errorf("%w: %s has links but no settings; remove all with: shuntd detach --pin-dir %s",
				ErrForeign, p.pinDir, p.pinDir)
		}
		return nil, removePins(p.pinDir, found)
	}
	return p.openPins(spec, pins)
}

func removePins(dir string, names map[string]bool) error {
	for name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove what an interrupted start left: %w", err)
		}
	}
	return nil
}

func (p *Plane) openPins(spec *ebpf.CollectionSpec, pins map[string]string) (_ map[string]*ebpf.Map, err error) {
	maps := map[string]*ebpf.Map{}
	defer func() {
		if err != nil {
			closeAll(maps)
		}
	}()
	for pin, name := range pins {
		path := filepath.Join(p.pinDir, pin)
		m, err := ebpf.LoadPinnedMap(path, nil)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, p.layoutError(fmt.Sprintf("%s is missing", path))
		}
		if err != nil {
			return nil, fmt.Errorf("open pinned map %s: %w", path, err)
		}
		maps[name] = m
		if want := spec.Maps[name]; m.Type() != want.Type || m.KeySize() != want.KeySize || m.ValueSize() != want.ValueSize {
			return nil, p.layoutError(fmt.Sprintf("%s is %v %d→%d, want %v %d→%d", path, m.Type(), m.KeySize(), m.ValueSize(),
				want.Type, want.KeySize, want.ValueSize))
		}
	}
	var settings KernelSettings
	if err := maps[".data.settings"].Lookup(uint32(0), &settings); err != nil {
		return nil, fmt.Errorf("read pinned settings: %w", err)
	}
	if settings.AbiVersion != abiVersion {
		return nil, p.layoutError(fmt.Sprintf("layout %d, this program's is %d", settings.AbiVersion, abiVersion))
	}
	return maps, nil
}

// layoutError says what does not fit and the command that starts anew.
func (p *Plane) layoutError(what string) error {
	return fmt.Errorf("pinned maps in %s have %w: %s; its connections can only be dropped: shuntd detach --pin-dir %s",
		p.pinDir, ErrLayout, what, p.pinDir)
}
