package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

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
			if os.Getenv(environment("server")) == "" {
				awaitDaemon(ctx, dialer(cmp.Or(os.Getenv(environment("socket")), api.DefaultSocket)))
			}
			return newClient(func(flag string) string { return os.Getenv(environment(flag)) })
		},
	})
}

// A daemon that is being restarted is away for less than patience. The kernel's IPVS
// never is, so that those who call ipvsadm do not repeat what failed: a server whose
// removal fails ldirectord takes for removed, and leaves it where it is for good
// (its _service_down, which forgets the server before it calls ipvsadm).
const (
	patience = 5 * time.Second
	again    = 50 * time.Millisecond // from one attempt to the next
)

// awaitDaemon returns when the daemon can be dialled, or cannot for another reason
// than that it does not run: the client says which.
func awaitDaemon(ctx context.Context, dial func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if err := dial(ctx); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
		}
	}
}

// dialer tries whether somebody listens on the socket.
func dialer(socket string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
