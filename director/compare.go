package director

import (
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// Same reports whether the states are equal but for the order of servers, which
// no data plane can change. Both must be normalized.
func Same(a, b State) bool { return differing(a, b).empty() }

// touched is what differs between two states.
type touched struct {
	services map[ServiceKey]bool
	timeouts bool
}

func (t touched) empty() bool { return len(t.services) == 0 && !t.timeouts }

// of returns what t names of the state, and nothing of the rest.
func (t touched) of(s State) State {
	part := State{}
	if t.timeouts {
		part.Timeouts = s.Timeouts
	}
	for _, service := range s.Services {
		if t.services[service.Key] {
			part.Services = append(part.Services, service)
		}
	}
	return part
}

func differing(a, b State) touched {
	t := touched{services: make(map[ServiceKey]bool), timeouts: a.Timeouts != b.Timeouts}
	has := indexServices(b)
	for _, service := range a.Services {
		if other, ok := has[service.Key]; !ok || !sameService(service, other) {
			t.services[service.Key] = true
		}
		delete(has, service.Key)
	}
	for key := range has {
		t.services[key] = true
	}
	return t
}

// sameService compares settings and servers, in whatever order.
func sameService(a, b Service) bool {
	if !sameSettings(a, b) || len(a.Servers) != len(b.Servers) {
		return false
	}
	if slices.Equal(a.Servers, b.Servers) {
		return true
	}
	has := indexServers(b)
	return !slices.ContainsFunc(a.Servers, func(s realserver.Server) bool { return has[s.Address] != s })
}

// Guard returns a *GuardError if going from current to next removes more than
// limit per cent of the services or of the servers.
func Guard(next, current State, limit int) error {
	services, servers, allServers := 0, 0, 0
	wanted := indexServices(next)
	for _, old := range current.Services {
		allServers += len(old.Servers)
		want, ok := wanted[old.Key]
		if !ok {
			services++
		}
		keep := indexServers(want)
		for _, server := range old.Servers {
			if _, ok := keep[server.Address]; !ok {
				servers++
			}
		}
	}
	if 100*services > limit*len(current.Services) {
		return &GuardError{What: "services", Removed: services, Have: len(current.Services), Limit: limit}
	}
	if 100*servers > limit*allServers {
		return &GuardError{What: "servers", Removed: servers, Have: allServers, Limit: limit}
	}
	return nil
}
