package api

import (
	"context"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// observation is what is desired, with what the data plane sees of it.
type observation struct {
	revision uint64
	state    director.State // desired
	foreign  []director.Service
	stats    map[director.ServiceKey]director.ServiceStats
	leased   map[director.ServiceKey][]realserver.Server // what services take from their pools
}

// seen is one service of an observation.
type seen struct {
	service director.Service
	foreign bool
}

func (h *Handler) observe(ctx context.Context) (observation, error) {
	stats, err := h.director.Stats(ctx)
	if err != nil {
		return observation{}, err
	}
	head := h.director.Head()
	o := observation{
		revision: head.Number, state: shown(ctx, head.State), foreign: h.director.Drift().Foreign,
		stats: make(map[director.ServiceKey]director.ServiceStats, len(stats.Services)),
	}
	for _, service := range stats.Services {
		o.stats[service.Key] = service
	}
	o.leased = h.leased(head.State)
	return o, nil
}

// leased returns the servers that services take from their pools, by service.
func (h *Handler) leased(state director.State) map[director.ServiceKey][]realserver.Server {
	if h.opts.Leases == nil {
		return nil
	}
	leased, pools := make(map[director.ServiceKey][]realserver.Server), make(map[string][]realserver.Server)
	for i := range state.Services {
		service := &state.Services[i]
		pool := service.Health.Pool
		if pool == "" {
			continue
		}
		if _, ok := pools[pool]; !ok {
			pools[pool] = h.opts.Leases.Servers(pool)
		}
		leased[service.Key] = state.FromPool(service, pools[pool], h.director.Features())
	}
	return leased
}

// all returns the services sorted by key. A foreign one that was adopted since
// it was seen is Shunt's.
func (o observation) all(foreign bool) []seen {
	all := make([]seen, 0, len(o.state.Services)+len(o.foreign))
	ours := make(map[director.ServiceKey]bool, len(o.state.Services))
	for _, service := range o.state.Services {
		all = append(all, seen{service: service})
		ours[service.Key] = true
	}
	if !foreign {
		return all
	}
	for _, service := range o.foreign {
		if !ours[service.Key] {
			all = append(all, seen{service: asFound(service), foreign: true})
		}
	}
	slices.SortFunc(all, func(a, b seen) int { return a.service.Key.Compare(b.service.Key) })
	return all
}

// model joins a service with what the data plane sees of it. A server the data
// plane says nothing about is unreachable, and says so.
func (o observation) model(s seen) Service {
	config, observed := serviceConfig(s.service), o.stats[s.service.Key]
	model := Service{
		Listen: config.Listen, Name: config.Name, Scheduler: config.Scheduler, Flags: flagWords(s.service),
		VIP: config.VIP, Access: config.Access, Foreign: s.foreign, Servers: []Server{},
		Persistence: config.Persistence, OnePacket: config.OnePacket, Timeouts: config.Timeouts,
		ConnReuseMode: config.ConnReuseMode, SloppyTCP: config.SloppyTCP,
		ExpireNodestConn: config.ExpireNodestConn, ExpireQuiescentTemplate: config.ExpireQuiescentTemplate,
		Limits: config.Limits, Guard: config.Guard, MSS: config.MSS, Health: config.Health, Refused: refusedModel(observed.Refused), GuardStats: guardStatsModel(observed.Guard),
	}
	stats := make(map[netip.AddrPort]director.ServerStats)
	for _, server := range observed.Servers {
		stats[server.Server.Address] = server
	}
	for _, server := range s.service.Servers {
		m := serverModel(server, stats)
		if !s.foreign {
			o.addOrders(&m, s.service.Key, server.Address)
		}
		model.Servers = append(model.Servers, m)
	}
	if !s.foreign {
		for _, server := range o.leased[s.service.Key] {
			m := serverModel(server, stats)
			o.addOrders(&m, s.service.Key, server.Address)
			model.Leased = append(model.Leased, m)
		}
	}
	return model
}

// addOrders adds what operators ordered of a server.
func (o observation) addOrders(m *Server, key director.ServiceKey, server netip.AddrPort) {
	m.Drain = o.drainModel(key, server, m.Active+m.Inactive)
	m.Override = o.overrideModel(key, server)
}

// notOffered returns which servers of a service a scheduler sees without their
// weight.
func (o observation) notOffered(key director.ServiceKey) (draining, unreachable map[netip.AddrPort]bool) {
	draining, unreachable = make(map[netip.AddrPort]bool), make(map[netip.AddrPort]bool)
	for _, s := range o.all(true) {
		if s.service.Key != key {
			continue
		}
		for _, server := range slices.Concat(s.service.Servers, o.leased[key]) {
			draining[server.Address] = server.Draining
		}
	}
	for _, server := range o.stats[key].Servers {
		unreachable[server.Server.Address] = !server.Reachable
	}
	return draining, unreachable
}

func serverModel(server realserver.Server, stats map[netip.AddrPort]director.ServerStats) Server {
	model := Server{
		Address: server.Address.String(), Method: server.Method.String(), Weight: server.Weight,
		Upper: server.Upper, Lower: server.Lower, Draining: server.Draining, Tunnel: tunnelModel(server.Tunnel),
		Reason: "not in the data plane",
	}
	if seen, ok := stats[server.Address]; ok {
		model.Active, model.Inactive, model.UDP = seen.Active, seen.Inactive, seen.UDP
		model.Templates, model.Overloaded = seen.Templates, seen.Overloaded
		model.Reachable, model.Reason = seen.Reachable, seen.Reason
	}
	return model
}
