package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestAwaitDaemon holds how long ipvsadm's programs wait for a daemon that is being
// restarted, and that they do for nothing else.
func TestAwaitDaemon(t *testing.T) {
	for _, tt := range []struct {
		name   string
		errs   []error // of the attempts; the last stands for those that follow
		calls  int
		waited time.Duration
	}{
		{"there", []error{nil}, 1, 0},
		{"comes back", []error{unix.ECONNREFUSED, unix.ENOENT, fs.ErrNotExist, nil}, 4, 3 * again},
		{"not permitted", []error{unix.EACCES}, 1, 0},
		{"not permitted at last", []error{unix.ECONNREFUSED, unix.EACCES}, 2, again},
		{"never", []error{unix.ECONNREFUSED}, int(patience / again), patience},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, began := 0, time.Now()
				awaitDaemon(t.Context(), func(context.Context) error {
					err := tt.errs[min(calls, len(tt.errs)-1)]
					calls++
					return err
				})
				if waited := time.Since(began); waited != tt.waited {
					t.Errorf("waited for %v, want %v", waited, tt.waited)
				}
				if calls < tt.calls || calls > tt.calls+1 {
					t.Errorf("%d attempts, want %d", calls, tt.calls)
				}
			})
		})
	}
}

func TestAwaitDaemonEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		awaitDaemon(ctx, func(context.Context) error { return unix.ENOENT })
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("waited for %v after its context", waited)
		}
	})
}

// TestDialer holds that what the kernel says of sockets is what awaitDaemon waits for.
func TestDialer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dial := dialer(path)
	if err := dial(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a socket: %v", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false) // as a daemon leaves it that is killed
	if err := dial(t.Context()); err != nil {
		t.Errorf("with one who listens: %v", err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := dial(t.Context()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("with the socket of one who is gone: %v", err)
	}
}
