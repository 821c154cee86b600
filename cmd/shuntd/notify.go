package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notifier tells the service manager how the daemon is (sd_notify(3)). Without
// one every call does nothing.
type notifier struct{ log *slog.Logger }

func (n notifier) send(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		n.log.Warn("service manager not notified", "state", state, "err", err)
	}
}

func (n notifier) ready(status string) { n.send(sd.SdNotifyReady + "\nSTATUS=" + status) }

func (n notifier) stopping() { n.send(sd.SdNotifyStopping) }

// reloading must be followed by ready. systemd wants to know when it began, to
// tell this reload's readiness from an older one.
func (n notifier) reloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		n.log.Warn("read the monotonic clock", "err", err)
		return
	}
	n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, now.Nano()/1000))
}

// watch feeds the manager's watchdog as long as the daemon is well, until the
// context ends. A daemon that is not well is restarted by the manager, which
// traffic does not notice.
func (n notifier) watch(ctx context.Context, well func() error) error {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read the service manager's watchdog settings: %w", err)
	}
	if interval == 0 {
		return nil
	}
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	for {
		if err := well(); err != nil {
			n.log.Error("the watchdog is not fed", "err", err)
		} else {
			n.send(sd.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
