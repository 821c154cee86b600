package snmp

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// Terms of the pace.
const (
	// jitterShare is how far an interval may be off, either way: what began together does
	// not stay together.
	jitterShare = 0.1
	// firstPace is from one first question to the next when many hosts are new: one is
	// asked at once, hundreds are spread, over their interval at most.
	firstPace = 20 * time.Millisecond
	// defaultRunning is how many questions are open at a time. Each takes a goroutine and
	// 64 KiB. A thousand hosts that are all gone are still asked within 16 s.
	defaultRunning = 128
)

// Key is what is asked of whom. Equal keys are asked once.
type Key struct {
	Host  netip.Addr
	Terms realserver.SNMP // with defaults
}

// Outcome is what came of a question.
type Outcome string

// The outcomes.
const (
	Answered Outcome = "answered"
	Silent   Outcome = "timeout" // nobody answered
	Failed   Outcome = "failed"  // the answer is of no use, or nobody can be asked so
)

// Outcomes returns the outcomes.
func Outcomes() []Outcome { return []Outcome{Answered, Silent, Failed} }

// Status is what is known of a key.
type Status struct {
	Asked time.Time     // when the last question ended; zero: there was none
	Took  time.Duration // that question
	Err   error         // what came of it; nil: an answer
	Since time.Time     // when it began to be so, answers or errors
	Load  float64       // the last load that was told
	Told  time.Time     // when; zero: never
}

// Options are the terms of a Poller; zero values mean the defaults.
type Options struct {
	// Running is how many questions are open at a time; 0: 128. What is due while they are
	// waits, the longest due first.
	Running int
	// Loaded is told a host's load, 0 to 1 and more; Changed that another error came than
	// before, or none any more. They may call the Poller. Nil: nobody is told.
	Loaded  func(k Key, load float64, at time.Time)
	Changed func(k Key)
	Log     *slog.Logger // told when a host falls silent, and when it speaks again; nil: nobody
}

// asker asks one host.
type asker interface {
	// ask returns the load; false where there is none yet.
	ask(ctx context.Context) (float64, bool, error)
}

// Poller asks hosts for their load from time to time. Its methods are safe for concurrent
// use, and return at once.
type Poller struct {
	opts Options
	new  func(Key) asker
	wake chan struct{} // has room for one, which stands for all that changed since

	mu      sync.Mutex
	entries map[Key]*entry
	queue   queue // of those that are not asked at the moment
	running int
	counts  map[Outcome]uint64
}

// entry is a key with what is known of it.
type entry struct {
	key   Key
	asker asker
	due   time.Time
	place int // in the queue; -1: not there
	gone  bool
	Status
}

// New returns a Poller that asks nobody.
func New(opts Options) *Poller {
	if opts.Running <= 0 {
		opts.Running = defaultRunning
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Poller{
		opts: opts, new: func(k Key) asker { return &meter{host: k.Host, terms: k.Terms} },
		wake: make(chan struct{}, 1), entries: make(map[Key]*entry), counts: make(map[Outcome]uint64),
	}
}

// Set has these asked, and no others. Equal keys count once.
func (p *Poller) Set(keys []Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.entries
	p.entries = make(map[Key]*entry, len(keys))
	var fresh []*entry
	for _, key := range keys {
		if p.entries[key] != nil {
			continue
		}
		e := before[key]
		if delete(before, key); e == nil {
			e = &entry{key: key, asker: p.new(key), place: -1}
			fresh = append(fresh, e)
		}
		p.entries[key] = e
	}
	for _, e := range before {
		if e.gone = true; e.place >= 0 {
			heap.Remove(&p.queue, e.place)
		}
	}
	now := time.Now()
	for i, e := range fresh {
		e.due = now.Add(min(time.Duration(i)*firstPace, time.Duration(rand.Float64()*float64(e.key.Terms.Interval))))
		heap.Push(&p.queue, e)
	}
	p.stir()
}

// Status returns what is known of a key, and whether it is asked.
func (p *Poller) Status(k Key) (Status, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.entries[k]; e != nil {
		return e.Status, true
	}
	return Status{}, false
}

// Counts returns how many questions had each outcome.
func (p *Poller) Counts() map[Outcome]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// Run asks until the context ends, and waits for the questions that are open then, which
// it aborts.
func (p *Poller) Run(ctx context.Context) error {
	var open sync.WaitGroup
	defer open.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-p.wake:
		}
		due, next := p.take(time.Now())
		for _, e := range due {
			open.Go(func() { p.ask(ctx, e) })
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(next), 0))
		}
	}
}

// take returns what is to be asked now, and when something is due next; zero: not before
// something changes.
func (p *Poller) take(now time.Time) (due []*entry, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.running < p.opts.Running && len(p.queue) > 0 && !p.queue[0].due.After(now) {
		due = append(due, heap.Pop(&p.queue).(*entry))
		p.running++
	}
	if p.running < p.opts.Running && len(p.queue) > 0 {
		next = p.queue[0].due
	}
	return due, next
}

// ask asks one host, and tells what came of it.
func (p *Poller) ask(ctx context.Context, e *entry) {
	began := time.Now()
	load, told, err := e.asker.ask(ctx)
	now := time.Now()
	p.mu.Lock()
	p.running--
	p.stir()
	if e.gone || ctx.Err() != nil {
		p.mu.Unlock()
		return
	}
	p.counts[outcome(err)]++
	first, before := e.Asked.IsZero(), e.Err
	if first || (err == nil) != (before == nil) {
		e.Since = now
	}
	e.Asked, e.Took, e.Err = now, now.Sub(began), err
	if told = told && err == nil; told {
		e.Load, e.Told = load, now
	}
	interval := float64(e.key.Terms.Interval) * (1 - jitterShare + 2*jitterShare*rand.Float64())
	e.due = began.Add(time.Duration(interval))
	heap.Push(&p.queue, e)
	p.mu.Unlock()

	switch {
	case err != nil && before == nil:
		p.opts.Log.Warn("a host does not tell its load", "host", e.key.Host, "err", err)
	case err == nil && before != nil:
		p.opts.Log.Info("a host tells its load again", "host", e.key.Host)
	}
	if told && p.opts.Loaded != nil {
		p.opts.Loaded(e.key, load, now)
	}
	if !same(before, err) && p.opts.Changed != nil {
		p.opts.Changed(e.key)
	}
}

func outcome(err error) Outcome {
	switch {
	case err == nil:
		return Answered
	case errors.Is(err, errSilent):
		return Silent
	}
	return Failed
}

// same reports whether two errors say the same.
func same(a, b error) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Error() == b.Error()
}

// stir has Run look.
func (p *Poller) stir() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// queue is a heap of entries, the longest due first.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	e := x.(*entry)
	e.place = len(*q)
	*q = append(*q, e)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last], *q = nil, (*q)[:last]
	e.place = -1
	return e
}
