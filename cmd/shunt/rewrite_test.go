package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
)

const (
	messy = "services:   []\n"
	tidy  = "services: []\n"
)

// formatted runs config fmt -w and returns what was wrong, in words.
func formatted(t *testing.T, name string) string {
	t.Helper()
	var stdout, stderr strings.Builder
	code := run(t.Context(), []string{"shunt", "config", "fmt", "-w", name}, streams{nil, &stdout, &stderr})
	if (code == exitOK) != (stderr.Len() == 0) || stdout.Len() > 0 {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
	}
	return stderr.String()
}

func writeFile(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(messy), 0o600); err != nil {
		t.Fatal(err)
	}
}

// contains fails unless the file has the text, and its folder no file more.
func contains(t *testing.T, name, want string, files int) {
	t.Helper()
	if text, err := os.ReadFile(name); err != nil || string(text) != want {
		t.Errorf("%s has %q, want %q; %v", name, text, want, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(name)); err != nil || len(entries) != files {
		t.Errorf("%v, want %d files; %v", entries, files, err)
	}
}

// TestRewrite_keeps_who_may_read: the daemon is one of them.
func TestRewrite_keeps_who_may_read(t *testing.T) {
	directortest.Privileged(t)
	name := filepath.Join(t.TempDir(), "shunt.yaml")
	writeFile(t, name)
	const attribute, value = "user.shunt", "kept"
	hasAttributes := unix.Setxattr(name, attribute, []byte(value), 0) == nil
	if err := os.Chown(name, 65534, 65533); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if text := formatted(t, name); text != "" {
		t.Fatal(text)
	}
	contains(t, name, tidy, 1)
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 65534 || owner.Gid != 65533 || info.Mode() != 0o640 {
		t.Errorf("owner %d, group %d, mode %v: want 65534, 65533 and 0640", owner.Uid, owner.Gid, info.Mode())
	}
	kept := make([]byte, 100)
	if n, err := unix.Getxattr(name, attribute, kept); hasAttributes && (err != nil || string(kept[:n]) != value) {
		t.Errorf("attribute %q, %v", kept, err)
	}
}

// TestRewrite_refuses_what_it_cannot_keep and writes nothing then.
func TestRewrite_refuses_what_it_cannot_keep(t *testing.T) {
	t.Run("hard_links", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "shunt.yaml")
		writeFile(t, name)
		if err := os.Link(name, name+".other"); err != nil {
			t.Fatal(err)
		}
		if text := formatted(t, name); !strings.Contains(text, "2 names (hard links)") {
			t.Errorf("stderr %q", text)
		}
		contains(t, name, messy, 2)
	})
	t.Run("an_owner", func(t *testing.T) {
		directortest.Privileged(t)
		name := filepath.Join(t.TempDir(), "shunt.yaml")
		writeFile(t, name)
		if err := os.Chown(name, 65534, 65533); err != nil {
			t.Fatal(err)
		}
		refused := make(chan error, 1) // one value, sent once
		go func() {
			runtime.LockOSThread() // the thread ends with its goroutine
			if err := dropChown(); err != nil {
				refused <- err
				return
			}
			refused <- rewrite(name, []byte(tidy))
		}()
		if err := <-refused; err == nil || err.Error() != "keep owner 65534 and group 65533: operation not permitted" {
			t.Errorf("error %v", err)
		}
		contains(t, name, messy, 1)
	})
}

// dropChown takes the right to give files away from this thread.
func dropChown() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_CHOWN
	return unix.Capset(&header, &data[0])
}

// TestRewrite_follows_links: the target is written, wherever it is.
func TestRewrite_follows_links(t *testing.T) {
	target, link := filepath.Join(t.TempDir(), "real.yaml"), filepath.Join(t.TempDir(), "link.yaml")
	writeFile(t, target)
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if text := formatted(t, link); text != "" {
		t.Fatal(text)
	}
	contains(t, target, tidy, 1)
	if to, err := os.Readlink(link); err != nil || to != target {
		t.Errorf("the link is %q, %v", to, err)
	}
}
