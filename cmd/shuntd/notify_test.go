package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager is a service manager's end of sd_notify.
func manager(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute)) // a test that hangs says where
		buffer := make([]byte, 4096)
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return string(buffer[:n])
	}
}

func TestNotify(t *testing.T) {
	next := manager(t)
	n := notifier{slog.New(slog.DiscardHandler)}
	n.ready("2 services")
	if got := next(); got != "READY=1\nSTATUS=2 services" {
		t.Errorf("ready sends %q", got)
	}
	n.reloading()
	if got := next(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("reloading sends %q", got)
	}
	n.stopping()
	if got := next(); got != "STOPPING=1" {
		t.Errorf("stopping sends %q", got)
	}
}

func TestWatchdog(t *testing.T) {
	next := manager(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	ctx, cancel := context.WithCancel(t.Context())
	var sick atomic.Bool
	asked := make(chan struct{}, 1) // lossy: that it was asked, not how often
	done := make(chan error, 1)
	go func() {
		done <- notifier{slog.New(slog.DiscardHandler)}.watch(ctx, func() error {
			select {
			case asked <- struct{}{}:
			default:
			}
			if sick.Load() {
				return errors.New("stuck")
			}
			return nil
		})
	}()
	if got := next(); got != "WATCHDOG=1" {
		t.Fatalf("a healthy daemon sends %q", got)
	}
	sick.Store(true)
	<-asked // may be from before
	<-asked
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}

	t.Setenv("WATCHDOG_USEC", "")
	if err := (notifier{slog.New(slog.DiscardHandler)}).watch(t.Context(), nil); err != nil {
		t.Errorf("without a watchdog: %v", err)
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if err := (notifier{slog.New(slog.DiscardHandler)}).watch(t.Context(), nil); err == nil {
		t.Error("a watchdog interval that is no number is not refused")
	}
}
