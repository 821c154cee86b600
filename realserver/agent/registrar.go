package agent

import (
	"context"
	"crypto/rand"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How long until what failed is tried again, at first and at most.
const (
	retryLeast = 500 * time.Millisecond
	retryMost  = 10 * time.Second
	// drainEvery is the time between two questions how many connections are left.
	drainEvery = time.Second
)

// Registrar keeps a host's servers registered at its directors.
type Registrar struct {
	settings  Settings
	directors []*director
	boot      string
	sequence  atomic.Uint64
	load      func() *Load
	command   *loadCommand // nil: none
	log       *slog.Logger
}

// NewRegistrar returns one that has said nothing yet; the files of certificates are read.
func NewRegistrar(s Settings, log *slog.Logger) (*Registrar, error) {
	r := &Registrar{settings: s, boot: rand.Text(), log: log, load: newMeter().measure}
	for _, where := range s.Directors {
		d, err := newDirector(where, &r.settings)
		if err != nil {
			return nil, err
		}
		r.directors = append(r.directors, d)
	}
	if len(s.LoadCommand) > 0 {
		var err error
		if r.command, err = newLoadCommand(&s, r.load, log); err != nil {
			return nil, err
		}
		r.load = r.command.load
	}
	return r, nil
}

// Run registers every server at every director and renews the leases until the context
// ends. Then it asks for no new connections, waits until those there are have ended, or
// for as long as Settings.Drain says, and takes the servers away. Directors that do not
// answer are asked again, and keep nobody from the others.
func (r *Registrar) Run(ctx context.Context) error {
	var all sync.WaitGroup
	if r.command != nil {
		all.Go(func() { r.command.keep(ctx) })
	}
	for _, d := range r.directors {
		for _, m := range r.settings.Members {
			all.Go(func() {
				if r.keep(ctx, d, m) {
					// What is left to be said is said although the context has ended.
					r.leave(context.WithoutCancel(ctx), d, m)
				}
			})
		}
	}
	all.Wait()
	for _, d := range r.directors {
		d.client.CloseIdleConnections()
	}
	return nil
}

// keep renews a lease, each time before half of it is over. It reports whether there
// may be one at the end: not if another run of the agent has it. That one is left alone:
// two that took it from each other would have neither server in rotation for long. Nor if
// the director has never let this run in, nor does now.
func (r *Registrar) keep(ctx context.Context, d *director, m MemberSettings) bool {
	failures, wait := 0, time.Duration(0)
	taken, denied := false, false
	said := ""            // why it failed last
	var without []leftOut // as it was said last
	for pause(ctx, wait) {
		answer, err := d.register(ctx, m.Pool, r.message(m, false))
		switch {
		case ctx.Err() != nil:
			return taken || !denied
		case isSuperseded(err):
			r.log.Error("another host, or another process, has registered as this agent: the server of this one is not offered until it is started again", "agent", r.settings.Agent, "err", err)
			<-ctx.Done()
			return false
		case err != nil:
			if why := causeOf(err); why != said {
				r.log.Warn("a director does not take the server; it is asked again", "err", err)
				said = why
			}
			wait = jitter(min(retryLeast<<min(failures, 10), retryMost, r.settings.Lease/4))
			failures++
			denied = isDenied(err)
		default:
			if failures > 0 || wait == 0 {
				r.log.Info("registered", "director", d.url, "pool", m.Pool, "server", m.Address)
			}
			if !slices.Equal(answer.LeftOut, without) {
				without = answer.LeftOut
				r.sayLeftOut(d, m, without)
			}
			failures, wait, said = 0, jitter(r.settings.Lease*2/5), ""
			taken = true
		}
	}
	return taken || !denied
}

// sayLeftOut says in which services of the pool the registration has no effect.
func (r *Registrar) sayLeftOut(d *director, m MemberSettings, services []leftOut) {
	if len(services) == 0 {
		r.log.Info("all services of the pool take the server now", "director", d.url, "pool", m.Pool, "server", m.Address)
	}
	for _, l := range services {
		r.log.Warn("a service does not take the server: the registration has no effect there", "director", d.url, "pool", m.Pool, "server", m.Address, "service", l.Service, "why", l.Why)
	}
}

// leave drains the server and takes it away.
func (r *Registrar) leave(ctx context.Context, d *director, m MemberSettings) {
	until := time.Now().Add(r.settings.Drain)
	said := ""
	for drains := false; ; {
		answer, err := d.register(ctx, m.Pool, r.message(m, true))
		if isSuperseded(err) {
			r.log.Info("nothing is left to drain: another run of this agent has registered", "err", err)
			return
		}
		if err != nil {
			if why := causeOf(err); why != said {
				r.log.Warn("a director does not drain the server; it is asked again", "err", err)
				said = why
			}
		} else if drains && answer.Connections != nil && *answer.Connections == 0 {
			break
		}
		// The first answer is of a moment in which connections still came.
		drains = drains || err == nil
		left := time.Until(until)
		if left <= 0 {
			why := "connections are left, and time is over"
			if err != nil {
				why = "time is over, and nobody knows what connections are left"
			}
			r.log.Warn(why, "director", d.url, "pool", m.Pool)
			break
		}
		pause(ctx, min(jitter(drainEvery), left))
	}
	if err := d.deregister(ctx, m.Pool, r.boot, r.sequence.Add(1)); err != nil {
		r.log.Warn("the lease ends by itself", "err", err)
		return
	}
	r.log.Info("left", "director", d.url, "pool", m.Pool, "server", m.Address)
}

// message is the next one of this run: what the server and its host are at this moment.
func (r *Registrar) message(m MemberSettings, draining bool) message {
	return message{
		Boot: r.boot, Sequence: r.sequence.Add(1), Lifetime: r.settings.Lease.String(), Draining: draining, Load: r.load(),
		Server: messageServer{Address: m.Address, Method: m.Method, Weight: m.Weight},
	}
}

// jitter is up to a fifth less: hosts that start together do not ask together for ever.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(mathrand.Int64N(int64(d/5)+1))
}

// pause reports whether the time passed before the context ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
