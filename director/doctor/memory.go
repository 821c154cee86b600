package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// What a connection costs, with the two keys of nat (README, "Where state
// lives").
const (
	bytesPerConnection4 = 162
	bytesPerConnection6 = 325
)

// tableBytes is what the connection tables occupy.
func (h Host) tableBytes() uint64 {
	return h.MaxConnections4*bytesPerConnection4 + h.MaxConnections6*bytesPerConnection6
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// bpffs is where the kernel's documentation and systemd mount the BPF file
// system.
const bpffs = "/sys/fs/bpf"

// mountBpffs is the command that makes pins in the folder possible. It mounts over
// the pin folder itself and never over what others use: not what it is in, not
// what has content, and not a BPF file system that is there.
func mountBpffs(pins string) string {
	if strings.HasPrefix(pins, bpffs+"/") {
		var system unix.Statfs_t
		if unix.Statfs(bpffs, &system) == nil && uint32(system.Type) == unix.BPF_FS_MAGIC {
			return "mkdir -p " + quote(filepath.Dir(pins))
		}
		return "mount -t bpf bpf " + bpffs
	}
	if entries, err := os.ReadDir(pins); pins == bpffs || strings.HasPrefix(pins, "/sys/") || err == nil && len(entries) > 0 {
		return "shuntd --pin-dir " + bpffs + "/shunt"
	}
	return "mkdir -p " + quote(pins) + " && mount -t bpf bpf " + quote(pins) + " && chmod 0700 " + quote(pins)
}

// checkBpffs looks at the file system that pins need, and at who may touch them.
func checkBpffs(i *inspection, r *report) {
	dir := i.PinDir
	pinned := true
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		dir, pinned = filepath.Dir(dir), false // shuntd makes it
	}
	var system unix.Statfs_t
	if err := unix.Statfs(dir, &system); errors.Is(err, unix.ENOENT) {
		r.add(Error, dir, dir+" does not exist", "shuntd keeps its programs and maps there: without, it does not start",
			mountBpffs(i.PinDir))
		return
	} else if err != nil {
		r.unknown(dir, fmt.Errorf("look at %s: %w", dir, err))
		return
	}
	if uint32(system.Type) != unix.BPF_FS_MAGIC {
		r.add(Error, dir, dir+" is not on a BPF file system", "programs and maps can be pinned on one only: without, shuntd does not start",
			mountBpffs(i.PinDir))
		return
	}
	if !pinned {
		return
	}
	info, err := os.Stat(dir)
	if err != nil {
		r.unknown(dir, err)
		return
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		r.add(Warning, dir, fmt.Sprintf("%s has mode %04o", dir, mode),
			"whoever can open the pins can read and change connections: only the daemon's user should", "chmod 0700 "+quote(dir))
	}
}

// checkMemory compares what the tables need with what the daemon may have.
func checkMemory(i *inspection, r *report) {
	i.checkMemlock(r)
	i.checkCgroup(r)
	if _, err := os.Stat(i.PinDir); err == nil {
		return // the tables are there: their memory is taken
	}
	proc, err := procfs.NewFS(i.path("proc"))
	if err != nil {
		r.unknown("", err)
		return
	}
	memory, err := proc.Meminfo()
	if err != nil {
		r.unknown("", err)
	} else if free := memory.MemAvailableBytes; free != nil && *free < i.tableBytes() {
		r.add(Error, "", fmt.Sprintf("the connection tables need %s, and %s are available", mebibytes(i.tableBytes()), mebibytes(*free)),
			"the tables' memory is taken at the start: without, shuntd does not start", fewer(i.MaxConnections4))
	}
}

// fewer is what to do about tables that are too large.
func fewer(connections uint64) string {
	return fmt.Sprintf("shunt detach; shuntd --max-connections %d # or set director.connections.max; half of what it is now", connections/2)
}

// checkMemlock looks at the limit that held for maps before Linux 5.11 (kernel
// commit d5299b67dd59 ("bpf: Memcg-based memory accounting for bpf maps")).
func (i *inspection) checkMemlock(r *report) {
	if have, _, err := i.release(); err != nil || !have.before(release{5, 11}) {
		return // checkKernel reports the error
	}
	text, err := i.read("proc/thread-self/limits")
	if err != nil {
		r.unknown("", err)
		return
	}
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, "Max locked memory")
		if !found {
			continue
		}
		limit, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
		if err == nil && limit < i.tableBytes() {
			r.add(Error, "", fmt.Sprintf("RLIMIT_MEMLOCK is %s; the connection tables need %s", mebibytes(limit), mebibytes(i.tableBytes())),
				"before Linux 5.11 maps count as locked memory: shuntd cannot make them", "ulimit -l unlimited")
		}
	}
}

// checkCgroup looks at the memory limits of the control groups this process is
// in: maps are charged to the group of the process that makes them.
func (i *inspection) checkCgroup(r *report) {
	text, err := i.read("proc/thread-self/cgroup")
	if missing(err) {
		return // a kernel without control groups
	}
	if err != nil {
		r.unknown("", err)
		return
	}
	for line := range strings.Lines(text) {
		// hierarchy:controllers:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		top, file := "sys/fs/cgroup", "memory.max"
		if parts[1] == "memory" {
			top, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if parts[0] != "0" {
			continue
		}
		for group := parts[2]; ; group = filepath.Dir(group) {
			limit, err := i.limit(filepath.Join(top, group, file))
			if err != nil {
				r.unknown(group, err)
			} else if limit < i.tableBytes()+i.tableBytes()/4 {
				r.add(limitSeverity(limit, i.tableBytes()), group,
					fmt.Sprintf("control group %s may have %s of memory; the connection tables need %s", group, mebibytes(limit), mebibytes(i.tableBytes())),
					"maps are charged to the daemon's control group: a limit without room for them and the daemon keeps it from starting, or has it killed", raise(group, i.tableBytes()))
			}
			if group == "/" || group == "." {
				break
			}
		}
	}
}

func limitSeverity(limit, need uint64) Severity {
	if limit < need {
		return Error
	}
	return Warning
}

// raise is the command that gives a unit twice what the tables need.
func raise(group string, need uint64) string {
	unit := filepath.Base(group)
	if !strings.HasSuffix(unit, ".service") && !strings.HasSuffix(unit, ".slice") {
		unit = "shuntd.service"
	}
	return fmt.Sprintf("systemctl set-property %s MemoryMax=%dM", quote(unit), 2*need>>20+1)
}

// limit reads a control group's memory limit; without one it is the largest
// number.
func (i *inspection) limit(file string) (uint64, error) {
	text, err := i.read(file)
	if missing(err) || text == "max" {
		return ^uint64(0), nil // no limit at this level, or the controller is off
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", i.path(file), err)
	}
	return n, nil
}
