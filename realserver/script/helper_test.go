package script_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver/script"
)

// asHelper, set in the environment, has the test's program be a helper: one that may be
// root if it is "root".
const asHelper = "SHUNT_TEST_HELPER"

func TestMain(m *testing.M) {
	if as := os.Getenv(asHelper); as != "" {
		if err := script.Serve(as == "root"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// help starts a helper, which ends with the test.
func help(t *testing.T, as string) (*script.Helper, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stderr = append(os.Environ(), asHelper+"="+as), os.Stderr
	h, err := script.StartHelper(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil && !t.Failed() {
			t.Error(err)
		}
	})
	return h, cmd
}

// By a helper a command does what it does without, and many run at a time.
func TestHelper(t *testing.T) {
	directortest.Privileged(t)
	h, _ := help(t, "root")
	own := strconv.Itoa(os.Geteuid())
	var all sync.WaitGroup
	for i := range 20 {
		path := write(t, `echo "$1"; exit `+strconv.Itoa(i))
		all.Go(func() {
			c := script.Command{Args: []string{path, "some words"}, User: own, Helper: h}
			if said, status, err := c.Run(t.Context()); said != "some words" || status != i || err != nil {
				t.Errorf("%q, %d, %v", said, status, err)
			}
		})
	}
	all.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	pid := t.TempDir() + "/pid"
	c := script.Command{Args: []string{write(t, `echo begun; echo $$ > `+pid+`; sleep 1000`)}, User: own, Helper: h}
	said, _, err := c.Run(ctx)
	if said != "begun" || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), c.Args[0]) {
		t.Errorf("one that has no end: %q, %v", said, err)
	}
	wantGone(t, pid)
	if err := os.Chmod(c.Args[0], 0o702); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "anyone may write") {
		t.Errorf("one that anyone may change: %v", err)
	}
	c = script.Command{Args: []string{"/no/such"}, User: own, Helper: h}
	if _, _, err := c.Run(t.Context()); !errors.Is(err, syscall.ENOENT) || strings.Count(err.Error(), "no such file") != 1 {
		t.Errorf("one that is not there: %v", err)
	}
	c = script.Command{Args: []string{"/bin/true"}, User: "no-such-user", Helper: h}
	if _, _, err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such-user") {
		t.Errorf("an unknown user: %v", err)
	}
}

// wantGone waits until the process that the file names has ended.
func wantGone(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); !errors.Is(unix.Kill(pid, 0), unix.ESRCH); time.Sleep(time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// A helper that may not be root runs commands of others, and none of root's.
func TestHelperIsNotRoot(t *testing.T) {
	directortest.Privileged(t)
	h, _ := help(t, "any")
	for user, want := range map[string]string{
		"nobody": "65534",
		"root":   "no command was root's",
		"0":      "no command was root's",
	} {
		c := script.Command{Args: []string{"/usr/bin/id", "-u"}, User: user, Helper: h}
		said, _, err := c.Run(t.Context())
		if err != nil {
			said = err.Error()
		}
		if !strings.Contains(said, want) {
			t.Errorf("as %s: %s, want %s", user, said, want)
		}
		if got := script.IsRoot(user); got == (user == "nobody") {
			t.Errorf("%s is root's: %t", user, got)
		}
	}
}

// What runs ends with the helper, and the helper with whoever started it; after that
// commands say so.
func TestHelperEnds(t *testing.T) {
	directortest.Privileged(t)
	for name, end := range map[string]func(*script.Helper, *exec.Cmd) error{
		"closed": func(h *script.Helper, _ *exec.Cmd) error { return h.Close() },
		"killed": func(_ *script.Helper, cmd *exec.Cmd) error { return cmd.Process.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			h, cmd := help(t, "root")
			if err := h.Err(); err != nil {
				t.Errorf("before its end: %v", err)
			}
			pid := t.TempDir() + "/pid"
			c := script.Command{Args: []string{write(t, `echo $$ > `+pid+`; exec sleep 1000`)}, User: strconv.Itoa(os.Geteuid()), Helper: h}
			ran := make(chan error)
			go func() {
				_, _, err := c.Run(t.Context())
				ran <- err
			}()
			for {
				if text, err := os.ReadFile(pid); err == nil && len(text) > 0 {
					break
				}
				select {
				case err := <-ran:
					t.Fatalf("it did not begin: %v", err)
				case <-time.After(time.Millisecond):
				}
			}
			if err := end(h, cmd); err != nil {
				t.Error(err)
			}
			if err := <-ran; err == nil {
				t.Error("it ran to its end")
			}
			if name == "closed" {
				wantGone(t, pid)
			} else {
				endProcess(t, pid)
				var exit *exec.ExitError
				if err := h.Close(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Errorf("closed: %v", err)
				}
			}
			if _, _, err := c.Run(t.Context()); !errors.Is(err, script.ErrNoHelper) || !errors.Is(h.Err(), script.ErrNoHelper) {
				t.Errorf("after its end: %v, %v", err, h.Err())
			}
		})
	}
}

// One that does not begin is an error.
func TestNoHelper(t *testing.T) {
	if h, err := script.StartHelper(exec.Command("/bin/false")); err == nil || !strings.Contains(err.Error(), "it does not begin") {
		t.Errorf("%v, %v", h, err)
	}
	if h, err := script.StartHelper(exec.Command("/nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, %v", h, err)
	}
}

// endProcess ends what a killed helper left.
func endProcess(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}
