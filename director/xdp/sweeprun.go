package xdp

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sweepInterval is the shortest time from the begin of one sweep to that of the
	// next, and that between reviews. Large tables take longer.
	sweepInterval = 2 * time.Second
	// sweepShare is what sweeps may use of one CPU.
	sweepShare = 0.02
	// stepInterval is how often a sweep goes on for what it has earned meanwhile.
	stepInterval = 20 * time.Millisecond
	// mostCredit bounds what is earned while nothing is done: slices follow one another
	// for no longer than that.
	mostCredit = 2 * time.Millisecond
)

// Run sweeps the tables, samples the rates and repairs what others changed until the
// context ends, and fails if following next hops does.
func (d *Dataplane) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	defer working.Wait()
	defer cancel()
	working.Go(func() { d.sampleRates(ctx) })
	working.Go(func() { d.keepSweeping(ctx) })
	working.Go(func() { d.settleTables(ctx) })
	lost := make(chan error, 1) // one message, from the one waiter
	go func() { lost <- d.background.Wait() }()
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost:
			if d.isClosed() {
				return nil // detached or closed beside us
			}
			return fmt.Errorf("follow next hops: %w", err)
		case <-ticker.C:
			if err := d.review(); err != nil && ctx.Err() == nil && !d.isClosed() {
				d.opts.Log.Error("what others changed is not repaired: the next try is in two seconds", "err", err)
			}
		}
	}
}

func (d *Dataplane) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// keepSweeping has one sweep follow another until the context ends.
func (d *Dataplane) keepSweeping(ctx context.Context) {
	p := pace{at: time.Now(), next: time.Now().Add(sweepInterval)}
	timer := time.NewTimer(sweepInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait, err := d.goOn(ctx, &p, time.Now())
		if err != nil && ctx.Err() == nil && !d.isClosed() {
			d.opts.Log.Error("sweep failed; expired connections stay until the next one", "err", err)
		}
		timer.Reset(wait)
	}
}

// pace is what keeps sweeps to their share of a CPU. Times are monotonic: no step of
// the clock is seen.
type pace struct {
	run    *sweepRun // under way; nil: none
	next   time.Time // the earliest begin of the next
	at     time.Time // when credit was
	credit time.Duration
}

// earn adds what the time since the last call is worth.
func (p *pace) earn(now time.Time) {
	p.credit = min(mostCredit, p.credit+time.Duration(float64(now.Sub(p.at))*sweepShare))
	p.at = now
}

// goOn does what is due of a sweep and returns when to call it again.
func (d *Dataplane) goOn(ctx context.Context, p *pace, now time.Time) (time.Duration, error) {
	p.earn(now)
	if p.run == nil && now.Before(p.next) {
		return p.next.Sub(now), nil
	}
	runtime.LockOSThread() // whose CPU time is read
	defer runtime.UnlockOSThread()
	start := threadTime()
	done, err := d.step(ctx, p, now, start)
	used := threadTime() - start
	p.credit -= used
	if err != nil {
		p.run, p.next = nil, now.Add(sweepInterval)
		if errors.Is(err, errCarrying) {
			err = nil
		}
		return sweepInterval, err
	}
	p.run.used += used
	if !done {
		return stepInterval, nil
	}
	d.noteShare(p.run, now)
	p.run = nil
	return max(0, p.next.Sub(now)), nil
}

// step goes on with the sweep, or begins one, until the thread has used what there is
// of credit since start; done: the sweep is complete.
func (d *Dataplane) step(ctx context.Context, p *pace, now time.Time, start time.Duration) (done bool, err error) {
	if p.run == nil {
		p.next = now.Add(sweepInterval)
		if p.run, err = d.beginSweep(now); err != nil {
			return false, err
		}
	}
	for !done && threadTime()-start < p.credit {
		if done, err = d.sweepSlice(ctx, p.run); err != nil {
			return false, err
		}
	}
	if done {
		err = d.finishSweep(p.run)
	}
	return done, err
}

// noteShare keeps for Stats what the sweep took, whose successor begins now or when
// the interval is over.
func (d *Dataplane) noteShare(w *sweepRun, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweeps.period = max(sweepInterval, now.Sub(w.began))
	d.sweeps.share = float64(w.used) / float64(d.sweeps.period)
}

// threadTime is how much CPU time the calling thread has used.
func threadTime() time.Duration {
	var t unix.Timespec
	// It has no way to fail; kernel: kernel/time/posix-cpu-timers.c, posix_cpu_clock_get.
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}
