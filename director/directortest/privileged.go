package directortest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// RequireEnv names the environment variable that turns a skip for want of
// rights into a failure. CI sets it to 1, so that no test can be skipped unseen.
const RequireEnv = "REQUIRE_PRIVILEGED"

const bpffsRoot = "/sys/fs/bpf"

// Privileged skips the test unless the process may load BPF programs and make
// network namespaces. With REQUIRE_PRIVILEGED=1 it fails the test instead.
func Privileged(t testing.TB) {
	t.Helper()
	missing, err := missingCapabilities()
	switch {
	case err != nil:
		t.Fatal(err)
	case missing == nil:
	case os.Getenv(RequireEnv) == "1":
		t.Fatalf("%s=1, but %s missing: run the tests as root", RequireEnv, strings.Join(missing, ", "))
	default:
		t.Skipf("needs root: %s missing", strings.Join(missing, ", "))
	}
}

// missingCapabilities returns those capabilities the lab needs and the process
// has not. CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON.
func missingCapabilities() ([]string, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return nil, err
	}
	defer f.Close()

	lines := bufio.NewScanner(f)
	for lines.Scan() {
		text, found := strings.CutPrefix(lines.Text(), "CapEff:")
		if !found {
			continue
		}
		effective, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("effective capabilities in /proc/self/status: %w", err)
		}
		var missing []string
		for _, c := range []struct {
			bit  uint
			name string
		}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}} {
			if effective&(1<<c.bit) == 0 {
				missing = append(missing, c.name)
			}
		}
		return missing, nil
	}
	return nil, errors.Join(lines.Err(), errors.New("no CapEff line in /proc/self/status"))
}

// Bpffs returns a new folder on the BPF file system, mounting that at
// /sys/fs/bpf where it is missing. The folder and all pins in it are removed at
// the end of the test.
func Bpffs(t testing.TB) string {
	t.Helper()
	Privileged(t)
	if err := mountBpffs(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(bpffsRoot, "shunt-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove pins: %v", err)
		}
	})
	return dir
}

func mountBpffs() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffsRoot, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", bpffsRoot, err)
	}
	if uint32(fs.Type) == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", bpffsRoot, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount the BPF file system at %s: %w", bpffsRoot, err)
	}
	return nil
}
