package main

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/shunt-lb/shunt/cmd/shunt/ipvsadm"
	"github.com/shunt-lb/shunt/director/api"
)

// patience is longer than a daemon is away that is being restarted.
const patience = 5 * time.Second

// asIPVSadm is the whole command where it is called by the name of one of
// ipvsadm's programs, which have no flags for the daemon: the environment says
// which is meant.
func asIPVSadm(ctx context.Context, args []string, s streams) int {
	_, posix := os.LookupEnv("POSIXLY_CORRECT")
	options := ipvsadm.Options{
		Program: args[0], Args: args[1:], In: s.in, Out: s.out, Err: s.err, POSIX: posix,
		Connect: func() (*api.Client, error) {
			return newClient(func(flag string) string { return os.Getenv(environment(flag)) })
		},
	}
	if os.Getenv(environment("server")) == "" {
		options.Folder = filepath.Dir(cmp.Or(os.Getenv(environment("socket")), api.DefaultSocket))
		options.Patience = patience
	}
	return ipvsadm.Run(ctx, options)
}
