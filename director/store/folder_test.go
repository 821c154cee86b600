package store

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// The test binary is its own second process: with childEnv set it does what that
// says in the folder given, instead of running tests.
const childEnv = "SHUNT_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "append":
		appendForEver(os.Args[1])
	case "hold":
		hold(os.Args[1])
	}
	os.Exit(1)
}

// child starts the test binary as another process in the role.
func child(t *testing.T, role, dir string) (*exec.Cmd, *bufio.Scanner, io.WriteCloser) {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(stdout), stdin
}

// hold opens the store, says so, and keeps it until its input ends.
func hold(dir string) {
	s, err := Open(background, dir, Options{})
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString("open\n")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		panic(err)
	}
	if err := s.Close(); err != nil {
		panic(err)
	}
	os.Exit(0)
}

func TestOneProcessAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	cmd, lines, stdin := child(t, "hold", dir)
	if !lines.Scan() || lines.Text() != "open" {
		t.Fatalf("the other process said %q", lines.Text())
	}
	_, err := Open(t.Context(), dir, Options{})
	if !errors.Is(err, errInUse) {
		t.Errorf("Open: %v, want errInUse", err)
	}
	wantError(t, err, dir, "in use by another process")
	if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir, Options{})
	if _, err := Open(t.Context(), dir, Options{}); !errors.Is(err, errInUse) {
		t.Errorf("a second Open in the process: %v, want errInUse", err)
	}
	mustGrow(t, s, 1)
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "state")
	mustGrow(t, mustOpen(t, dir, Options{}), 1)
	for path, want := range map[string]os.FileMode{
		filepath.Dir(dir): 0o700, dir: 0o700,
		filepath.Join(dir, fileNames[0]): 0o600, filepath.Join(dir, fileNames[1]): 0o600,
	} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %#o, want %#o", path, got, want)
		}
	}
}

func TestUnsafePlacesAreRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(dir, file string) error
		want  string
	}{
		{"a folder others write", func(dir, _ string) error { return os.Chmod(dir, 0o777) }, "others can write it"},
		{"a folder a group writes", func(dir, _ string) error { return os.Chmod(dir, 0o720) }, "others can write it (mode 0720)"},
		{"a file others write", func(_, file string) error { return os.Chmod(file, 0o602) }, "others can write it"},
		{"a folder that is a link", func(dir, _ string) error {
			return errors.Join(os.Rename(dir, dir+"-there"), os.Symlink(dir+"-there", dir))
		}, "symbolic link"},
		{"a file that is a link", func(_, file string) error {
			return errors.Join(os.Rename(file, file+"-there"), os.Symlink(file+"-there", file))
		}, "symbolic link"},
		{"a file that is a folder", func(_, file string) error {
			return errors.Join(os.Rename(file, file+"-there"), os.Mkdir(file, 0o700))
		}, "no regular file"},
		{"a folder that is a file", func(dir, _ string) error {
			return errors.Join(os.Rename(dir, dir+"-there"), os.WriteFile(dir, nil, 0o600))
		}, "no folder"},
		{"somebody else's file", func(_, file string) error {
			return os.Chown(file, 12345, 0)
		}, "belongs to user 12345"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range fileNames {
				var said messages
				dir := filepath.Join(t.TempDir(), "state")
				s := mustOpen(t, dir, said.options())
				mustGrow(t, s, 1)
				mustClose(t, s)
				err := c.spoil(dir, filepath.Join(dir, name))
				if errors.Is(err, fs.ErrPermission) {
					directortest.Privileged(t) // a file can be given away by root only
				}
				if err != nil {
					t.Fatal(err)
				}
				_, err = Open(t.Context(), dir, said.options())
				wantError(t, err, "open the store", dir, c.want)
				if len(said) > 0 {
					t.Errorf("repaired: %q", said)
				}
			}
		})
	}
}

func TestOthersMayRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mustGrow(t, mustOpen(t, dir, Options{}), 1)
}
