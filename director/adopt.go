package director

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Adoption is what came of Adopt: one change of all that could be taken over, and
// why the others could not.
type Adoption struct {
	Outcome
	Adopted []ServiceKey // in the order asked for; all: in that of the keys
	Refused []Refusal    // likewise
}

// Refusal says why a service was not adopted.
type Refusal struct {
	Service ServiceKey
	Err     error // with the act and the service
}

// Adopt makes foreign services ours as they are found, so that they are kept so from
// then on: servers that are drained go on draining, without a deadline. Without keys
// it takes all that the kernel has at this moment. What is taken is one revision;
// one service that cannot be is in the way of no other. It is refused with
// ErrNotFound if the kernel has no such service, with ErrExists if it is ours
// already, and else with what Shunt could not keep of it. If none is taken there is
// no revision. The error is of the whole: none was taken.
func (d *Director) Adopt(ctx context.Context, by Request, keys ...ServiceKey) (Adoption, error) {
	a := adopting{Director: d}
	c := change{by: by, action: "adopt services", named: a.action}
	outcome, err := d.change(ctx, c, func(s *State) error {
		found, err := d.found(ctx)
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			_, foreign := d.split(found)
			for i := range foreign {
				keys = append(keys, foreign[i].Key)
			}
			slices.SortFunc(keys, ServiceKey.Compare)
		}
		a.take(s, found, keys)
		return nil
	})
	if err != nil {
		return Adoption{}, err
	}
	a.Outcome = outcome
	return a.Adoption, nil
}

// adopting is one run of Adopt.
type adopting struct {
	*Director
	Adoption
	names map[string]ServiceKey // of the services that have one
}

// action says what is done, once that is known.
func (a *adopting) action() string {
	if len(a.Adopted) == 1 {
		return fmt.Sprintf("adopt service %s", a.Adopted[0])
	}
	return fmt.Sprintf("adopt %d services", len(a.Adopted))
}

// take adds to the state those of the services that can be.
func (a *adopting) take(s *State, found State, keys []ServiceKey) {
	has, ours := indexServices(found), indexServices(*s)
	a.names = make(map[string]ServiceKey, len(s.Services))
	for i := range s.Services {
		a.names[s.Services[i].Name] = s.Services[i].Key
	}
	seen := make(map[ServiceKey]bool, len(keys))
	for _, key := range keys {
		if seen[key] {
			continue
		}
		seen[key] = true
		_, isOurs := ours[key]
		at, isThere := has[key]
		var err error
		var service Service
		switch {
		case isOurs:
			err = ErrExists
		case !isThere:
			err = ErrNotFound
		default:
			service, err = a.keepable(found.Services[at], s.Sync)
		}
		if err != nil {
			a.Refused = append(a.Refused, Refusal{Service: key, Err: fmt.Errorf("adopt service %s: %w", key, err)})
			continue
		}
		a.Adopted = append(a.Adopted, key)
		a.names[service.Name] = key
		s.Services = append(s.Services, service)
	}
}

// keepable returns the service as it will be desired, or what of it Shunt could not
// keep so: written again by us it would be another one.
func (a *adopting) keepable(found Service, daemons []SyncDaemon) (Service, error) {
	service := found.Normalize()
	for i, server := range service.Servers {
		if was := found.Servers[i].Address; was != server.Address {
			// Kernel: ip_vs_core.c, ip_vs_schedule takes the virtual port for it.
			return service, fmt.Errorf("server %s: %w: port 0 beside a service's own: replace it by %s there first", was, ErrUnsupported, server.Address)
		}
	}
	c := lack{features: a.features}
	where := "service " + service.label()
	c.enter(-1, where)
	c.checker.service(service)
	if c.problems == nil {
		c.service(&service)
		c.sync(State{Services: []Service{service}, Sync: daemons})
		c.enter(-1, where)
		if other, taken := a.names[service.Name]; taken && service.Name != "" {
			c.report("name", "name %q is that of %s already", service.Name, other)
		}
	}
	return service, errors.Join(c.problems...)
}
