package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/lease"
	"github.com/shunt-lb/shunt/director/metrics"
	"github.com/shunt-lb/shunt/director/store"
	"github.com/shunt-lb/shunt/director/watch"
	"github.com/shunt-lb/shunt/realserver/script"
)

// dataplane is what the daemon needs of a data plane beyond what the Director
// does.
type dataplane interface {
	director.Dataplane
	// Run keeps it in order until the context ends; nil then.
	Run(ctx context.Context) error
	// Detach removes what Shunt has in the kernel, which ours describes, and closes
	// it.
	Detach(ctx context.Context, ours director.State) error
	// IsNew reports whether Open made what is to go again if the first start fails.
	IsNew() bool
	// Tables says how large its connection tables are.
	Tables() string
}

// surroundings are what the daemon reaches the host by; tests have others.
type surroundings struct {
	// open opens the data plane that the settings describe.
	open func(context.Context, config.Settings, *slog.Logger) (dataplane, error)
	// help starts what runs commands from now on; nil of it: the daemon itself does.
	help func(config.Settings, director.State) (*script.Helper, error)
	// restrict gives up the rights that only the start took, and those to run commands.
	restrict func() (string, error)
	// load reads the configuration as at the start, for a reload.
	load func() (config.Config, error)
	// hangups are the process' SIGHUPs.
	hangups hangups
	log     *slog.Logger
	// level is the least level that log shows.
	level *slog.LevelVar
	// forceMigration has services come from the kernel's IPVS although firewall
	// rules will not hold for them any more.
	forceMigration bool
}

// instance is a daemon under construction: the parts and what they share.
type instance struct {
	surroundings
	settings  config.Settings
	started   time.Time
	notify    notifier
	events    *event.Stream
	director  *director.Director
	plane     dataplane
	health    *healthParts
	helper    *script.Helper // that runs commands; nil: the daemon does
	leases    *lease.Registry
	revisions *store.Store
	// storeError is what the last check of the store said; nil: none was made.
	storeError atomic.Pointer[error]
	ready      atomic.Bool
}

// serve runs the daemon until the context ends or a part fails. The socket is
// taken first: it keeps a second daemon from touching store and kernel.
func serve(ctx context.Context, cfg config.Config, s surroundings) error {
	settings := cfg.Director
	d := &instance{
		surroundings: s, settings: settings, started: time.Now(),
		notify: notifier{s.log}, events: event.NewStream(s.log, 0),
	}
	listener, err := api.Listen(settings.Socket, api.ListenOptions{Group: settings.SocketGroup})
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	remote, err := d.listenRemote()
	if err != nil {
		return err
	}
	if remote != nil {
		defer func() { _ = remote.Close() }()
	}
	d.revisions, err = store.Open(ctx, settings.StateDir, store.Options{Log: s.log, Keep: settings.History, Repaired: func(message string) {
		d.events.Publish(event.Event{Name: event.StoreRepaired, Message: message})
	}})
	if err != nil {
		return err
	}
	defer func() { _ = d.revisions.Close() }()
	if settings.Dataplane == director.PlaneXDP && settings.Generic() {
		s.log.Warn("GENERIC MODE: packets take the slow way through the kernel first; for tests only", "interfaces", settings.Interfaces)
	}
	if d.plane, err = s.open(ctx, settings, s.log); err != nil {
		return fmt.Errorf("open the data plane: %w", err)
	}
	s.log.Info(d.plane.Tables())
	d.health = newHealth(d.plane, d.events, settings, s.log)
	defer d.health.close()
	d.leases = openLeases(d.health.keeper, d.events, settings, s.log)
	d.director = director.New(d.plane, d.revisions, director.Options{
		Log: s.log, Events: d.events, Reconcile: settings.Reconcile, Offerer: d.health.keeper,
	})
	d.director.SetMaxRemoval(settings.RemovalLimit)
	err = d.control(ctx, cfg.State, listener, remote)
	d.notify.stopping()
	return errors.Join(err, closing(d.plane))
}

