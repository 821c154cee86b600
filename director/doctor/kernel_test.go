package doctor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/doctor"
)

// The kernel's version, JIT and clock cannot be changed here: a tree stands in.
func TestKernel(t *testing.T) {
	tests := []struct {
		release  string
		severity doctor.Severity
		words    string
	}{
		{"5.8.0", doctor.Error, "lacks XDP by bpf_link (since 5.9), programs of type syscall (since 5.14), managed neighbours (since 5.16), bpf_loop (since 5.17), xdp.frags (since 5.18)"},
		{"5.17.3", doctor.Error, "kernel 5.17.3 lacks xdp.frags (since 5.18)"},
		{"5.19.0-1-amd64", doctor.Warning, "kernel 5.19.0-1-amd64 is older than 6.1"},
		{"none", doctor.Unknown, `read kernel version "none"`},
	}
	for _, tt := range tests {
		t.Run(tt.release, func(t *testing.T) {
			root := newTree(t, map[string]string{"proc/sys/kernel/osrelease": tt.release})
			single(t, of(root.here(t, doctor.Host{}), "kernel", ""), "kernel", tt.severity, tt.words)
		})
	}
	for _, release := range []string{"6.1.0-18-amd64", "6.18.44", "7.0"} {
		root := newTree(t, map[string]string{"proc/sys/kernel/osrelease": release})
		if found := of(root.here(t, doctor.Host{}), "kernel", ""); len(found) > 0 {
			t.Errorf("kernel %s: %+v", release, found)
		}
	}
}

// TestKernelTableIsTheREADMEs sees that a kernel just too old for a row of the
// README's table is told of that row.
func TestKernelTableIsTheREADMEs(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## Kernel\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		var major, minor int
		if len(cells) != 5 {
			continue
		}
		if _, err := fmt.Sscanf(strings.TrimSpace(cells[2]), "%d.%d", &major, &minor); err != nil {
			continue
		}
		rows++
		what := strings.ReplaceAll(strings.TrimSpace(cells[1]), "`", "")
		what = what[:strings.IndexAny(what+":", ":,")]
		root := newTree(t, map[string]string{"proc/sys/kernel/osrelease": fmt.Sprintf("%d.%d.1", major, minor-1)})
		want := fmt.Sprintf("%s (since %d.%d)", what, major, minor)
		if found := of(root.here(t, doctor.Host{}), "kernel", ""); len(found) != 1 || !strings.Contains(found[0].What, want) {
			t.Errorf("README has %q; found %+v", want, found)
		}
	}
	if rows < 5 {
		t.Errorf("%d rows with a version in the README's table, want at least 5", rows)
	}
}

func TestJIT(t *testing.T) {
	tests := []struct {
		name, enable, harden string
		severity             doctor.Severity
		words                string
	}{
		{"off", "0", "0", doctor.Warning, "the BPF JIT is off"},
		{"debug", "2", "1", doctor.Info, "debug mode"},
		{"hardened", "1", "2", doctor.Info, "hardened for root's programs too"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := newTree(t, map[string]string{"proc/sys/net/core/bpf_jit_enable": tt.enable, "proc/sys/net/core/bpf_jit_harden": tt.harden})
			f := single(t, of(root.here(t, doctor.Host{}), "jit", ""), "jit", tt.severity, tt.words)
			root.run(t, f.Fix)
			if found := of(root.here(t, doctor.Host{}), "jit", ""); len(found) > 0 {
				t.Errorf("after %s: %+v", f.Fix, found)
			}
		})
	}
	t.Run("seen_by_a_program", func(t *testing.T) {
		// Another network namespace does not show the settings.
		b := newBed(t, directortest.OneArmed)
		b.wantsNone("jit", "")
	})
}

func TestClock(t *testing.T) {
	const folder = "sys/devices/system/clocksource/clocksource0/"
	root := newTree(t, map[string]string{folder + "current_clocksource": "hpet", folder + "available_clocksource": "tsc hpet acpi_pm"})
	f := single(t, of(root.here(t, doctor.Host{}), "clock", ""), "clock", doctor.Warning, "the clock source is hpet")
	root.run(t, f.Fix)
	if found := of(root.here(t, doctor.Host{}), "clock", ""); len(found) > 0 {
		t.Errorf("after %s: %+v", f.Fix, found)
	}
	root.write(t, folder+"current_clocksource", "acpi_pm")
	root.write(t, folder+"available_clocksource", "hpet acpi_pm")
	if f := single(t, of(root.here(t, doctor.Host{}), "clock", ""), "clock", doctor.Warning, "found no fast one"); f.Fix != "" {
		t.Errorf("fix %q: there is no better clock to choose", f.Fix)
	}
}

