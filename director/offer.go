package director

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// Offers is what a service offers at the moment where that is not what is configured.
// The zero value: it is as configured. It is not changed once given.
type Offers struct {
	// Servers are the configured ones that are offered on other terms.
	Servers map[netip.AddrPort]Offer
	// Extra are servers that are offered besides: sorry servers, and those of leases. One
	// whose address is configured is not looked at.
	Extra []realserver.Server
}

// Offer are the terms that a server is offered on in place of its own.
type Offer struct {
	Weight    uint32
	Withdrawn bool // not at all: its connections' packets are dropped
}

// Offerer decides what is offered. Its methods are called with the director's lock
// held: they return at once and do not call the Director.
type Offerer interface {
	// Offers returns what is offered of the service, which is normalized and may not be
	// in force yet. found is what the kernel holds of it, nil if nothing or if that was
	// not read: whoever has not heard of a server begins with its weight there.
	Offers(service, found *Service) Offers
	// Desired tells of the state that is in force from now on; it is not changed.
	Desired(State)
}

// offered returns the state that the kernel is to hold for what is desired: s itself
// where nothing is offered on other terms.
func (d *Director) offered(s, found State) State {
	if d.opts.Offerer == nil {
		return s
	}
	places := indexServices(found)
	services := slices.Clone(s.Services)
	for i := range services {
		var has *Service
		if place, ok := places[services[i].Key]; ok {
			has = &found.Services[place]
		}
		services[i] = d.opts.Offerer.Offers(&s.Services[i], has).of(services[i])
	}
	s.Services = services
	return s
}

// of returns the service as it is offered, which shares no servers with s if it differs.
func (o Offers) of(s Service) Service {
	if len(o.Servers) == 0 && len(o.Extra) == 0 {
		return s
	}
	servers := make([]realserver.Server, 0, len(s.Servers)+len(o.Extra))
	configured := make(map[netip.AddrPort]bool, len(s.Servers))
	for _, server := range s.Servers {
		configured[server.Address] = true
		offer, ok := o.Servers[server.Address]
		if ok && offer.Withdrawn {
			continue
		}
		if ok {
			server.Weight = offer.Weight
		}
		servers = append(servers, server)
	}
	for _, extra := range o.Extra {
		if len(servers) >= MaxServers {
			break // data planes have no room for more, and do not ask
		}
		if extra = s.Key.normalizeServer(extra); !configured[extra.Address] {
			servers = append(servers, extra)
		}
	}
	s.Servers = servers
	return s
}

// Reoffer carries to the kernel what the Offerer offers of the service now; nothing if
// the service is not desired any more. What cannot be done is repaired by Run.
func (d *Director) Reoffer(ctx context.Context, key ServiceKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	head := d.head.Load()
	if head == nil || d.opts.Offerer == nil {
		return nil
	}
	i := head.State.Service(key)
	if i < 0 {
		return nil
	}
	service := &head.State.Services[i]
	last, known := d.last[key]
	next := d.opts.Offerer.Offers(service, nil).of(*service)
	if !known {
		return nil // the reconciliation that makes it known offers it
	}
	ops := Plan(State{Services: []Service{next}}, State{Services: []Service{last}})
	if len(ops) == 0 {
		return nil
	}
	if err := d.apply(ctx, ops); err != nil {
		return fmt.Errorf("offer the servers of %s: %w", key, err)
	}
	d.last[key] = next
	return nil
}

// moved returns the operations, by their texts, that follow from what is offered now
// and was not when the kernel last agreed: Reoffer is about to carry them there too.
func (d *Director) moved(offered State) map[string]bool {
	ops := make(map[string]bool)
	for i := range offered.Services {
		last, known := d.last[offered.Services[i].Key]
		if !known {
			continue
		}
		for _, op := range Plan(State{Services: offered.Services[i : i+1]}, State{Services: []Service{last}}) {
			ops[op.String()] = true
		}
	}
	return ops
}

// desired tells the Offerer what is in force.
func (d *Director) desired(s State) {
	if d.opts.Offerer != nil {
		d.opts.Offerer.Desired(s)
	}
}

// noteOffered keeps what the kernel holds of services as they are offered, after it
// has been carried there, but for what is pending. Services that are not in wanted are
// forgotten.
func (d *Director) noteOffered(offered, wanted State, pending []Failure) {
	if d.opts.Offerer == nil {
		return
	}
	for _, service := range offered.Services {
		d.last[service.Key] = service
	}
	for _, failure := range pending {
		delete(d.last, failure.Step.Service)
	}
	if len(d.last) > len(wanted.Services) {
		has := indexServices(wanted)
		for key := range d.last {
			if _, ok := has[key]; !ok {
				delete(d.last, key)
			}
		}
	}
	d.desired(wanted)
}
