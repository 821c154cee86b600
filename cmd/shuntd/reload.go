package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
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
func (d *instance) watchHangup(ctx context.Context, signals <-chan os.Signal, remote *api.TLSListener) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			d.notify.reloading()
			// Told by an event; the signal's sender is not there to be told.
			_, _ = d.reload(ctx, director.Request{Who: "SIGHUP"}, remote)
			d.notify.ready(fmt.Sprintf("revision %d", d.director.Head().Number))
		}
	}
}

// reload reads the configuration anew, applies its services and timeouts as
// `shunt apply` does, and takes over the settings that can change in a running
// daemon. It says which ones want a restart.
func (d *instance) reload(ctx context.Context, by director.Request, remote *api.TLSListener) (director.Outcome, error) {
	outcome, err := d.tryReload(ctx, by, remote)
	if err != nil {
		message := "reload failed, nothing changed: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		d.events.Publish(event.Event{Name: event.ReloadFailed, Message: message})
		return outcome, err
	}
	d.events.Publish(event.Event{
		Name: event.Reload, Revision: outcome.Revision.Number,
		Message: fmt.Sprintf("configuration reloaded: %d steps, revision %d", len(outcome.Steps), outcome.Revision.Number),
	})
	return outcome, nil
}

func (d *instance) tryReload(ctx context.Context, by director.Request, remote *api.TLSListener) (director.Outcome, error) {
	cfg, err := d.load()
	if err != nil {
		return director.Outcome{}, fmt.Errorf("%w: %w", director.ErrInvalid, err)
	}
	if remote != nil {
		if err := remote.Reload(); err != nil {
			return director.Outcome{}, err
		}
	}
	if by.Why == "" {
		by.Why = "reload"
	}
	outcome, err := d.director.Apply(ctx, by, cfg.State)
	if err != nil {
		return outcome, err
	}
	if err := d.level.UnmarshalText([]byte(cfg.Director.LogLevel)); err != nil {
		return outcome, fmt.Errorf("set the log level: %w", err)
	}
	d.director.SetMaxRemoval(cfg.Director.RemovalLimit)
	for _, difference := range config.Differences(d.settings, cfg.Director) {
		if difference.Restart {
			d.log.Warn("a setting changed that only a restart takes over (traffic flows on)", "setting", difference.String())
		}
	}
	return outcome, nil
}
