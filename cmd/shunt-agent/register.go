package main

import (
	"context"
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/realserver/agent"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "register this host's servers at their directors until it is stopped, then drain them and take them away",
		Description: "SIGTERM drains; a second one ends it at once, and the leases end by themselves.\n\n" +
			"  agent: s1\n  directors: [\"https://10.0.0.1:9443\"]\n  ca: /etc/shunt/ca.pem\n  token-file: /etc/shunt/agent.token\n" +
			"  lease: 30s\n  drain: 5m\n  members: [{pool: web, address: 10.0.0.11, method: dr, weight: 100}]\n\n" +
			"shunt-agent(1) has all that the settings may say.",
		Flags:  []cli.Flag{&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "the settings' `FILE`"}},
		Action: register,
	}
}

func register(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	if c.String("config") == "" {
		return usage(c, "no settings: give --config")
	}
	settings, err := agent.ReadSettings(c.String("config"))
	if err != nil {
		return &usageError{err, ""}
	}
	log := slog.New(slog.NewTextHandler(c.App.ErrWriter, nil))
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the next signal ends the process
	registrar, err := agent.NewRegistrar(settings, log)
	if err != nil {
		return err
	}
	notify(log, sd.SdNotifyReady)
	told := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(told)
		notify(log, leaving(settings.Drain))
	})()
	err = registrar.Run(ctx)
	if ctx.Err() != nil {
		<-told
	}
	return err
}

// patience is how much longer than the drain the rest of leaving may take.
const patience = 30 * time.Second

// leaving tells the service manager how long that may take at most, whatever the unit
// says: TimeoutStopSec cannot know the settings (sd_notify(3), EXTEND_TIMEOUT_USEC).
func leaving(drain time.Duration) string {
	return fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", sd.SdNotifyStopping, (drain + patience).Microseconds())
}

// notify tells the service manager, if there is one.
func notify(log *slog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("service manager not notified", "state", state, "err", err)
	}
}
