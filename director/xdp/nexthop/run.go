package nexthop

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

const (
	// settle is how long to wait for more events before routes are asked for:
	// one change of a link comes as several.
	settle = 20 * time.Millisecond
	// routeInterval is the least time between two rounds of asking for all
	// routes. A long round stretches it, so that at most a quarter of one CPU
	// goes into rounds, however often routes change.
	routeInterval = 100 * time.Millisecond
	// refreshInterval is when routes are asked for without any event: path MTUs
	// that the kernel learns and forgets have none.
	refreshInterval = time.Minute
	// slice is how many routes are asked for between two looks at events.
	slice = 64
)

// change is a resolution to be told.
type change struct {
	addr  netip.Addr
	state Resolution
}

// run is the state of Run.
type run struct {
	*Resolver
	pending      []netip.Addr // still to ask for in this round
	started      time.Time    // of this round
	roundDue     time.Time    // of the next one; zero: nothing changed
	roundAllowed time.Time
	refresh      time.Time
	keep         time.Time
}

// Run follows the kernel's events until the context is cancelled or the
// Resolver closed, and then returns nil. Lost events are no error: everything
// is read anew and the loss is logged.
func (r *Resolver) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, r.events.interrupt)()
	l := run{Resolver: r, keep: time.Now().Add(keepInterval), refresh: time.Now().Add(refreshInterval)}
	for {
		// The context is looked at after the deadline is set: cancelled
		// before, receive is not called; cancelled after, it returns.
		// Likewise reread, which is set before receive is interrupted.
		err := r.events.setDeadline(l.wake())
		var messages []syscall.NetlinkMessage
		reread := r.takeReread()
		if err == nil && ctx.Err() == nil && !reread {
			messages, err = r.events.receive()
		}
		if errors.Is(err, errOverrun) {
			r.opts.Log.Warn("follow next hops: reading all neighbours and links anew", "err", err)
			reread = true
		}
		if reread && (err == nil || errors.Is(err, errOverrun)) {
			var changes []change
			changes, err = r.resync()
			r.tell(changes)
		}
		if r.closing.Load() || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow next hops: %w", err)
		}
		r.tell(r.handle(messages))
		l.work()
	}
}

// takeReread reports once that everything is to be read anew.
func (r *Resolver) takeReread() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	reread := r.reread
	r.reread = false
	return reread
}

// wake returns when there is something to do without an event.
func (l *run) wake() time.Time {
	if len(l.pending) > 0 {
		return time.Now()
	}
	wake := l.keep
	for _, due := range []time.Time{l.roundDue, l.refresh} {
		if !due.IsZero() && due.Before(wake) {
			wake = due
		}
	}
	return wake
}

// work does what is due: looks after neighbours and asks for routes.
func (l *run) work() {
	l.mu.Lock()
	stale, recheck := l.stale, l.recheck
	l.stale, l.recheck = false, false
	l.mu.Unlock()

	at := time.Now()
	if soon := at.Add(askInterval); recheck && soon.Before(l.keep) {
		l.keep = soon
	}
	if !at.Before(l.keep) {
		l.keep = at.Add(keepInterval)
		l.tell(l.keepAll())
	}
	if !at.Before(l.refresh) {
		stale = true
		l.refresh = at.Add(refreshInterval)
	}
	if stale && l.roundDue.IsZero() {
		l.roundDue = at.Add(settle)
		if l.roundDue.Before(l.roundAllowed) {
			l.roundDue = l.roundAllowed
		}
	}
	if len(l.pending) == 0 && !l.roundDue.IsZero() && !at.Before(l.roundDue) {
		l.pending, l.started, l.roundDue = l.watched(), at, time.Time{}
	}
	if len(l.pending) == 0 {
		return
	}
	n := min(slice, len(l.pending))
	l.tell(l.askRoutes(l.pending[:n]))
	if l.pending = l.pending[n:]; len(l.pending) == 0 {
		end := time.Now()
		l.roundAllowed = end.Add(max(routeInterval, 3*end.Sub(l.started)))
	}
}

func (r *Resolver) watched() []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	addrs := make([]netip.Addr, 0, len(r.watches))
	for addr := range r.watches {
		addrs = append(addrs, addr)
	}
	return addrs
}

// askRoutes asks for the routes to some addresses.
func (r *Resolver) askRoutes(addrs []netip.Addr) []change {
	r.mu.Lock()
	defer r.mu.Unlock()
	var changes []change
	for _, addr := range addrs {
		if w := r.watches[addr]; w != nil {
			r.update(w)
			changes = r.reevaluate(changes, w)
		}
	}
	return changes
}

func (r *Resolver) evaluateAll(changes []change) []change {
	for _, w := range r.watches {
		changes = r.reevaluate(changes, w)
	}
	return changes
}

func (r *Resolver) evaluateUsers(changes []change, h *hold) []change {
	for w := range h.users {
		changes = r.reevaluate(changes, w)
	}
	return changes
}

// reevaluate appends the resolution of a watched address if it is a new one.
func (r *Resolver) reevaluate(changes []change, w *watch) []change {
	state := r.evaluate(w)
	if state == w.state {
		return changes
	}
	w.state = state
	return append(changes, change{w.addr, state})
}

// tell calls Changed. No lock is held.
func (r *Resolver) tell(changes []change) {
	for _, c := range changes {
		r.opts.Changed(c.addr, c.state)
	}
}
