package xdp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// tableGate is closed while connections come over to other tables: what asks for one
// entry or makes some waits until all have. Walks wait by themselves (walk.go).
type tableGate struct {
	mu    sync.Mutex
	users int
	// shut is closed when the gate opens; nil while it is open.
	shut chan struct{}
}

// enter waits until the gate is open and keeps it so until leave is called. It must not
// be entered twice by one user, nor with Dataplane.mu held.
func (g *tableGate) enter(ctx context.Context) (leave func(), err error) {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			g.users++
			g.mu.Unlock()
			return sync.OnceFunc(g.leave), nil
		}
		g.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until all connections have come over to the new tables: %w", ctx.Err())
		}
	}
}

func (g *tableGate) leave() {
	g.mu.Lock()
	g.users--
	g.mu.Unlock()
}

// How long close waits for users, and how often it looks.
const (
	gatePatience = 10 * time.Second
	gateLook     = 5 * time.Millisecond
)

var errTablesInUse = fmt.Errorf("%w: connections are being loaded for longer than ten seconds", director.ErrBusy)

// close closes the gate, for one at a time, when all users have left.
func (g *tableGate) close(ctx context.Context) error {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			g.shut = make(chan struct{})
			g.mu.Unlock()
			break
		}
		g.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for deadline := time.Now().Add(gatePatience); !g.isEmpty(); {
		err := sleep(ctx, gateLook)
		if err == nil && time.Now().After(deadline) {
			err = errTablesInUse
		}
		if err != nil {
			g.open()
			return err
		}
	}
	return nil
}

func (g *tableGate) isEmpty() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.users == 0
}

func (g *tableGate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut = nil
}

// carryState is what is known of connections that come over. Guarded by Dataplane.mu.
type carryState struct {
	active bool
	number uint64 // counts those that have ended: a sweep that began before is void
}

// Resize makes tables for so many connections and has those there are come over, by
// their packets or one after the other; it returns when all have. Walks over the
// tables, and what names connections, wait for that; Apply and Stats do not. Once the
// new tables are in force, the context's end does not stop it: only Close does, and
// the next daemon goes on with it.
func (d *Dataplane) Resize(ctx context.Context, v4, v6 uint64) (director.ResizeReport, error) {
	report, err := d.resize(ctx, v4, v6)
	if err != nil {
		return director.ResizeReport{}, fmt.Errorf("resize the connection tables: %w", err)
	}
	return report, nil
}

func (d *Dataplane) resize(ctx context.Context, v4, v6 uint64) (report director.ResizeReport, err error) {
	if v4 > bpf.MaxConnections || v6 > bpf.MaxConnections {
		return report, fmt.Errorf("%w: at most %d connections are possible", director.ErrInvalid, bpf.MaxConnections)
	}
	if err := d.gate.close(ctx); err != nil {
		return report, err
	}
	defer d.gate.open()
	if !d.beginCarrying() {
		return report, errClosed
	}
	defer d.carries.Done()
	before := d.plane.Limits // nobody else changes them
	if hasSize(v4, before.Connections4) && hasSize(v6, before.Connections6) {
		return report, nil
	}
	if err := errors.Join(d.checkRoom(false, v4, before.Connections4), d.checkRoom(true, v6, before.Connections6)); err != nil {
		return report, err
	}
	d.opts.Log.Info("connection tables are being resized", "has", before.Connections4, "has6", before.Connections6, "wanted", v4, "wanted6", v6)
	change, err := d.plane.PrepareResize(v4, v6)
	if errors.Is(err, unix.ENOMEM) {
		return report, fmt.Errorf("%w for them: %w", director.ErrNoMemory, err)
	}
	if err != nil {
		return report, err
	}
	counts, err := d.carryCounts()
	if err != nil {
		change.Discard()
		return report, err
	}
	if err := d.commit(change, true); err != nil {
		return report, err
	}
	return d.bringOver(counts)
}

// hasSize says whether a table of has connections is what want asks for; 0 asks for none.
func hasSize(want, has uint64) bool { return want == 0 || sameSize(want, has) }

// checkRoom refuses a table for fewer connections than a smaller one than now would
// have to hold.
func (d *Dataplane) checkRoom(v6 bool, want, has uint64) error {
	if want == 0 || want >= has {
		return nil
	}
	walk := d.plane.Walk(v6)
	for keys := uint64(0); ; {
		more, err := walk.Next()
		if err != nil {
			return err
		}
		if !more {
			if keys <= keysPerConnection*want {
				return nil
			}
			return fmt.Errorf("%w: a table for %d connections (%d keys) has no room for the %d keys of those there are (%s): %d at least",
				director.ErrInvalid, want, keysPerConnection*want, keys, familyName(v6), (keys+keysPerConnection-1)/keysPerConnection)
		}
		walk.Slots(0, func(*bpf.Slot) bool { keys++; return true })
	}
}

