package directortest_test

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/director/directortest"
)

func TestBpffsIsRemovedWithItsPins(t *testing.T) {
	var dir string
	t.Run("use", func(t *testing.T) {
		dir = directortest.Bpffs(t)
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := m.Pin(filepath.Join(dir, "sub", "map")); err != nil {
			t.Fatal(err)
		}
	})
	if dir == "" {
		t.Skip("needs root, as TestBpffsIsRemovedWithItsPins/use said")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// Running as an ordinary user must skip, and fail where rights are required.
func TestPrivilegedWithoutRights(t *testing.T) {
	directortest.Privileged(t) // to drop rights, one needs them
	n, err := directortest.NewNamespace("test")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	program := selfCopy(t)
	for require, wantFail := range map[string]bool{"0": false, "1": true} {
		cmd := n.Command(t.Context(), program, "-test.run=^TestLabUpload$", "-test.v")
		cmd.Env = append(os.Environ(), directortest.RequireEnv+"="+require)
		cmd.Dir = "/"
		cmd.SysProcAttr = nobody()
		out, err := cmd.CombinedOutput()
		if (err != nil) != wantFail {
			t.Errorf("%s=%s: %v\n%s", directortest.RequireEnv, require, err, out)
		}
	}
}

// nobody runs a process without any capability.
func nobody() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

// selfCopy puts the running test binary where another user can execute it.
func selfCopy(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "shunt-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(dir, "test")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
