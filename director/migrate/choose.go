package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// choose returns the services to move as the target will have them, the more
// specific ones first.
// all are the source's.
func (m *Mover) choose(all []director.Service, keys []director.ServiceKey) ([]director.Service, error) {
	chosen := slices.Clone(all)
	if len(keys) > 0 {
		chosen = nil
		for _, key := range keys {
			service, ok := find(all, key)
			if !ok {
				return nil, fmt.Errorf("service %s: %w in the kernel's IPVS", key, director.ErrNotFound)
			}
			chosen = append(chosen, service)
		}
	}
	// Of one address, the service of one port has its packets before that of all
	// ports (kernel: ip_vs_ctl.c, ip_vs_service_find): on XDP first, and last here.
	slices.SortStableFunc(chosen, func(a, b director.Service) int {
		switch {
		case a.Key.AnyPort() == b.Key.AnyPort():
			return 0
		case b.Key.AnyPort():
			return -1
		default:
			return 1
		}
	})
	for _, wide := range chosen {
		for _, other := range all {
			_, moves := find(chosen, other.Key)
			if wide.Key.AnyPort() && !moves && wide.Key.Protocol == other.Key.Protocol && wide.Key.Contains(other.Key.Address) {
				return nil, fmt.Errorf("service %s: %w without %s, whose packets it would get on XDP: move both", wide.Key, director.ErrInvalid, other.Key)
			}
		}
	}
	state := director.State{}
	desired := m.opts.Director.State()
	for _, service := range chosen {
		state.Services = append(state.Services, moved(service, desired))
	}
	return state.Services, errors.Join(state.Validate(), m.opts.Director.Features().Check(state))
}

func find(services []director.Service, key director.ServiceKey) (director.Service, bool) {
	i := slices.IndexFunc(services, func(s director.Service) bool { return s.Key == key })
	if i < 0 {
		return director.Service{}, false
	}
	return services[i], true
}

// moved returns a service of the source as the target will have it. One that is
// desired already is as it is desired.
func moved(service director.Service, desired director.State) director.Service {
	if ours, ok := find(desired.Services, service.Key); ok {
		return ours
	}
	service.VIP = director.VIPExternal // somebody else put it on the host
	if service.Timeouts == desired.Timeouts {
		service.Timeouts = conntrack.Timeouts{}
	}
	return service.Normalize()
}

// bypassed names what packets to the services come by on their way to the source,
// and not on that to the target: rules of the firewall, services of marks, servers
// that only the source has.
// all are the source's services.
func (m *Mover) bypassed(ctx context.Context, all, services []director.Service) ([]string, error) {
	bypassed, err := m.opts.Bypassed(ctx, services)
	if err != nil {
		return nil, fmt.Errorf("look at the firewall: %w", err)
	}
	for _, service := range all {
		ours, ok := find(services, service.Key)
		for _, server := range service.Servers {
			if ok && ours.Server(server.Address) < 0 {
				bypassed = append(bypassed, fmt.Sprintf("the kernel's IPVS has server %s of %s, which Shunt has not: its connections are cut", server.Address, service.Key))
			}
		}
		if service.Key.IsMark() {
			bypassed = append(bypassed, fmt.Sprintf("the kernel's IPVS has service %s: packets with the mark that are to a moved service go by that", service.Key))
		}
	}
	return bypassed, nil
}

// notes are what the target cannot know.
func notes(s director.Service) []string {
	var all []string
	switch s.Scheduler {
	case director.RoundRobin, director.WeightedRoundRobin:
		all = append(all, fmt.Sprintf("scheduler %s begins its round anew: the kernel does not tell its place", s.Scheduler))
	case director.LocalityLC, director.LocalityLCReplicated:
		all = append(all, fmt.Sprintf("scheduler %s begins without what it remembers of destinations: the kernel does not tell", s.Scheduler))
	}
	return all
}
