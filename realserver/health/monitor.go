package health

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// Options are the terms of a Monitor.
type Options struct {
	// Env is what probers share; who made it closes it, after Run.
	Env Env
	// New makes the prober of a key, once; called where the probe is to run; nil: NewProber
	// does, with Env. A key whose prober cannot be made fails, and it is tried again with
	// its next probe.
	New func(check realserver.Check, target Target, dial Dial) (Prober, error)
	// Running is how many probes run at a time, besides those that are overdue; 0: 4096.
	// What is due while they do waits, the longest due first.
	Running int
	// Grace is how long after its timeout a probe may end before it counts as failed
	// without its word; 0: 500 ms. Run waits so long for the last ones.
	Grace time.Duration
	// Changed is told of changes by Run, in the order they came; it must not block long,
	// and may call the Monitor. Of a key that Set has just removed one may still come. Nil:
	// nobody is told.
	Changed func([]Change)
	// Log is told what nobody would expect of a probe; nil: nobody.
	Log *slog.Logger
}

const (
	defaultRunning = 4096
	defaultGrace   = 500 * time.Millisecond
)

func (o Options) withDefaults() Options {
	if o.New == nil {
		o.New = func(check realserver.Check, target Target, dial Dial) (Prober, error) {
			return NewProber(check, target, dial, o.Env)
		}
	}
	if o.Running <= 0 {
		o.Running = defaultRunning
	}
	if o.Grace <= 0 {
		o.Grace = defaultGrace
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Monitor asks what it is assigned from time to time, and knows what came of it. An
// idle key costs no goroutine and no timer of its own. Its methods are safe for
// concurrent use and return at once.
type Monitor struct {
	opts Options
	wake chan struct{} // room for one: what woke Run already wakes it for all

	mu      sync.Mutex
	ctx     context.Context // of the probes; nil before Run
	ended   bool
	entries map[Key]*entry // with those that are gone while their probe runs
	queues  [queueKinds]queue
	running int       // probes that hold one of Options.Running
	flying  int       // probes that have not returned
	asleep  time.Time // when Run looks next by itself
	changes []Change  // not told yet
	wanted  time.Time // when the log was last told of isOwnWant
	stats   Stats
	timings map[timed]*Timing
}

// Stats are counts of a Monitor since it was made, and numbers of now.
type Stats struct {
	Keys    int // asked
	Running int // probes within their time
	Overdue int // probes that have not ended in time, and still run
	Waiting int // probes that are due and wait for others to end
	// Lag is how late the probe is that is due the longest.
	Lag time.Duration

	Probes, Failures uint64 // started; results that were failures
	Overruns         uint64 // probes that did not end in time
	Stale            uint64 // results that came too late to count, or for what is asked no more
	Panics           uint64 // of probers
	Unasked          uint64 // probes that failed for want of files, memory or the like of our own: no results

	Timings []Timing // of results, by kind and whether they were passes
}

// NewMonitor returns a Monitor that asks nothing yet.
func NewMonitor(opts Options) *Monitor {
	m := &Monitor{opts: opts.withDefaults(), wake: make(chan struct{}, 1), entries: map[Key]*entry{}, timings: map[timed]*Timing{}}
	for kind := range m.queues {
		m.queues[kind].kind = queueKind(kind)
	}
	return m
}

// Set replaces what is asked. What was asked before keeps its state and its pace. What
// is asked no more ends at once, and a result that is still to come is not heard.
func (m *Monitor) Set(assignments []Assignment) {
	wanted := make(map[Key]bool, len(assignments))
	var fresh []*entry
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		return
	}
	now := time.Now()
	for _, a := range assignments {
		if wanted[a.Key] {
			continue
		}
		wanted[a.Key] = true
		e, ok := m.entries[a.Key]
		switch {
		case !ok:
			e = newEntry(a)
			m.entries[a.Key] = e
		case e.gone:
			e.gone = false
		default:
			continue
		}
		e.record = newRecord(a, now)
		e.asked, e.placed, e.suspectedMidway = 0, a.Known, false
		if e.phase != asking { // else the next probe follows that one
			fresh = append(fresh, e)
		}
	}
	var idle []*entry
	for key, e := range m.entries {
		if !wanted[key] && !e.gone {
			if m.drop(e) {
				idle = append(idle, e)
			}
		}
	}
	m.spread(fresh, now)
	m.rouse(now)
	m.mu.Unlock()
	for _, e := range idle {
		m.close(e)
	}
}

// Suspect asks the key at once, and at its retry's pace until the results confirm or
// contradict that the server is dead: a Change tells either. Of what is down already,
// suspected already, or not asked it does nothing.
func (m *Monitor) Suspect(k Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[k]
	if !ok || e.gone || m.ended || !e.Up || e.Suspected {
		return
	}
	e.State = e.State.Suspect()
	if e.running() {
		e.suspectedMidway = true
		return
	}
	// Suspicion upon suspicion does not become a flood of probes.
	now := time.Now()
	due := e.began.Add(e.check.Retry / 4)
	if due.Before(now) {
		due = now
	}
	if due.Before(e.when[starts]) {
		m.queues[starts].at(e, due)
		m.rouse(due)
	}
}

// Status returns what is known of the key; false if it is not asked.
func (m *Monitor) Status(k Key) (Status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[k]
	if !ok || e.gone {
		return Status{}, false
	}
	return e.status(e.phase == overdue), true
}

// Now is Status without the last results, for those who ask about thousands
// of keys at each change of one.
func (m *Monitor) Now(k Key) (Status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[k]
	if !ok || e.gone {
		return Status{}, false
	}
	return e.now(e.phase == overdue), true
}

// Stats returns the counts.
func (m *Monitor) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, now := m.stats, time.Now()
	s.Running, s.Overdue = m.running, m.flying-m.running
	for _, e := range m.entries {
		if !e.gone {
			s.Keys++
		}
		if e.phase == idle && !e.gone && e.when[starts].Before(now) {
			s.Waiting++
		}
	}
	if m.ctx != nil && !m.ended {
		s.Lag = m.queues[starts].late(now)
	}
	s.Timings = m.timingsNow()
	return s
}

// Behind returns how long ago Run should have done what it could have: more than some
// milliseconds say that it is stuck. What waits for other probes to end does not count.
func (m *Monitor) Behind() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil || m.ended {
		return 0
	}
	now := time.Now()
	behind := m.queues[ends].late(now)
	if m.running < m.opts.Running {
		behind = max(behind, m.queues[starts].late(now))
	}
	return behind
}

// rouse has Run look by the time t at the latest.
func (m *Monitor) rouse(t time.Time) {
	if t.Before(m.asleep) {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}
