package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
)

// dataplane is what the daemon needs of a data plane beyond what the Director
// does.
type dataplane interface {
	director.Dataplane
	// Run keeps it in order until the context ends; nil then.
	Run(ctx context.Context) error
	// Detach removes everything it has in the kernel.
	Detach(ctx context.Context) error
	// IsNew reports whether Open found nothing of an earlier daemon.
	IsNew() bool
	// MaxConnections is what its tables are sized for, IPv4 and IPv6.
	MaxConnections() (v4, v6 uint64)
	// MemoryBytes is what its tables occupy.
	MemoryBytes() uint64
}

// opener opens the data plane that the settings describe.
type opener func(context.Context, config.Settings, *slog.Logger) (dataplane, error)

// serve runs the daemon until the context ends or a part fails. The socket is
// taken first: it keeps a second daemon from touching the kernel at all.
func serve(ctx context.Context, cfg config.Config, open opener, log *slog.Logger) error {
	s := cfg.Director
	started := time.Now()
	listener, err := api.Listen(s.Socket)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	if s.Mode == "generic" {
		log.Warn("GENERIC MODE: packets take the slow way through the kernel first; for tests only", "interfaces", s.Interfaces)
	}
	dp, err := open(ctx, s, log)
	if err != nil {
		return fmt.Errorf("open the data plane: %w", err)
	}
	v4, v6 := dp.MaxConnections()
	log.Info(describeTables(v4, v6, dp.MemoryBytes()))
	detached, err := control(ctx, cfg, dp, listener, started, log)
	if err := errors.Join(err, closing(dp)); err != nil {
		return err
	}
	if detached {
		log.Info("detached: nothing of Shunt is left in the kernel")
	} else {
		log.Info("stopped: traffic flows on")
	}
	return nil
}

// control carries the configuration to the data plane and runs the parts. It
// returns whether the data plane was detached.
func control(ctx context.Context, cfg config.Config, dp dataplane, l net.Listener, started time.Time, log *slog.Logger) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := director.New(dp, log)
	if err := d.Start(ctx, cfg.State); err != nil {
		err = fmt.Errorf("carry the configuration to the data plane: %w", err)
		if dp.IsNew() { // a first start that fails leaves nothing behind
			err = errors.Join(err, dp.Detach(ctx))
		}
		return false, err
	}
	hangups := make(chan os.Signal, 1) // more at once say the same
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	var detached atomic.Bool
	handler := api.NewHandler(d, api.Options{
		Version: version, Dataplane: cfg.Director.Dataplane, Started: started, Log: log,
		Detach:   dp.Detach,
		Detached: func() { detached.Store(true); cancel() },
	})
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return dp.Run(ctx) })
	parts.Go(func() error { return handler.Run(ctx, l) })
	parts.Go(func() error { return watchHangup(ctx, hangups, log) })
	state := d.State()
	log.Info("ready", "socket", cfg.Director.Socket, "interfaces", cfg.Director.Interfaces, "services", len(state.Services), "timeouts", state.Timeouts.String())
	err := parts.Wait()
	return detached.Load(), err
}

// watchHangup says on SIGHUP that there is no reload, which by default would end
// the daemon.
func watchHangup(ctx context.Context, hangups <-chan os.Signal, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			log.Warn("SIGHUP: reloading the configuration is not supported yet; change it with shunt, or restart (traffic flows on)")
		}
	}
}

// closing releases the data plane's handles.
func closing(dp dataplane) error {
	if err := dp.Close(); err != nil {
		return fmt.Errorf("close the data plane: %w", err)
	}
	return nil
}
