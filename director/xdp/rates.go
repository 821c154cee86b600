package xdp

import (
	"context"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// beginRates has the rates of what was adopted begin from their counters as they
// are: what was counted before is no rate. Called with mu held.
func (d *Dataplane) beginRates() error {
	return d.eachCounted(func(e *director.Estimator, now director.Counters) { e.Reset(now) })
}

// sampleRates brings the rates up to date until the context ends. It does not wait
// for the sweep, which a large table may make longer than an interval.
func (d *Dataplane) sampleRates(ctx context.Context) {
	ticker := time.NewTicker(director.EstimateSeconds * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := d.sample(ctx); err != nil && ctx.Err() == nil && !d.isClosed() {
				d.opts.Log.Error("rates are those of two seconds ago: the counters cannot be read", "err", err)
			}
		}
	}
}

// sample takes one sample of each service and server.
func (d *Dataplane) sample(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return err
	}
	return d.eachCounted(func(e *director.Estimator, now director.Counters) { e.Sample(now) })
}

// eachCounted gives each the estimator of every service and server, and its
// counters: those that are removed may come back, and go on counting until then.
func (d *Dataplane) eachCounted(each func(*director.Estimator, director.Counters)) error {
	c, err := d.readCounters()
	if err != nil {
		return err
	}
	for _, svc := range d.model.services {
		each(&svc.rates, c.total(svc))
		for _, s := range svc.members {
			each(&s.rates, counters(c.traffic[s.index]))
		}
	}
	return nil
}
