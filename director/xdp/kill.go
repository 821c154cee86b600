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

// ending is how connections are ended.
type ending uint8

const (
	silently   ending = iota
	withResets        // TCP's: both ends are told by their next packets
)

// Kill removes the connections and templates that match, in one pass over the
// tables; those that come after it began may be left. One that packets change at
// every try is an error at its end.
func (d *Dataplane) Kill(ctx context.Context, filter director.ConnectionFilter) (uint64, error) {
	return d.end(ctx, filter, silently)
}

// Reset is Kill, but TCP connections stay until their state, CLOSE, ends, so that
// both ends are reset: a packet that its sender sends again goes on to the other end
// as a reset, all others are answered by one. An end that sends nothing for that
// long is not told. With method dr and tunnel the server's packets are not seen: it
// is told by a packet of its client's, or by the client's answer to its own.
func (d *Dataplane) Reset(ctx context.Context, filter director.ConnectionFilter) (uint64, error) {
	return d.end(ctx, filter, withResets)
}

func (d *Dataplane) end(ctx context.Context, filter director.ConnectionFilter, how ending) (uint64, error) {
	var killed uint64
	var left int
	for found, err := range d.connections(ctx, filter) {
		if err == nil {
			err = d.kill(&found.entry, how)
		}
		switch {
		case err == nil:
			killed++
		case errors.Is(err, unix.EAGAIN):
			left++
		case !errors.Is(err, bpf.ErrNotFound): // else it ended by itself, or was killed before
			return killed, fmt.Errorf("remove connections: %w", err)
		}
	}
	if left > 0 {
		return killed, fmt.Errorf("remove connections: %d changed at every one of %d tries: try again", left, killTries)
	}
	return killed, nil
}

// kill ends the connection whose entry it is.
func (d *Dataplane) kill(e *bpf.Entry, how ending) error {
	v6, args := e.RemoveArgs()
	return d.removeEntry(v6, args, how)
}

// removeEntry ends the connection whose entry the arguments name.
func (d *Dataplane) removeEntry(v6 bool, args bpf.KernelRemoveArgs, how ending) (err error) {
	for range killTries {
		again := args
		again.WithResets = uint8(how)
		err = d.use(func() error { return d.plane.RemoveConnection(v6, &again) })
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return err
}
