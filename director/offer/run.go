package offer

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// again is when what could not be done is tried again.
const again = time.Second

// who is what changes of the Keeper's own are recorded as.
const who = "shunt"

// Run follows what changes by itself, and has the director's kernel hold what is decided,
// until the context ends. The director was started, with the Keeper as its Offerer.
func (k *Keeper) Run(ctx context.Context, d Director) error {
	r := &runner{Keeper: k, director: d, kills: make(map[director.ConnectionFilter]bool)}
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	folders := &folderWatch{keeper: k, lookup: k.opts.Lookup, hosts: make(map[string]resolved)}
	watching.Go(func() { folders.run(ctx) })
	defer k.notices.close()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-k.changed:
		}
		began := time.Now()
		k.turning.Store(&began)
		at := r.turn(ctx, began)
		k.turning.Store(nil)
		if !rest(ctx, time.Since(began)) {
			return nil
		}
		if at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(at), 0))
		}
	}
}

// longestRest bounds what rest adds to the time that a change takes to be carried out.
const longestRest = 50 * time.Millisecond

// rest waits as long as a turn took: where thousands of servers go up and down, a turn
// is for many changes, and others have half of the processor. False: the context ended.
func rest(ctx context.Context, took time.Duration) bool {
	timer := time.NewTimer(min(took, longestRest))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Busy returns how long Run has been at what it does now: minutes say that it is stuck.
func (k *Keeper) Busy() time.Duration {
	if since := k.turning.Load(); since != nil {
		return time.Since(*since)
	}
	return 0
}

// runner is a Run.
type runner struct {
	*Keeper
	director Director
	kills    map[director.ConnectionFilter]bool // to do
	packets  time.Time                          // when they are asked next
	asking   bool                               // a service wants it
}

// turn does what is to be done now, and says when to look again by itself; zero: only
// when something changes.
func (r *runner) turn(ctx context.Context, now time.Time) (next time.Time) {
	soon := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	r.assign()
	if !now.Before(r.packets) {
		r.packets = now.Add(evidenceInterval)
		r.asking = r.watchPackets(ctx)
	}
	if r.asking || r.opts.Packet != nil && len(r.uncounted()) > 0 {
		soon(r.packets)
	}
	out, wake := r.decideAll(now)
	soon(wake)
	for _, key := range out.reoffer {
		r.troubled("offer the servers of "+key.String(), r.director.Reoffer(ctx, key))
	}
	for _, e := range out.events {
		r.opts.Events.Publish(e)
	}
	r.Keeper.notices.send(ctx, out.notes)
	for _, filter := range out.kills {
		r.kills[filter] = true
	}
	left := r.kill(ctx)
	left = r.absolveInPlane(ctx) || left
	if left {
		soon(now.Add(again))
	}
	soon(r.endOverrides(ctx, now))
	return next
}

// assign has asked what is to be asked.
func (r *runner) assign() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.reassign {
		return
	}
	r.reassign = false
	all := r.assignments()
	if r.opts.Checks != nil {
		r.opts.Checks.Set(all)
	}
	if r.opts.Hosts != nil {
		r.opts.Hosts.Set(r.hosts())
	}
}

// decideAll decides anew where something changed or is due, and says when something is
// due next.
func (r *runner) decideAll(now time.Time) (out effects, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		if e.dirty || !e.wake.IsZero() && !now.Before(e.wake) {
			r.settle(e, now, &out)
		}
		if !e.wake.IsZero() && (next.IsZero() || e.wake.Before(next)) {
			next = e.wake
		}
	}
	if r.reassign {
		r.stir() // servers that began in this turn are to be asked
	}
	return out, next
}

// kill removes the connections and templates that are to go, and reports whether some
// are left: who is up again meanwhile keeps them.
func (r *runner) kill(ctx context.Context) (left bool) {
	if len(r.kills) == 0 {
		return false
	}
	if !r.director.Features().Kill {
		clear(r.kills)
		return false
	}
	for filter := range r.kills {
		if r.isOffered(filter) {
			delete(r.kills, filter)
			continue
		}
		_, err := r.director.Kill(ctx, filter)
		r.troubled("remove what leads to server "+filter.Server.String()+" of "+filter.Service.String(), err)
		if left = left || err != nil; err == nil {
			delete(r.kills, filter)
		}
	}
	return left
}

// isOffered reports whether the server gets connections again, or is well again where all
// were to go, or is not known any more.
func (r *runner) isOffered(filter director.ConnectionFilter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[filter.Service]
	if e == nil || e.members[filter.Server] == nil {
		return true
	}
	if filter.Kind == director.KindTemplate {
		return e.ups[filter.Server].weight > 0
	}
	return e.ups[filter.Server].keeps
}

// endOverrides withdraws those whose time is over, and says when the next one's is.
func (r *runner) endOverrides(ctx context.Context, now time.Time) (next time.Time) {
	r.mu.Lock()
	orders := r.desired.Overrides
	r.mu.Unlock()
	for _, order := range orders {
		at := order.Until
		switch {
		case at.IsZero():
			continue
		case order.Ended(now):
			by := director.Request{Who: who, Why: "its time is over"}
			_, err := r.director.ClearOverride(ctx, by, order.Service, order.Server)
			if errors.Is(err, director.ErrNotFound) {
				err = nil // somebody was faster
			}
			r.troubled("withdraw the override of server "+order.Server.String()+" of "+order.Service.String(), err)
			if at = (time.Time{}); err != nil {
				at = now.Add(again)
				r.ignore(order)
			}
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// ignore has an order count no more that could not be withdrawn.
func (r *runner) ignore(order director.Override) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[order.Service]; e != nil && e.members[order.Server] != nil && e.members[order.Server].override != nil {
		e.members[order.Server].override, e.dirty = nil, true
		r.stir()
	}
}

// troubled publishes that an act failed, once for all failures in a row; nil: it did
// not.
func (k *Keeper) troubled(act string, err error) {
	k.mu.Lock()
	before := k.troubles[act]
	if err == nil {
		delete(k.troubles, act)
	} else {
		k.troubles[act] = err.Error()
	}
	k.mu.Unlock()
	if err != nil && before != err.Error() && !errors.Is(err, context.Canceled) {
		k.opts.Events.Publish(event.Event{Name: event.HealthTrouble, Message: act + ": " + err.Error()})
	}
}
