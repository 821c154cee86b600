package bpftest

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// requireEnv turns a skip for want of rights into a failure.
const requireEnv = "REQUIRE_PRIVILEGED"

const bpffsRoot = "/sys/fs/bpf"

// Privileged skips the test unless the process may load programs and make
// network namespaces; with REQUIRE_PRIVILEGED=1 it fails the test instead.
func Privileged(t testing.TB) {
	t.Helper()
	effective, err := effectiveCapabilities()
	if err != nil {
		t.Fatal(err)
	}
	// CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON.
	const needed = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_ADMIN
	switch {
	case effective&needed == needed:
	case os.Getenv(requireEnv) == "1":
		t.Fatalf("%s=1, but CAP_NET_ADMIN or CAP_SYS_ADMIN is missing: run the tests as root", requireEnv)
	default:
		t.Skip("needs root: CAP_NET_ADMIN or CAP_SYS_ADMIN is missing")
	}
}

func effectiveCapabilities() (uint64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, found := strings.CutPrefix(lines.Text(), "CapEff:"); found {
			return strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		}
	}
	return 0, fmt.Errorf("%s has no CapEff line", f.Name())
}

// PinDir returns the path of a folder, not made yet, on the BPF file system,
// which is mounted where it is missing. It is removed at the end of the test.
func PinDir(t testing.TB) string {
	t.Helper()
	parent := makePinFolder(t)
	t.Cleanup(func() {
		if err := os.RemoveAll(parent); err != nil {
			t.Errorf("remove pins: %v", err)
		}
	})
	return filepath.Join(parent, "pins")
}

// makePinFolder makes a folder on the BPF file system, which the caller removes.
func makePinFolder(t testing.TB) string {
	t.Helper()
	Privileged(t)
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffsRoot, &fs); err != nil {
		t.Fatalf("look at %s: %v", bpffsRoot, err)
	}
	if uint32(fs.Type) != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", bpffsRoot, "bpf", 0, "mode=0700"); err != nil {
			t.Fatalf("mount the BPF file system at %s: %v", bpffsRoot, err)
		}
	}
	folder, err := os.MkdirTemp(bpffsRoot, "shunt-bpftest-")
	if err != nil {
		t.Fatal(err)
	}
	return folder
}
