package script_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver/script"
)

// write makes a program of this user's own.
func write(t *testing.T, text string) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "shunt-script-") // t.TempDir's parent may be another's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	path := filepath.Join(folder, "command")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRun: what is said, the status, and what has no end are told apart. Checks by
// scripts (realserver/health) test the bounds and whom a program may belong to.
func TestRun(t *testing.T) {
	directortest.Privileged(t)
	own := strconv.Itoa(os.Geteuid())
	c := script.Command{Args: []string{write(t, `echo "$1"; exit 3`), "some words"}, User: own}
	if said, status, err := c.Run(t.Context()); said != "some words" || status != 3 || err != nil {
		t.Errorf("%q, %d, %v", said, status, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c = script.Command{Args: []string{write(t, `echo begun; sleep 1000`)}, User: own}
	if _, _, err := c.Run(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), c.Args[0]) {
		t.Errorf("one that has no end: %v", err)
	}
	if err := os.Chmod(c.Args[0], 0o702); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "anyone may write") {
		t.Errorf("one that anyone may change: %v", err)
	}
}
