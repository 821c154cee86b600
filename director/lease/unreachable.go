package lease

import (
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/director/event"
)

// reportFor is how long a report counts: what was unreachable then may be reachable now.
const reportFor = 30 * time.Second

// Unreachable takes the report that a member's server cannot be reached; by is who says
// so, who counts once. When enough do, Suspect hears of it, and their count begins anew.
// It returns how many there are now, and how many are wanted. The error is a *Refusal.
//
// A report alone takes nothing out (RFC 5352 §3.5 has its servers ask too): it may be
// the reporter that is cut off.
func (r *Registry) Unreachable(pool, agent, by string) (now, wanted int, err error) {
	key := id{pool, agent}
	r.mu.Lock()
	have, at := r.records[key], r.opts.Now()
	switch {
	case have == nil || !have.in:
		r.mu.Unlock()
		return 0, 0, r.refused(key, refuse(NoMember, "report %s: it is not registered", key))
	case !have.heard.AllowN(at, 1):
		r.mu.Unlock()
		return 0, 0, r.refused(key, refuse(TooFast, "report %s: too many messages of it: want %d a second at most", key, time.Second/memberEvery))
	}
	for who, when := range have.reports {
		if at.Sub(when) >= reportFor {
			delete(have.reports, who)
		}
	}
	if have.reports == nil {
		have.reports = make(map[string]time.Time)
	}
	have.reports[by] = at
	r.counts.Reports++
	n, server := len(have.reports), have.Server
	if n >= r.opts.Reports {
		have.reports = nil // which bounds it
	}
	r.mu.Unlock()
	if n < r.opts.Reports {
		return n, r.opts.Reports, nil
	}
	r.opts.Events.Publish(event.Event{
		Name: event.ServerReported, Server: server.Address.String(),
		Message: fmt.Sprintf("%s: server %s was reported unreachable by %d, of whom %s was the last", key, server.Address, n, by),
	})
	if r.opts.Suspect != nil {
		r.opts.Suspect(pool, server)
	}
	return n, r.opts.Reports, nil
}
