package health

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/script"
)

// entry is one key that is asked.
type entry struct {
	key   Key
	check realserver.Check
	dial  Dial
	hash  uint64

	prober Prober // of the probe while one runs, of the monitor's lock otherwise
	cancel context.CancelFunc
	phase  phase
	gone   bool // asked no more; here until its probe has ended
	stale  bool // the running probe's result is not wanted
	began  time.Time
	asked  uint64 // probes so far
	placed bool   // has its own place in the interval
	// suspectedMidway: the running probe began before what it would contradict.
	suspectedMidway bool

	when  [queueKinds]time.Time
	place [queueKinds]int
	record
}

type phase int

const (
	idle    phase = iota
	asking        // a probe runs
	overdue       // a probe runs, and its time is over
)

func newEntry(a Assignment) *entry {
	return &entry{key: a.Key, check: a.Check.WithDefaults(), dial: a.Dial, hash: a.Key.hash(), place: [queueKinds]int{notQueued, notQueued}}
}

func (e *entry) running() bool { return e.phase != idle }

// coalesce is how long Run lets what is due gather: a thousand probes a second need not
// be a thousand wake-ups.
const coalesce = 5 * time.Millisecond

// Run asks until ctx ends. It returns nil after the last probe has ended, or, if one
// does not, a while later. It is called once.
func (m *Monitor) Run(ctx context.Context) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changes, wait := m.turn()
		if len(changes) > 0 && m.opts.Changed != nil {
			m.opts.Changed(changes)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			m.end()
			return nil
		case <-timer.C:
		case <-m.wake:
		}
	}
}

// begin spreads the first probes of what was set before Run.
func (m *Monitor) begin(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx != nil {
		return errors.New("run the checks: they run already")
	}
	m.ctx = ctx
	var fresh []*entry
	for _, e := range m.entries {
		fresh = append(fresh, e)
	}
	m.spread(fresh, time.Now())
	return nil
}

// turn does what is due, and returns what changed and how long there is nothing to do.
func (m *Monitor) turn() ([]Change, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for {
		e := m.queues[ends].first()
		if e == nil || e.when[ends].After(now) {
			break
		}
		m.overrun(e, now)
	}
	for {
		e := m.queues[starts].first()
		if e == nil || e.when[starts].After(now) {
			break
		}
		switch {
		case e.phase == overdue:
			m.stillOverdue(e, now)
		case m.running < m.opts.Running:
			m.start(e, now)
		default:
			// Whoever ends wakes Run.
			return m.sleep(now, ends)
		}
	}
	return m.sleep(now, starts, ends)
}

// sleep takes the changes, and notes until when Run looks at nothing: the first time in
// one of the queues.
func (m *Monitor) sleep(now time.Time, kinds ...queueKind) ([]Change, time.Duration) {
	m.asleep = now.Add(time.Hour)
	for _, kind := range kinds {
		if e := m.queues[kind].first(); e != nil && e.when[kind].Before(m.asleep) {
			m.asleep = e.when[kind]
		}
	}
	m.asleep = later(m.asleep, now.Add(coalesce))
	changes := m.changes
	m.changes = nil
	return changes, m.asleep.Sub(now)
}

// start begins a probe.
func (m *Monitor) start(e *entry, now time.Time) {
	m.queues[starts].remove(e)
	ctx, cancel := context.WithTimeout(m.ctx, e.check.Timeout)
	e.cancel, e.phase, e.began, e.stale, e.suspectedMidway = cancel, asking, now, false, false
	e.asked++
	m.queues[ends].at(e, now.Add(e.check.Timeout+m.opts.Grace))
	m.running++
	m.flying++
	m.stats.Probes++
	go func() {
		result := m.ask(ctx, e)
		cancel()
		m.finish(e, result)
	}()
}

// ask runs the entry's prober. Its panic is a failure.
func (m *Monitor) ask(ctx context.Context, e *entry) (result Result) {
	began := time.Now()
	defer func() {
		if panicked := recover(); panicked != nil {
			m.opts.Log.Error("a probe panicked", "server", e.key.Target.Server, "kind", e.check.Kind, "panic", panicked, "stack", string(debug.Stack()))
			m.mu.Lock()
			m.stats.Panics++
			m.mu.Unlock()
			result = Result{Err: fmt.Errorf("probe: panic: %v", panicked)}
		}
		result.At = began
		if result.Took == 0 {
			result.Took = time.Since(began)
		}
	}()
	if e.prober == nil {
		prober, err := m.opts.New(e.check, e.key.Target, e.dial)
		if err != nil {
			return Result{Err: fmt.Errorf("make the probe: %w", err)}
		}
		e.prober = prober
	}
	return e.prober.Probe(ctx)
}

