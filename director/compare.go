package director

import (
	"iter"
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// touched is what differs between two states.
type touched struct {
	services  map[ServiceKey]bool
	timeouts  bool
	sync      bool
	drains    bool
	overrides bool
}

func (t touched) empty() bool {
	return len(t.services) == 0 && !t.timeouts && !t.sync && !t.drains && !t.overrides
}

// only returns the URL of the service if nothing but one differs.
func (t touched) only() string {
	if len(t.services) == 1 && !t.timeouts && !t.sync {
		for key := range t.services {
			return key.String()
		}
	}
	return ""
}

// of returns what t names of the state, and nothing of the rest.
func (t touched) of(s State) State {
	part := State{}
	if t.timeouts {
		part.Timeouts = s.Timeouts
	}
	if t.sync {
		part.Sync = s.Sync
	}
	if len(t.services) == 0 {
		return part
	}
	for _, service := range s.Services {
		if t.services[service.Key] {
			part.Services = append(part.Services, service)
		}
	}
	return part
}

// differing returns what is not equal in two normalized states. The order of
// servers, which no data plane can change, is not looked at.
func differing(a, b State) touched {
	t := touched{
		services: make(map[ServiceKey]bool), timeouts: a.Timeouts != b.Timeouts,
		sync:      !slices.Equal(a.Sync, b.Sync),
		drains:    !slices.EqualFunc(a.Drains, b.Drains, Drain.Equal),
		overrides: !slices.EqualFunc(a.Overrides, b.Overrides, Override.Equal),
	}
	for one, other := range pairs(a, b) {
		switch {
		case one == nil:
			t.services[other.Key] = true
		case other == nil || !sameService(one, other):
			t.services[one.Key] = true
		}
	}
	return t
}

// sameService compares settings and servers, in whatever order.
func sameService(a, b *Service) bool {
	if !sameSettings(a, b) || !a.Health.Equal(b.Health) || len(a.Servers) != len(b.Servers) {
		return false
	}
	if slices.Equal(a.Servers, b.Servers) {
		return true
	}
	has := indexServers(b.Servers)
	return !slices.ContainsFunc(a.Servers, func(s realserver.Server) bool { return has[s.Address] != s })
}

// pairs walks over the services of both states in the order of their keys; nil
// stands for a service that the other state alone has.
func pairs(a, b State) iter.Seq2[*Service, *Service] {
	as, bs := sortedServices(a), sortedServices(b)
	return func(yield func(*Service, *Service) bool) {
		i, j := 0, 0
		for i < len(as) || j < len(bs) {
			var one, other *Service
			order := 0
			switch {
			case i == len(as):
				order = 1
			case j == len(bs):
				order = -1
			default:
				order = as[i].Key.Compare(bs[j].Key)
			}
			if order <= 0 {
				one = &as[i]
				i++
			}
			if order >= 0 {
				other = &bs[j]
				j++
			}
			if !yield(one, other) {
				return
			}
		}
	}
}

// sortedServices returns the services in the order of their keys: those of s
// itself if they are.
func sortedServices(s State) []Service {
	if slices.IsSortedFunc(s.Services, compareServices) {
		return s.Services
	}
	return slices.SortedStableFunc(slices.Values(s.Services), compareServices)
}

func compareServices(a, b Service) int { return a.Key.Compare(b.Key) }

// Guard returns why going from current to next wants force: it removes more than
// limit per cent of the services or of the servers. Nil if it does not.
func Guard(next, current State, limit int) *GuardError {
	services, servers, allServers := 0, 0, 0
	for want, old := range pairs(next, current) {
		if old == nil {
			continue
		}
		allServers += len(old.Servers)
		if want == nil {
			services++
			servers += len(old.Servers)
			continue
		}
		servers += len(missing(old.Servers, want.Servers))
	}
	if 100*services > limit*len(current.Services) {
		return &GuardError{What: "services", Removed: services, Have: len(current.Services), Limit: limit}
	}
	if 100*servers > limit*allServers {
		return &GuardError{What: "servers", Removed: servers, Have: allServers, Limit: limit}
	}
	return nil
}

// missing returns the servers of all that are not in kept, by address.
func missing(all, kept []realserver.Server) []realserver.Server {
	if slices.EqualFunc(all, kept, func(a, b realserver.Server) bool { return a.Address == b.Address }) {
		return nil // most often, and without a map
	}
	keep := indexServers(kept)
	return slices.DeleteFunc(slices.Clone(all), func(s realserver.Server) bool {
		_, ok := keep[s.Address]
		return ok
	})
}