// listenRemote opens the TLS listener; nil if none is configured.
func (d *instance) listenRemote() (*api.TLSListener, error) {
	s := d.settings.API
	if s.Listen == "" {
		return nil, nil
	}
	return api.ListenTLS(api.TLSOptions{
		Address: s.Listen, Certificate: s.Certificate, Key: s.Key, ClientCA: s.ClientCA, Tokens: s.Tokens, Log: d.log,
	})
}

// control carries the state to the data plane and runs the parts.
func (d *instance) control(ctx context.Context, initial director.State, local net.Listener, remote *api.TLSListener) error {
	ctx, cancel := d.untilStopped(ctx)
	defer cancel()
	takeOver, err := d.takeOver(ctx, initial)
	if err != nil {
		return err
	}
	if err := d.director.Start(ctx, initial, director.Request{Who: "shuntd", Why: "the configuration of the first start"}); err != nil {
		err = fmt.Errorf("carry the configuration to the data plane: %w", err)
		if d.plane.IsNew() { // a first start that fails leaves nothing behind
			err = errors.Join(err, d.plane.Detach(ctx, director.State{}))
		}
		return err
	}
	takeOver(ctx)
	helper, err := d.help(d.settings, d.director.State())
	if err != nil {
		return err
	}
	if helper != nil {
		d.helper = helper
		d.health.env.RunBy(helper)
		defer func() {
			if err := helper.Close(); err != nil {
				d.log.Warn("the process that ran commands did not end well", "err", err)
			}
		}()
	}
	rights, err := d.restrict()
	if err != nil {
		return fmt.Errorf("give up what only the start needs: %w", err)
	}
	d.log.Info("privileges dropped", "left", rights)

	watcher := watch.New(d.director.Stats, d.events, watch.Options{})
	parts, ctx := errgroup.WithContext(ctx)
	// Reconciling ends before the data plane is detached: it would put back
	// what is being removed.
	reconciling, stopReconciling := context.WithCancel(ctx)
	defer stopReconciling()
	handler := d.handler(stopReconciling, cancel)
	parts.Go(func() error { return d.plane.Run(ctx) })
	parts.Go(func() error { return d.director.Run(reconciling) })
	parts.Go(func() error { return watcher.Run(reconciling) })
	parts.Go(func() error { return d.director.RunDrains(reconciling) })
	parts.Go(func() error { return d.health.monitor.Run(reconciling) })
	parts.Go(func() error { return d.health.hosts.Run(reconciling) })
	parts.Go(func() error { return d.leases.Run(ctx) })
	parts.Go(func() error { return d.health.keeper.Run(reconciling, d.director) })
	parts.Go(func() error { return handler.Run(ctx, local) })
	if remote != nil {
		parts.Go(func() error { return handler.Run(ctx, remote) })
	}
	parts.Go(func() error { return d.watchHangup(ctx, d.hangups.signals) })
	parts.Go(func() error { return d.notify.watch(ctx, d.well) })
	parts.Go(func() error { return d.watchStore(ctx) })
	d.announce()
	return parts.Wait()
}

// untilStopped returns a context that ends when ctx does, once that was told:
// whoever follows the events learns it before their stream ends.
func (d *instance) untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	until, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		d.events.Publish(event.Event{Name: event.Stopping, Message: "stopping: traffic flows on"})
		cancel()
	})
	return until, func() { stop(); cancel() }
}

// handler makes the API over the director and this daemon. detaching runs before
// the data plane is taken away, detached after.
func (d *instance) handler(detaching, detached func()) *api.Handler {
	return api.NewHandler(d.director, api.Options{
		Version: version, Dataplane: d.settings.Dataplane, Started: d.started, Log: d.log, Events: d.events,
		Metrics: metrics.New(metrics.Options{
			Health: d.measures,
			Source: d.director, Events: d.events, Version: version, Dataplane: d.settings.Dataplane, Started: d.started, Log: d.log,
		}).Handler(),
		Forwarding: forwarding(d.settings), Leases: d.leases,

		Health:  verdicts{d.health.keeper},
		Ready:   d.readiness,
		Reload:  d.reload,
		Doctor:  d.inspect,
		Migrate: d.migrations(),
		Detach: func(ctx context.Context) error {
			detaching()
			state, err := ours(d.revisions)
			return errors.Join(err, d.plane.Detach(ctx, state))
		},
		Detached: func() {
			d.events.Publish(event.Event{Name: event.Detached, Message: "detached: nothing of Shunt is left in the kernel"})
			detached()
		},
	})
}

