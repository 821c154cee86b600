package director

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/event"
)

// DrainPhase says how far a drain is.
type DrainPhase string

// The phases.
const (
	PhaseDraining DrainPhase = "draining" // connections are left
	PhaseOverdue  DrainPhase = "overdue"  // connections are left after the deadline
	PhaseDrained  DrainPhase = "drained"  // none is left; the server may be removed
)

// DrainStatus is a drain and what its server has left.
type DrainStatus struct {
	Drain
	Phase  DrainPhase
	Active uint64
	// Inactive leaves out UDP, which is counted apart: its entries end by their
	// timeout alone. UDP is as of a few seconds ago.
	Inactive uint64
	UDP      uint64
	// Templates that name the server. None is followed, so that they keep no
	// drain from its end.
	Templates uint64
}

// Left is the number of connections that are left.
func (s DrainStatus) Left() uint64 { return s.Active + s.Inactive + s.UDP }

// due reports whether what is left is to be gone.
func (d Drain) due(now time.Time) bool {
	if d.Deadline.IsZero() {
		return d.Kill
	}
	return !now.Before(d.Deadline)
}

// Phase says how far the drain is with so many connections left.
func (d Drain) Phase(left uint64, now time.Time) DrainPhase {
	switch {
	case left == 0:
		return PhaseDrained
	case d.due(now):
		return PhaseOverdue
	default:
		return PhaseDraining
	}
}

// Drains returns the drains in force and what is left, by service and server.
func (d *Director) Drains(ctx context.Context) ([]DrainStatus, error) {
	state := d.State()
	if len(state.Drains) == 0 {
		return nil, nil
	}
	stats, err := d.dp.Stats(ctx)
	if err != nil {
		return nil, fmt.Errorf("read what draining servers have left: %w", err)
	}
	return statusOf(state.Drains, stats, time.Now()), nil
}

func statusOf(drains []Drain, stats Stats, now time.Time) []DrainStatus {
	type id struct {
		key  ServiceKey
		addr netip.AddrPort
	}
	servers := make(map[id]*ServerStats)
	for i := range stats.Services {
		service := &stats.Services[i]
		for j := range service.Servers {
			servers[id{service.Key, service.Servers[j].Server.Address}] = &service.Servers[j]
		}
	}
	all := make([]DrainStatus, len(drains))
	for i, drain := range drains {
		status := DrainStatus{Drain: drain}
		if server := servers[id{drain.Service, drain.Server}]; server != nil {
			status.Active, status.Templates = server.Active, server.Templates
			// The counts are of two moments; a UDP service has no others.
			if status.UDP = min(server.UDP, server.Inactive); drain.Service.Protocol == conntrack.UDP {
				status.UDP = server.Inactive
			}
			status.Inactive = server.Inactive - status.UDP
		}
		status.Phase = drain.Phase(status.Left(), now)
		all[i] = status
	}
	return all
}

const (
	// drainInterval is how often drains are looked at.
	drainInterval = time.Second
	// progressInterval is the least time between two events of progress.
	progressInterval = 10 * time.Second
)

// watched is what was told of a drain.
type watched struct {
	Drain
	phase   DrainPhase // "": nothing yet
	left    uint64
	told    time.Time
	seen    uint64 // what was left when it was looked at last
	failing bool   // the last attempt to remove what is left failed
	leased  bool   // the server came by a lease
}

