package xdp

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// killTries is how often one connection is tried that packets change meanwhile.
const killTries = 8

// Kill removes the connections and templates that match, in one pass over the
// tables; those that come after it began may be left. One that packets change at
// every try is an error at its end.
func (d *Dataplane) Kill(ctx context.Context, filter director.ConnectionFilter) (uint64, error) {
	var killed uint64
	var left int
	for found, err := range d.connections(ctx, filter) {
		if err == nil {
			err = d.kill(&found.entry)
		}
		switch {
		case err == nil:
			killed++
		case errors.Is(err, unix.EAGAIN):
			left++
		case !errors.Is(err, bpf.ErrNotFound): // else it ended by itself
			return killed, fmt.Errorf("remove connections: %w", err)
		}
	}
	if left > 0 {
		return killed, fmt.Errorf("remove connections: %d changed at every one of %d tries: try again", left, killTries)
	}
	return killed, nil
}

// kill removes the connection whose entry it is.
func (d *Dataplane) kill(e *bpf.Entry) (err error) {
	for range killTries {
		v6, args := e.RemoveArgs()
		if err = d.plane.RemoveConnection(v6, &args); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return err
}