// finish takes in what a probe returned.
func (m *Monitor) finish(e *entry, result Result) {
	m.mu.Lock()
	now := time.Now()
	if e.phase == asking && !now.Before(e.when[ends]) {
		m.overrun(e, now) // Run has not come to it yet
	}
	late := e.phase == overdue
	if !late {
		m.queues[ends].remove(e)
		m.running--
	}
	m.flying--
	e.phase = idle
	forget := e.gone || m.ended
	switch {
	case forget || late || e.stale || m.ctx.Err() != nil:
		m.stats.Stale++
	default:
		m.note(e, result, now)
		due := e.next(e.began, now)
		if e.suspectedMidway && e.Suspected {
			due = now
		}
		m.queues[starts].at(e, due)
	}
	if forget {
		m.queues[starts].remove(e)
		if m.entries[e.key] == e {
			delete(m.entries, e.key)
		}
	} else if e.place[starts] == notQueued {
		m.queues[starts].at(e, now) // asked anew while this one ran
	}
	m.rouseAfter(e, now)
	m.mu.Unlock()
	if forget {
		m.close(e)
	}
}

// rouseAfter wakes Run if a probe's end gives it something to do before it looks by
// itself: changes to tell, one that waits for a place, the last end.
func (m *Monitor) rouseAfter(e *entry, now time.Time) {
	waiting := m.queues[starts].first()
	switch {
	case len(m.changes) > 0, m.ended, waiting != nil && waiting != e && waiting.when[starts].Before(now):
		m.rouse(now)
	case e.place[starts] != notQueued:
		m.rouse(e.when[starts])
	}
}

// overrun makes a probe that does not end a failure: its place is for others from now
// on, and its key is not asked before it has ended.
func (m *Monitor) overrun(e *entry, now time.Time) {
	m.queues[ends].remove(e)
	m.running--
	e.phase = overdue
	m.stats.Overruns++
	if e.gone {
		return
	}
	m.opts.Log.Warn("a probe does not end", "server", e.key.Target.Server, "kind", e.check.Kind, "timeout", e.check.Timeout)
	if !e.stale {
		m.note(e, Result{
			Err: fmt.Errorf("no end within the timeout of %v", e.check.Timeout), At: e.began, Took: now.Sub(e.began),
		}, now)
	}
	m.queues[starts].at(e, e.next(e.began, now))
}

// stillOverdue is the result of a probe that would be due while the last has not ended.
func (m *Monitor) stillOverdue(e *entry, now time.Time) {
	e.asked++ // another jitter
	m.note(e, Result{
		Err: fmt.Errorf("the probe of %v before has not ended", now.Sub(e.began).Round(time.Millisecond)), At: now,
	}, now)
	m.queues[starts].at(e, e.next(now, now))
}

// note adds a result to the entry's record.
func (m *Monitor) note(e *entry, result Result, now time.Time) {
	if isOwnWant(result.Err) {
		m.stats.Unasked++
		e.last = appendBounded(e.last, result, lastResults)
		if now.Sub(m.wanted) >= wantEvery {
			m.wanted = now
			m.opts.Log.Error("servers cannot be asked: their states stay", "server", e.key.Target.Server, "kind", e.check.Kind, "err", result.Err)
		}
		return
	}
	if result.Err != nil {
		m.stats.Failures++
	}
	if result.Took > 0 { // else nothing was asked: the last probe has not ended
		m.measure(e.check.Kind, result)
	}
	counts := !(e.suspectedMidway && e.Suspected && result.Err == nil)
	if change, changed := e.add(result, e.check, counts, now); changed {
		change.Key = e.key
		m.changes = append(m.changes, change)
	}
}

// wantEvery is from one word in the log on what the director lacks to the next.
const wantEvery = 10 * time.Second

// isOwnWant reports whether a probe failed for want of something of the director's own:
// files, memory, buffers, processes, the one that runs commands. That is no word on a
// server; if it were, they would all be down at once.
func isOwnWant(err error) bool {
	for _, want := range []error{script.ErrNoHelper, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EAGAIN} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}

// drop ends the asking of an entry; true if nothing of it runs, and its prober is to be
// closed.
func (m *Monitor) drop(e *entry) bool {
	m.queues[starts].remove(e)
	e.gone, e.stale = true, true
	if e.running() {
		e.cancel()
		return false
	}
	delete(m.entries, e.key)
	return true
}

// close gives back what the entry's prober holds; nothing of the entry runs any more.
func (m *Monitor) close(e *entry) {
	defer func() {
		if panicked := recover(); panicked != nil {
			m.opts.Log.Error("closing a probe panicked", "server", e.key.Target.Server, "kind", e.check.Kind, "panic", panicked)
		}
	}()
	if e.prober != nil {
		e.prober.Close()
	}
}

// end closes what is idle, and waits for the probes that run, which ctx has ended.
func (m *Monitor) end() {
	m.mu.Lock()
	m.ended = true
	var closing []*entry
	for key, e := range m.entries {
		if !e.running() {
			delete(m.entries, key)
			closing = append(closing, e)
		}
	}
	m.mu.Unlock()
	for _, e := range closing {
		m.close(e)
	}
	timer := time.NewTimer(m.opts.Grace)
	defer timer.Stop()
	for {
		m.mu.Lock()
		flying := m.flying
		m.asleep = time.Now().Add(time.Hour)
		m.mu.Unlock()
		if flying == 0 {
			return
		}
		select {
		case <-m.wake:
		case <-timer.C:
			m.opts.Log.Warn("probes do not end", "probes", flying)
			return
		}
	}
}
