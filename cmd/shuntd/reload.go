package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/event"
)

// hangups are the SIGHUPs the process gets, which by default would end it.
type hangups struct{ signals chan os.Signal }

func listenHangup() hangups {
	h := hangups{make(chan os.Signal, 1)} // more at once say the same
	signal.Notify(h.signals, syscall.SIGHUP)
	return h
}

func (h hangups) stop() { signal.Stop(h.signals) }

// watchHangup reloads on each signal until the context ends. A reload that fails
// changes nothing and ends nothing.
func (d *instance) watchHangup(ctx context.Context, signals <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			d.notify.reloading()
			// Told by an event; the signal's sender is not there to be told.
			_, _ = d.reload(ctx, director.Request{Who: "SIGHUP"})
			d.notify.ready(fmt.Sprintf("revision %d", d.director.Head().Number))
		}
	}
}

// reload reads the configuration anew, applies its services and timeouts as
// `shunt apply` does, and takes over the settings that can change in a running
// daemon. A file without the key services leaves the services alone. It says
// which settings want a restart.
func (d *instance) reload(ctx context.Context, by director.Request) (director.Outcome, error) {
	outcome, err := d.tryReload(ctx, by)
	if err != nil {
		message := "reload failed, nothing changed: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		d.events.Publish(event.Event{Name: event.ReloadFailed, Message: message})
		return outcome, err
	}
	d.events.Publish(event.Event{
		Name: event.Reload, Revision: outcome.Revision.Number,
		Message: fmt.Sprintf("configuration reloaded: revision %d, steps: %d", outcome.Revision.Number, len(outcome.Steps)),
	})
	return outcome, nil
}

// warn logs what of the configuration is of no use.
func warn(log *slog.Logger, cfg config.Config) {
	for _, text := range cfg.Warnings {
		log.Warn("a part of the configuration has no effect", "part", text)
	}
}

func (d *instance) tryReload(ctx context.Context, by director.Request) (director.Outcome, error) {
	cfg, err := d.load()
	if errors.Is(err, fs.ErrPermission) {
		return director.Outcome{}, fmt.Errorf("%w: shuntd has given up the right to read files of others: chown it to the user shuntd runs as", err)
	}
	if err != nil {
		return director.Outcome{}, fmt.Errorf("%w: %w", director.ErrInvalid, err)
	}
	warn(d.log, cfg)
	if by.Why == "" {
		by.Why = "reload"
	}
	limit := d.director.MaxRemoval()
	d.director.SetMaxRemoval(cfg.Director.RemovalLimit) // the file is judged by its own
	var outcome director.Outcome
	if cfg.ServicesGiven {
		outcome, err = d.director.Apply(ctx, by, cfg.State)
	} else {
		outcome, err = d.director.ApplyShared(ctx, by, cfg.State)
	}
	if err != nil {
		d.director.SetMaxRemoval(limit)
		return outcome, err
	}
	if err := d.level.UnmarshalText([]byte(cfg.Director.LogLevel)); err != nil {
		return outcome, fmt.Errorf("set the log level: %w", err)
	}
	for _, difference := range config.Differences(d.settings, cfg.Director) {
		if difference.Restart {
			d.log.Warn("a setting changed that only a restart takes over (traffic flows on)", "setting", difference.String())
		}
	}
	return outcome, nil
}
