package xdp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// errExchanged ends a walk over tables that were replaced in its midst.
var errExchanged = fmt.Errorf("%w: the connection tables were replaced while they were read", director.ErrBusy)

// exchangePause is how often a walk looks whether it may begin.
const exchangePause = 10 * time.Millisecond

// use runs f, which is short, while the plane's tables and programs stay as they
// are. It is called without mu, and f must not lock it.
func (d *Dataplane) use(f func() error) error {
	d.exchange.RLock()
	defer d.exchange.RUnlock()
	return f()
}

// walkGroups reads the groups of a table, and what read reads beside them, and visits
// them until visit says false: then it is not whole. While connections come over
// from other tables it waits: they are in one of the two, and soon all in this one.
func (d *Dataplane) walkGroups(ctx context.Context, v6 bool, read func(*bpf.Walk) error, visit func(*bpf.Walk) bool) (whole bool, err error) {
	walk, err := d.newWalk(ctx, v6)
	if err != nil {
		return false, err
	}
	for {
		var more bool
		err := d.use(func() (err error) {
			if !d.plane.Has(walk) {
				return errExchanged
			}
			if more, err = walk.Next(); err == nil && more {
				err = read(walk)
			}
			return err
		})
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !more {
			return err == nil, err
		}
		if !visit(walk) {
			return false, nil
		}
	}
}

func (d *Dataplane) newWalk(ctx context.Context, v6 bool) (walk *bpf.Walk, err error) {
	for {
		err := d.use(func() error {
			if !d.plane.Carrying() {
				walk = d.plane.Walk(v6)
			}
			return nil
		})
		if err != nil || walk != nil {
			return walk, err
		}
		if err := sleep(ctx, exchangePause); err != nil {
			return nil, fmt.Errorf("wait for connections that come over from other tables: %w", err)
		}
	}
}

// nothingBeside is for walks that read entries alone.
func nothingBeside(*bpf.Walk) error { return nil }

// sleep waits, or less if the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// untilWhole repeats what was ended by an exchange of the tables.
func untilWhole[T any](read func() (T, error)) (T, error) {
	for {
		if found, err := read(); !errors.Is(err, errExchanged) {
			return found, err
		}
	}
}