// beginCarrying has Close wait until carries.Done; false if it has been called.
func (d *Dataplane) beginCarrying() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.carries.Add(1)
	return true
}

// commit puts the change in force; active: connections come over from then on.
func (d *Dataplane) commit(change *bpf.Change, active bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		change.Discard()
		return errClosed
	}
	d.exchange.Lock()
	defer d.exchange.Unlock()
	err := d.plane.Commit(change)
	d.carrying.active = d.plane.Carrying()
	d.carrying.number++
	if err == nil && d.carrying.active != active {
		err = errors.New("the tables are not what they should be: please report this")
	}
	return err
}

// carryCounts are what packets and bringOver have counted of connections.
type carryCounts struct{ carried, lost, evicted uint64 }

func (d *Dataplane) carryCounts() (carryCounts, error) {
	n, err := d.plane.EventCounts()
	return carryCounts{n[bpf.KernelEventEVENT_NOTE_CARRIED], n[bpf.KernelEventEVENT_NOTE_CARRY_LOST], n[bpf.KernelEventEVENT_NOTE_EVICTED]}, err
}

// bringOver brings over the connections that no packet has, and lets the old tables go;
// before is what was counted when the new ones were put in force. The gate is closed.
func (d *Dataplane) bringOver(before carryCounts) (report director.ResizeReport, err error) {
	began := time.Now()
	brought, err := d.plane.Carry(d.lifetime)
	if err != nil {
		return report, fmt.Errorf("bring connections over: %w (they come over with their packets, and the next start goes on with it)", err)
	}
	change, err := d.plane.PrepareEnd()
	if err != nil {
		return report, fmt.Errorf("let the tables of before go: %w (the next start does)", err)
	}
	counts, err := d.carryCounts() // before the commit, which adds those of an earlier layout
	if err != nil {
		change.Discard()
		return report, fmt.Errorf("let the tables of before go: %w (the next start does)", err)
	}
	if err := d.commit(change, false); err != nil {
		return report, fmt.Errorf("let the tables of before go: %w (the next start does)", err)
	}
	report = director.ResizeReport{
		Carried: counts.carried - before.carried, Expired: brought.Expired,
		Lost: counts.lost - before.lost + brought.Left, Evicted: counts.evicted - before.evicted,
	}
	log := d.opts.Log.Info
	if report.Lost > 0 {
		log = d.opts.Log.Warn
	}
	v4, v6 := d.MaxConnections()
	log("all connections have come over to the new tables", "connections", v4, "connections6", v6, "carried", report.Carried,
		"expired", report.Expired, "lost", report.Lost, "evicted", report.Evicted, "took", time.Since(began).Round(time.Millisecond))
	return report, nil
}

// settleTables ends what an upgrade or an earlier daemon's resize has begun, and gives
// the tables the sizes that are configured.
func (d *Dataplane) settleTables(ctx context.Context) {
	if d.isCarrying() && !d.endCarrying() {
		return
	}
	want, has := d.opts.limits(), bpf.Limits{}
	has.Connections4, has.Connections6 = d.MaxConnections()
	if hasSize(want.Connections4, has.Connections4) && hasSize(want.Connections6, has.Connections6) {
		return
	}
	if _, err := d.Resize(ctx, want.Connections4, want.Connections6); err != nil && ctx.Err() == nil && !d.isClosed() {
		d.opts.Log.Warn("connection tables keep the sizes they were made with: shunt conn resize changes them",
			"has", has.Connections4, "has6", has.Connections6, "configured", want.Connections4, "configured6", want.Connections6, "err", err)
	}
}

// endCarrying brings over what comes over since Open, which has closed the gate.
func (d *Dataplane) endCarrying() bool {
	if !d.beginCarrying() {
		return false
	}
	defer d.carries.Done()
	counts, err := d.carryCounts()
	if err == nil {
		_, err = d.bringOver(counts)
	}
	if err != nil {
		if !d.isClosed() {
			d.opts.Log.Error("connections do not come over to the new tables: they cannot be listed or removed until a restart", "err", err)
		}
		return false
	}
	d.gate.open()
	return true
}

func (d *Dataplane) isCarrying() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.carrying.active
}