// announce tells that the daemon is ready.
func (d *instance) announce() {
	head := d.director.Head()
	d.ready.Store(true)
	message := fmt.Sprintf("ready: revision %d with %d services", head.Number, len(head.State.Services))
	d.log.Info("ready", "socket", d.settings.Socket, "interfaces", d.settings.Interfaces,
		"services", len(head.State.Services), "revision", head.Number, "timeouts", head.State.Timeouts.String())
	d.events.Publish(event.Event{Name: event.Started, Revision: head.Number, Message: message})
	d.notify.ready(message)
}

// readiness says why the daemon is not ready to serve and to take changes; nil if
// it is.
func (d *instance) readiness() error {
	if !d.ready.Load() {
		return errors.New("starting")
	}
	if err := d.well(); err != nil {
		return err
	}
	if err := d.storeError.Load(); err != nil && *err != nil {
		return *err
	}
	if d.settings.Dataplane == director.PlaneXDP {
		// The last pin that is made: it stands for all.
		if _, err := os.Stat(filepath.Join(d.settings.PinDir, "settings")); err != nil {
			return fmt.Errorf("the pins, without which the next daemon would begin anew: %w", err)
		}
	}
	stats, err := d.director.Stats(context.Background())
	if err != nil {
		return fmt.Errorf("read the data plane: %w", err)
	}
	for _, i := range stats.Interfaces {
		if i.Mode == director.InterfaceGone {
			return fmt.Errorf("interface %s is gone", i.Name)
		}
	}
	return nil
}

// storeInterval is the time between two looks at the store's files.
const storeInterval = 10 * time.Second

// watchStore looks at the store from time to time, which repairs a copy that was
// lost, until the context ends.
func (d *instance) watchStore(ctx context.Context) error {
	ticker := time.NewTicker(storeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := d.revisions.Check()
		if before := d.storeError.Swap(&err); err != nil && (before == nil || *before == nil) {
			d.log.Error("the store cannot be used: changes are refused until it can", "err", err)
		}
	}
}

// sickAfter is how long the kernel may not have been compared with what is
// desired, or what is due of the checks may not have been done, until the daemon
// counts as stuck. A change may take a minute.
const sickAfter = 2 * time.Minute

// well says why the daemon is stuck; nil if it is not.
func (d *instance) well() error {
	checked := d.director.Drift().Checked
	if age := time.Since(checked); age > sickAfter {
		return fmt.Errorf("the kernel was last compared with what is desired %s ago", age.Round(time.Second))
	}
	if d.helper != nil && d.helper.Err() != nil {
		return d.helper.Err()
	}
	return stuck(d.health.monitor.Behind(), d.health.keeper.Busy())
}

// stuck says so of the checks, which are so late with what they could do, or of what
// decides by them, which has been at it for so long. Checks that wait for slow servers
// are not stuck: a restart would not help them.
func stuck(asking, deciding time.Duration) error {
	switch {
	case asking > sickAfter:
		return fmt.Errorf("servers have not been asked for %s: the checks are stuck", asking.Round(time.Second))
	case deciding > sickAfter:
		return fmt.Errorf("what servers' checks found has not been carried out for %s", deciding.Round(time.Second))
	}
	return nil
}

// closing releases the data plane's handles.
func closing(dp dataplane) error {
	if err := dp.Close(); err != nil {
		return fmt.Errorf("close the data plane: %w", err)
	}
	return nil
}