func TestBpffs(t *testing.T) {
	directortest.Privileged(t)
	n, err := directortest.NewNamespace("host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	look := func(h doctor.Host) []doctor.Finding { return of(inspectIn(t, n, h), "bpffs", "") }

	for _, folder := range []string{"exists", "missing/by/far"} {
		t.Run(folder, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), folder)
			words := "does not exist"
			if folder == "exists" {
				words = "is not on a BPF file system"
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			h := doctor.Host{PinDir: filepath.Join(dir, "shunt")}
			f := single(t, look(h), "bpffs", doctor.Error, words)
			t.Cleanup(func() {
				if err := unix.Unmount(h.PinDir, unix.MNT_DETACH); err != nil {
					t.Errorf("unmount %s: %v", h.PinDir, err)
				}
			})
			shell(t, n, f.Fix)
			if found := look(h); len(found) > 0 {
				t.Errorf("after %s: %+v", f.Fix, found)
			}
		})
	}
	t.Run("never_over_what_others_use", func(t *testing.T) {
		full := t.TempDir()
		if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		deep := filepath.Join(directortest.Bpffs(t), "a", "b")
		for pins, want := range map[string]string{
			full:        "shuntd --pin-dir /sys/fs/bpf/shunt",
			"/sys/fs":   "shuntd --pin-dir /sys/fs/bpf/shunt",
			"/sys/fs/x": "shuntd --pin-dir /sys/fs/bpf/shunt",
			deep:        "mkdir -p " + filepath.Dir(deep),
		} {
			if f := single(t, look(doctor.Host{PinDir: pins}), "bpffs", doctor.Error, ""); f.Fix != want {
				t.Errorf("%s: fix %q, want %q", pins, f.Fix, want)
			}
		}
	})
	t.Run("open_to_others", func(t *testing.T) {
		h := doctor.Host{PinDir: directortest.Bpffs(t)}
		if err := os.Chmod(h.PinDir, 0o755); err != nil {
			t.Fatal(err)
		}
		f := single(t, look(h), "bpffs", doctor.Warning, "has mode 0755")
		shell(t, n, f.Fix)
		if found := look(h); len(found) > 0 {
			t.Errorf("after %s: %+v", f.Fix, found)
		}
	})
}

// Limits of memory are those of the whole test, and the machine's memory is what
// it is: a tree stands in.
func TestMemory(t *testing.T) {
	const need = "the connection tables need 243.2 MiB"
	base := map[string]string{
		"proc/sys/kernel/osrelease": "6.1.0",
		"proc/meminfo":              "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB",
		"proc/thread-self/cgroup":   "0::/system.slice/shuntd.service",
	}
	tests := []struct {
		name     string
		files    map[string]string
		severity doctor.Severity
		subject  string
		words    string
		fix      string
	}{
		{"cgroup", map[string]string{"sys/fs/cgroup/system.slice/shuntd.service/memory.max": "104857600"}, doctor.Error, "/system.slice/shuntd.service", "may have 100.0 MiB of memory; " + need, "systemctl set-property shuntd.service MemoryMax=487M"},
		{"cgroup_tight", map[string]string{"sys/fs/cgroup/system.slice/shuntd.service/memory.max": "262144000"}, doctor.Warning, "/system.slice/shuntd.service", "may have 250.0 MiB", "systemctl set-property shuntd.service MemoryMax=487M"},
		{"cgroup_parent", map[string]string{"sys/fs/cgroup/system.slice/memory.max": "104857600", "sys/fs/cgroup/system.slice/shuntd.service/memory.max": "max"}, doctor.Error, "/system.slice", need, "systemctl set-property system.slice MemoryMax=487M"},
		{"cgroup_v1", map[string]string{"proc/thread-self/cgroup": "4:memory:/shuntd\n0::/", "sys/fs/cgroup/memory/shuntd/memory.limit_in_bytes": "104857600"}, doctor.Error, "/shuntd", need, "systemctl set-property shuntd.service MemoryMax=487M"},
		{"host", map[string]string{"proc/meminfo": "MemAvailable: 100000 kB"}, doctor.Error, "", need + ", and 97.7 MiB are available", "shunt detach; shuntd --max-connections 524288"},
		{"memlock", map[string]string{"proc/sys/kernel/osrelease": "5.10.0", "proc/thread-self/limits": "Limit Soft Hard Units\nMax locked memory         65536                65536                bytes"}, doctor.Error, "", "RLIMIT_MEMLOCK is 0.1 MiB; " + need, "ulimit -l unlimited"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := newTree(t, base)
			h := doctor.Host{PinDir: filepath.Join(t.TempDir(), "none"), MaxConnections4: 1 << 20, MaxConnections6: 1 << 18}
			if found := of(root.here(t, h), "memory", ""); len(found) > 0 {
				t.Fatalf("before: %+v", found)
			}
			for name, text := range tt.files {
				root.write(t, name, text)
			}
			f := single(t, of(root.here(t, h), "memory", ""), "memory", tt.severity, tt.words)
			if f.Subject != tt.subject || !strings.HasPrefix(f.Fix, tt.fix) {
				t.Errorf("subject %q, fix %q: want %q, %q", f.Subject, f.Fix, tt.subject, tt.fix)
			}
			h.MaxConnections4, h.MaxConnections6 = 1000, 250
			if found := of(root.here(t, h), "memory", ""); len(found) > 0 && tt.name != "memlock" {
				t.Errorf("with small tables: %+v", found)
			}
		})
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "162 bytes an IPv4 connection and 325 bytes an IPv6 connection"; !strings.Contains(strings.ReplaceAll(string(readme), "\n", " "), want) {
		t.Errorf("the README does not say %q, by which the doctor counts", want)
	}
}
