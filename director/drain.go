package director

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// Drain is an operator's order to take a server out: no new connections, no use
// of its templates, while those that are there go on. It is part of the desired
// state, so that it outlives the daemon, and not of the configuration: Apply
// keeps the drains of servers that stay, and of those of foreign services that it
// takes over. A server that an agent registered has its drain whatever becomes of
// its lease.
type Drain struct {
	Service ServiceKey
	Server  netip.AddrPort
	Since   time.Time // UTC, whole seconds
	// Deadline is when what is left is due to be gone; zero: never. UTC, whole
	// seconds.
	Deadline time.Time
	// Kill: what is left at the deadline is removed; without a deadline, at once.
	Kill bool
}

// compare orders drains by service and server, which identify them.
func (d Drain) compare(o Drain) int {
	return cmp.Or(d.Service.Compare(o.Service), d.Server.Compare(o.Server))
}

// Equal reports whether the orders are the same.
func (d Drain) Equal(o Drain) bool {
	return d.compare(o) == 0 && d.Since.Equal(o.Since) && d.Deadline.Equal(o.Deadline) && d.Kill == o.Kill
}

// Drain returns the server's drain, and whether it has one.
func (s State) Drain(key ServiceKey, server netip.AddrPort) (Drain, bool) {
	i, ok := slices.BinarySearchFunc(s.Drains, Drain{Service: key, Server: server}, Drain.compare)
	if !ok {
		return Drain{}, false
	}
	return s.Drains[i], true
}

// drained returns s with Draining set for the servers that have a drain, and for
// no others, and without the drains of servers that cannot be there; of two drains
// of a server the first counts. Services that
// change are replaced as a whole; s is not changed.
func (s State) drained() State {
	places := indexServices(s)
	drains := make(map[ServiceKey]map[netip.AddrPort]bool)
	s.Drains = slices.DeleteFunc(slices.Clone(s.Drains), func(d Drain) bool {
		i, ok := places[d.Service]
		if !ok || !s.Services[i].mayHave(d.Server) {
			return true
		}
		if drains[d.Service] == nil {
			drains[d.Service] = make(map[netip.AddrPort]bool)
		}
		drains[d.Service][d.Server] = true
		return false
	})
	slices.SortStableFunc(s.Drains, Drain.compare)
	s.Drains = slices.CompactFunc(s.Drains, func(a, b Drain) bool { return a.compare(b) == 0 })
	s.Services = slices.Clone(s.Services)
	for i := range s.Services {
		service := &s.Services[i]
		ordered := drains[service.Key]
		wrong := func(server realserver.Server) bool { return server.Draining != ordered[server.Address] }
		if !slices.ContainsFunc(service.Servers, wrong) {
			continue // its memory may be shared
		}
		*service = service.Clone()
		for j := range service.Servers {
			service.Servers[j].Draining = ordered[service.Servers[j].Address]
		}
	}
	return s
}

// orderedNow is a drain without terms.
func orderedNow(key ServiceKey, server netip.AddrPort) Drain {
	return Drain{Service: key, Server: server, Since: time.Now().UTC().Truncate(time.Second)}
}

// drainsAfter returns the drains in force after next replaces current: those of
// now, which are orders of now, and for servers that come back while next drains
// them one without next's terms, which were of then. A server that comes by a lease
// comes back with its service alone: who cancelled its drain since gave it back.
func drainsAfter(next, current State) []Drain {
	drains := slices.Clone(current.Drains)
	places := indexServices(current)
	for _, old := range next.Drains {
		i, ok := places[old.Service]
		if !ok || current.Services[i].Server(old.Server) < 0 && next.configures(old.Service, old.Server) {
			drains = append(drains, orderedNow(old.Service, old.Server))
		}
	}
	return drains
}

// foreignDrains returns drains for the servers that are drained in foreign
// services that next takes over: their orders were lost.
func (d *Director) foreignDrains(next, found State) []Drain {
	var drains []Drain
	wanted := indexServices(next)
	for _, service := range found.Services {
		if _, ok := wanted[service.Key]; !ok || d.ours[service.Key] {
			continue
		}
		for _, server := range service.Servers {
			if server.Draining {
				drains = append(drains, orderedNow(service.Key, server.Address))
			}
		}
	}
	return drains
}

// DrainServer takes a server out on the terms of the order, which begins now; port
// 0 of its server is the service's. A server that drains already is given the new
// terms and keeps its beginning. ErrNotFound if there is no such service or server.
// A service with a pool takes orders for any address: who asks knows what is
// registered.
func (d *Director) DrainServer(ctx context.Context, by Request, order Drain) (Outcome, error) {
	order.Server = order.Service.ServerAddress(order.Server)
	order.Deadline = order.Deadline.UTC().Truncate(time.Second)
	return d.changeDrain(ctx, by, "drain", order.Service, order.Server, func(s *State) error {
		order.Since = time.Now().UTC().Truncate(time.Second)
		if old, ok := s.Drain(order.Service, order.Server); ok {
			order.Since = old.Since
			s.Drains = slices.DeleteFunc(s.Drains, func(d Drain) bool { return d.compare(old) == 0 })
		}
		s.Drains = append(s.Drains, order)
		return nil
	})
}

// CancelDrain gives a server back to its service. ErrNotFound if it has no drain.
func (d *Director) CancelDrain(ctx context.Context, by Request, key ServiceKey, addr netip.AddrPort) (Outcome, error) {
	addr = key.ServerAddress(addr)
	return d.changeDrain(ctx, by, "cancel the drain of", key, addr, func(s *State) error {
		old, ok := s.Drain(key, addr)
		if !ok {
			return fmt.Errorf("drain: %w", ErrNotFound)
		}
		s.Drains = slices.DeleteFunc(s.Drains, func(d Drain) bool { return d.compare(old) == 0 })
		return nil
	})
}

// changeDrain runs a change of a server's drain; edit is given drains of its own.
func (d *Director) changeDrain(ctx context.Context, by Request, verb string, key ServiceKey, addr netip.AddrPort, edit func(*State) error) (Outcome, error) {
	return d.order(ctx, change{by: by, action: fmt.Sprintf("%s server %s of %s", verb, addr, key)}, key, addr, func(s *State) error {
		s.Drains = slices.Clone(s.Drains)
		return edit(s)
	})
}
