package labtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstallLinks: with IPVSADM=1 make install makes shunt ipvsadm, and never in the
// place of another one.
func TestInstallLinks(t *testing.T) {
	there := t.TempDir()
	install := func(more ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "make", append([]string{"-s", "install", "DESTDIR=" + there, "PREFIX=/usr", "VERSION=v1.2.3"}, more...)...)
		cmd.Dir = root
		return cmd.CombinedOutput()
	}
	names := []string{"ipvsadm", "ipvsadm-save", "ipvsadm-restore"}
	other := filepath.Join(there, "usr/sbin", names[2])
	writeFile(t, other, "#!/bin/sh\n")
	text, err := install("IPVSADM=1")
	if err == nil || !strings.Contains(string(text), other+" is there and not Shunt's") {
		t.Errorf("beside another ipvsadm-restore: %v\n%s", err, text)
	}
	if all := files(t, there); len(all) != 1 {
		t.Errorf("what was refused laid down %q", all)
	}
	ok(t, os.Remove(other))

	if text, err := install(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(there, "usr/sbin", name)); err == nil {
			t.Errorf("%s is laid down unasked", name)
		}
	}
	for range 2 { // over its own too
		if text, err := install("IPVSADM=1"); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	for _, name := range names {
		target, err := os.Readlink(filepath.Join(there, "usr/sbin", name))
		if err != nil || target != "../bin/shunt" {
			t.Errorf("%s leads to %q, %v", name, target, err)
		}
	}
	if got := output(t, there, filepath.Join(there, "usr/sbin/ipvsadm"), "-v"); !strings.HasPrefix(got, "ipvsadm v1.31 ") {
		t.Errorf("the installed ipvsadm -v says %q", got)
	}
	// What ldirectord's unit mounts is where this installs.
	text, err = os.ReadFile(filepath.Join(there, "usr/share/doc/shunt/ldirectord.conf"))
	if err != nil || !strings.Contains(string(text), "\nBindReadOnlyPaths=/usr/bin/shunt:/usr/sbin/ipvsadm\n") {
		t.Errorf("ldirectord.conf: %v\n%s", err, text)
	}
}

// files are all under a folder.
func files(t *testing.T, folder string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			all = append(all, path)
		}
		return err
	})
	ok(t, err)
	return all
}
