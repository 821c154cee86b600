package main

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/store"
	"github.com/shunt-lb/shunt/director/xdp"
)

func detachFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "dataplane", Value: director.PlaneXDP, Usage: "remove what Shunt has in `PLANE`: xdp or ipvs"},
		pinDirFlag(), stateFlag(),
	}
}

// detach is `shuntd detach`: no daemon runs that could be asked.
func detach(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	log, _, err := logger(c.App.ErrWriter, "info", "text")
	if err != nil {
		return err
	}
	switch plane := given(c, "dataplane", director.PlaneXDP); plane {
	case director.PlaneXDP:
		return xdp.Detach(given(c, "pin-dir", config.DefaultPinDir), log)
	case director.PlaneIPVS:
		return detachIPVS(c.Context, given(c, "state", config.DefaultStateDir), log)
	default:
		return usage("", "--dataplane: unknown data plane %q: want xdp or ipvs", plane)
	}
}

// given returns the flag wherever on the command line it stands, or its default.
func given(c *cli.Context, flag, otherwise string) string {
	for _, level := range c.Lineage() {
		if level.Command != nil && level.IsSet(flag) {
			return level.String(flag)
		}
	}
	return otherwise
}

// detachIPVS removes from the kernel's IPVS what the revisions say is ours. A folder
// without revisions is left as it is.
func detachIPVS(ctx context.Context, stateDir string, log *slog.Logger) error {
	if files, err := filepath.Glob(filepath.Join(stateDir, "*")); err != nil || len(files) == 0 {
		log.Info("nothing to detach: no revisions, which say what is Shunt's", "state", stateDir)
		return err
	}
	revisions, err := store.Open(ctx, stateDir, store.Options{Log: log})
	if err != nil {
		return err
	}
	defer func() { _ = revisions.Close() }()
	state, err := ours(revisions)
	if err != nil {
		return err
	}
	plane, err := openIPVS(ctx, config.Settings{}, log)
	if err != nil {
		return err
	}
	return plane.Detach(ctx, state)
}

// ours is what is Shunt's in the kernel: the newest revision, and services that were
// intended since. Of those it is not known whose their addresses are: they stay.
func ours(revisions director.Store) (director.State, error) {
	head, intended, err := revisions.Load()
	state := head.State
	for _, key := range intended {
		if state.Service(key) < 0 {
			state.Services = append(state.Services, director.Service{Key: key, VIP: director.VIPExternal})
		}
	}
	return state, err
}
