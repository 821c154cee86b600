package main

import (
	"context"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/realserver/agent"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "register this host's servers at their directors until it is stopped, then drain them and take them away",
		Description: "SIGTERM drains; a second one ends it at once, and the leases end by themselves.\n\n" +
			"  agent: s1\n  directors: [\"https://10.0.0.1:9443\"]\n  ca: /etc/shunt/ca.pem\n  token-file: /etc/shunt/agent.token\n" +
			"  lease: 30s\n  drain: 5m\n  members: [{pool: web, address: 10.0.0.11, method: dr, weight: 100}]",
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
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the next signal ends the process
	registrar, err := agent.NewRegistrar(settings, slog.New(slog.NewTextHandler(c.App.ErrWriter, nil)))
	if err != nil {
		return err
	}
	return registrar.Run(ctx)
}
