package main

import (
	"context"
	"os"

	"github.com/shunt-lb/shunt/cmd/shunt/ipvsadm"
	"github.com/shunt-lb/shunt/director/api"
)

// asIPVSadm is the whole command where it is called by the name of one of
// ipvsadm's programs, which have no flags for the daemon: the environment says
// which is meant.
func asIPVSadm(ctx context.Context, args []string, s streams) int {
	_, posix := os.LookupEnv("POSIXLY_CORRECT")
	return ipvsadm.Run(ctx, ipvsadm.Options{
		Program: args[0], Args: args[1:], In: s.in, Out: s.out, Err: s.err, POSIX: posix,
		Connect: func() (*api.Client, error) {
			return newClient(func(flag string) string { return os.Getenv(environment(flag)) })
		},
	})
}
