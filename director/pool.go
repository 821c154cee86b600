package director

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// Takes says why the service does not take a server of its pool; nil if it does. What
// is configured stands: who registers the same address has no effect there.
func (s *Service) Takes(server realserver.Server, features Features) error {
	if address := s.Key.ServerAddress(server.Address); s.Server(address) >= 0 {
		return fmt.Errorf("server %s of service %s is configured, on terms of its own: its registration has no effect there", address, s.label())
	}
	return s.Suits(server, features)
}

// FromPool returns those of the servers registered in the service's pool that it takes,
// as it has them: those with a drain are drained. No more than it has room for, beside
// its sorry servers.
func (s State) FromPool(service *Service, registered []realserver.Server, features Features) []realserver.Server {
	if service.Health.Pool == "" {
		return nil
	}
	var taken []realserver.Server
	room := MaxServers - len(service.Servers) - len(service.Health.Sorry)
	for _, server := range registered {
		if len(taken) >= room {
			break
		}
		server = service.Key.normalizeServer(server)
		if service.Takes(server, features) != nil {
			continue
		}
		if _, ordered := s.Drain(service.Key, server.Address); ordered {
			server.Draining = true
		}
		taken = append(taken, server)
	}
	return taken
}

// guard is Guard with the servers that agents registered, whom a change of their
// service's pool removes as well.
func (d *Director) guard(p draft, current State) *GuardError {
	offered := indexServices(p.offered)
	have := func(key ServiceKey) []realserver.Server { return d.last[key].Servers }
	will := func(key ServiceKey) []realserver.Server {
		if i, ok := offered[key]; ok {
			return p.offered.Services[i].Servers
		}
		return have(key)
	}
	return Guard(p.next.withRegistered(will), current.withRegistered(have), int(d.maxRemoval.Load()))
}

// withRegistered returns s with those servers of its services that are offered and that
// are neither configured nor sorry servers.
func (s State) withRegistered(offered func(ServiceKey) []realserver.Server) State {
	s.Services = slices.Clone(s.Services)
	for i := range s.Services {
		service := &s.Services[i]
		if service.Health.Pool == "" {
			continue
		}
		own := indexServers(service.Servers)
		for _, sorry := range service.Health.Sorry {
			own[service.Key.ServerAddress(sorry.Address)] = sorry
		}
		service.Servers = slices.Clip(service.Servers)
		for _, server := range offered(service.Key) {
			if _, ok := own[server.Address]; !ok {
				service.Servers = append(service.Servers, server)
			}
		}
	}
	return s
}

// mayHave reports whether a server of the address is configured, or may come by a lease:
// an order outlives the leases of its server.
func (s *Service) mayHave(addr netip.AddrPort) bool {
	return s.Health.Pool != "" || s.Server(addr) >= 0
}

// configures reports whether the service is there and configured with the server.
func (s State) configures(key ServiceKey, addr netip.AddrPort) bool {
	i := s.Service(key)
	return i >= 0 && s.Services[i].Server(addr) >= 0
}

// withoutOrdersOf returns s without the orders about servers that head has configured
// and s has not: an agent may come with such an address later, and they were about
// the server that is gone.
func (s State) withoutOrdersOf(head State) State {
	gone := func(key ServiceKey, addr netip.AddrPort) bool {
		return head.configures(key, addr) && !s.configures(key, addr)
	}
	s.Drains = slices.DeleteFunc(slices.Clone(s.Drains), func(d Drain) bool { return gone(d.Service, d.Server) })
	s.Overrides = slices.DeleteFunc(slices.Clone(s.Overrides), func(o Override) bool { return gone(o.Service, o.Server) })
	return s
}

// order runs a change that is about one server, which need not be registered at the
// moment: ErrNotFound, with what is missing, if there is no such service, or if the
// service cannot have the server. What follows for the kernel is done at once, of
// servers that agents registered too; what cannot be is repaired by Run.
func (d *Director) order(ctx context.Context, c change, key ServiceKey, addr netip.AddrPort, edit func(*State) error) (Outcome, error) {
	outcome, err := d.change(ctx, c, func(s *State) error {
		if i := s.Service(key); i < 0 {
			return fmt.Errorf("service: %w", ErrNotFound)
		} else if !s.Services[i].mayHave(addr) {
			return fmt.Errorf("server: %w", ErrNotFound)
		}
		return edit(s)
	})
	if err != nil {
		return outcome, err
	}
	if err := d.Reoffer(ctx, key); err != nil {
		d.opts.Log.Warn("an order is kept, but not in force yet", "service", key, "server", addr, "err", err)
	}
	return outcome, nil
}