// RunDrains follows the drains until the context ends, nil then: it tells their
// progress by events, and removes at the deadline what is left where that is the
// order. It begins with those an earlier daemon left.
func (d *Director) RunDrains(ctx context.Context) error {
	ticker := time.NewTicker(drainInterval)
	defer ticker.Stop()
	following := make(map[Drain]*watched)
	began := time.Now().Truncate(time.Second)
	for {
		if following = d.followDrains(ctx, following, began); ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// followDrains looks at each drain once; it returns those that are in force. Those
// ordered before began are an earlier daemon's.
func (d *Director) followDrains(ctx context.Context, before map[Drain]*watched, began time.Time) map[Drain]*watched {
	drains, err := d.Drains(ctx)
	if err != nil {
		return before // director/watch tells that the counters cannot be read
	}
	now := time.Now()
	following := make(map[Drain]*watched, len(drains))
	for _, status := range drains {
		id := Drain{Service: status.Service, Server: status.Server, Since: status.Since}
		w := before[id]
		if w == nil {
			w = &watched{}
			d.tellDrain(event.DrainStarted, status, "%s", begun(status, status.Since.Before(began)))
		}
		w.Drain, w.seen, w.leased = status.Drain, status.Left(), !d.head.Load().State.configures(status.Service, status.Server)
		following[id] = w
		if status.Left() > 0 && status.Kill && status.due(now) {
			d.cut(ctx, w, status)
			continue
		}
		d.tellProgress(w, status, now)
	}
	for id, w := range before {
		service, err := d.Service(w.Service)
		switch {
		case following[id] != nil || w.seen == 0:
		case err != nil || !service.mayHave(w.Server) || !w.leased && service.Server(w.Server) < 0:
			d.tellDrain(event.DrainCut, DrainStatus{Drain: w.Drain}, "cut: the server was removed with %s", countLeft(w.seen))
		default:
			d.tellDrain(event.DrainCancelled, DrainStatus{Drain: w.Drain}, "cancelled with %s", countLeft(w.seen))
		}
	}
	return following
}

func begun(s DrainStatus, resumed bool) string {
	text := "begun"
	if resumed {
		text = "resumed"
	}
	text += ": " + countLeft(s.Left())
	switch {
	case s.Deadline.IsZero():
	case s.Kill:
		text += ", to be removed at " + s.Deadline.Format(time.RFC3339)
	default:
		text += ", due at " + s.Deadline.Format(time.RFC3339)
	}
	return text
}

// tellProgress publishes what changed since the last event.
func (d *Director) tellProgress(w *watched, s DrainStatus, now time.Time) {
	switch {
	case s.Phase != w.phase && s.Phase == PhaseDrained:
		d.tellDrain(event.DrainFinished, s, "finished: no connection is left")
	case s.Phase != w.phase && s.Phase == PhaseOverdue:
		d.tellDrain(event.DrainOverdue, s, "overdue: %s at the deadline", countLeft(s.Left()))
	case w.phase == "":
	case s.Left() != w.left && now.Sub(w.told) >= progressInterval:
		d.tellDrain(event.DrainProgress, s, "%s: %d active, %d inactive, %d udp", countLeft(s.Left()), s.Active, s.Inactive, s.UDP)
	default:
		return
	}
	w.phase, w.left, w.told = s.Phase, s.Left(), now
}

// cut removes what is left at the deadline. What fails is tried again.
func (d *Director) cut(ctx context.Context, w *watched, s DrainStatus) {
	n, err := d.dp.Kill(ctx, ConnectionFilter{Service: s.Service, Server: s.Server})
	if err != nil {
		if !w.failing && ctx.Err() == nil {
			d.tellDrain(event.DrainFailed, s, "remove what is left: %v", err)
		}
		w.failing = true
		return
	}
	w.failing = false
	if n > 0 {
		d.tellDrain(event.DrainKilled, s, "connections and templates removed: %d", n)
	}
	w.phase, w.left = PhaseOverdue, s.Left()
}

func countLeft(n uint64) string {
	if n == 1 {
		return "1 connection left"
	}
	return fmt.Sprintf("%d connections left", n)
}

func (d *Director) tellDrain(name event.Name, s DrainStatus, format string, args ...any) {
	d.opts.Events.Publish(event.Event{
		Name: name, Service: s.Service.String(), Server: s.Server.String(),
		Message: fmt.Sprintf("drain of server %s of %s: ", s.Server, s.Service) + fmt.Sprintf(format, args...),
	})
}
