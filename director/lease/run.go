package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/director/event"
)

// saveEvery is how late the file may be with renewals: what they say that the file does
// not is when they came.
const saveEvery = time.Second

// Run ends leases when their time is over, each once, and keeps the file, until the
// context ends. It returns nil then.
func (r *Registry) Run(ctx context.Context) error {
	defer r.saveAll()
	written := time.NewTimer(0)
	defer written.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		case <-written.C:
			r.saveAll()
			written.Reset(saveEvery)
		}
		timer.Reset(r.expire())
	}
}

// expire ends the leases whose time is over, and returns how long it is until the next
// one's may be.
func (r *Registry) expire() time.Duration {
	now, wait := r.opts.Now(), MaxLifetime
	var ended []news
	pools := make(map[string]bool)
	r.mu.Lock()
	for key, have := range r.records {
		switch {
		case have.in && !now.Before(have.Until):
			ended = append(ended, news{
				event.LeaseExpired, key, have.Server,
				fmt.Sprintf("server %s did not renew its lease of %s", have.Server.Address, have.Lifetime),
			})
			pools[key.pool] = true
			r.counts.Expired++
			r.end(have)
		case have.in:
			wait = min(wait, have.Until.Sub(now))
		case now.Sub(have.left) >= keepLeft:
			delete(r.records, key)
			r.version++
		}
	}
	r.forget()
	version := r.version
	r.mu.Unlock()
	for i := range ended {
		ended[i].publish(r.opts.Events)
	}
	if len(ended) > 0 {
		r.save(version)
	}
	for pool := range pools {
		r.tell(pool)
	}
	return wait
}

// forget bounds how many are remembered that left: the first to have left go.
func (r *Registry) forget() {
	for len(r.records) > 2*r.opts.Members {
		var first id
		var when time.Time
		for key, have := range r.records {
			if !have.in && (when.IsZero() || have.left.Before(when)) {
				first, when = key, have.left
			}
		}
		if when.IsZero() {
			return
		}
		delete(r.records, first)
		r.version++
	}
}

// Announce tells Changed every pool: what a restart found.
func (r *Registry) Announce() {
	for _, pool := range r.Pools() {
		r.tell(pool)
	}
}
