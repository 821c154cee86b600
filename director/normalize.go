package director

import (
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// Normalize returns a copy with the defaults filled in: the scheduler, the
// owner of the address, the prefix of limited sources, the guard's thresholds, and
// the service's only port for servers whose port is 0.
// ipvsadm forces the port of DR and local servers silently; here a different
// one is Validate's to refuse.
func (s Service) Normalize() Service {
	s = s.Clone()
	if s.Scheduler == "" {
		s.Scheduler = DefaultScheduler
	}
	if s.VIP == "" {
		s.VIP = VIPManaged
	}
	s.Access = s.Access.Normalize()
	s.Limits, s.Guard = s.Limits.normalize(s.Key), s.Guard.normalize()
	for i := range s.Servers {
		s.Servers[i] = s.Key.normalizeServer(s.Servers[i])
	}
	s.Health = s.Health.normalize(s.Key)
	return s
}

// normalize fills in the service's port for sorry servers without one.
func (h Health) normalize(key ServiceKey) Health {
	h.Sorry = slices.Clone(h.Sorry)
	for i := range h.Sorry {
		h.Sorry[i] = key.normalizeServer(h.Sorry[i])
	}
	return h
}

func (k ServiceKey) normalizeServer(server realserver.Server) realserver.Server {
	server.Address = k.ServerAddress(server.Address)
	return server
}

// ServerAddress returns the address with the service's port if it has none and
// the service one: the form servers of the service are identified by.
func (k ServiceKey) ServerAddress(addr netip.AddrPort) netip.AddrPort {
	if addr.Port() != 0 || k.AnyPort() {
		return addr
	}
	return netip.AddrPortFrom(addr.Addr(), k.Address.Port())
}

// Normalize returns a copy with every service normalized and sorted by key, and
// with those servers draining that have a drain. Overrides of servers that are not
// there go.
func (s State) Normalize() State {
	s.Services = slices.Clone(s.Services)
	for i := range s.Services {
		s.Services[i] = s.Services[i].Normalize()
	}
	slices.SortStableFunc(s.Services, compareServices)
	s.Sync = slices.Clone(s.Sync)
	for i := range s.Sync {
		s.Sync[i] = s.Sync[i].Normalize()
	}
	slices.SortStableFunc(s.Sync, compareSync)
	return s.drained().overridden()
}

// Clone returns a copy that shares nothing with s.
func (s State) Clone() State {
	s.Services, s.Drains, s.Sync = slices.Clone(s.Services), slices.Clone(s.Drains), slices.Clone(s.Sync)
	s.Overrides = slices.Clone(s.Overrides)
	for i := range s.Services {
		s.Services[i] = s.Services[i].Clone()
	}
	return s
}

// Service returns the index of the service with the key, or -1.
func (s State) Service(key ServiceKey) int {
	return slices.IndexFunc(s.Services, func(v Service) bool { return v.Key == key })
}
