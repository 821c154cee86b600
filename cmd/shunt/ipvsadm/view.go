package ipvsadm

import (
	"context"
	"fmt"
	"slices"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/realserver"
)

// view is what the kernel holds, with what was counted of it: what lists are
// made of.
type view struct {
	info     director.DataplaneInfo
	services map[director.ServiceKey]service
	order    []director.ServiceKey // as the daemon has them
}

// service is a service with its counters.
type service struct {
	director.Service
	foreign  bool
	counters director.Counters
	rates    director.Rates
	servers  []server // the one added last comes first, as in the kernel
}

// server is a server with its counters.
type server struct {
	realserver.Server
	active, inactive, templates uint64
	counters                    director.Counters
	rates                       director.Rates
}

// weight is the one in force, which is 0 while the server is being drained.
func (s server) weight() int32 {
	if s.Draining {
		return 0
	}
	return int32(s.Weight)
}

// look reads what the kernel holds.
func look(ctx context.Context, client *api.Client) (view, error) {
	found, err := client.Found(ctx)
	if err != nil {
		return view{}, err
	}
	stats, err := client.Stats(ctx)
	if err != nil {
		return view{}, err
	}
	return newView(found, stats)
}

// newView puts the answers together. What one of them lacks, because it was gone
// or not there yet, has counted nothing.
func newView(found api.Found, stats api.Stats) (view, error) {
	v := view{
		info:     director.DataplaneInfo{Version: stats.Info.Version, TableSize: stats.Info.TableSize},
		services: make(map[director.ServiceKey]service, len(found.Services)),
	}
	counted := make(map[string]api.ServiceStats, len(stats.Services))
	for _, s := range stats.Services {
		counted[s.Listen] = s
	}
	for _, model := range found.Services {
		configured, err := model.Configured()
		if err != nil {
			return view{}, fmt.Errorf("read the daemon's answer: service %s: %w", model.Listen, err)
		}
		c := counted[model.Listen]
		s := service{Service: configured, foreign: model.Foreign, counters: countersOf(c.Counters), rates: ratesOf(c.Rates)}
		byAddress := make(map[string]api.ServerStats, len(c.Servers))
		for _, server := range c.Servers {
			byAddress[server.Address] = server
		}
		for i, m := range slices.Backward(model.Servers) {
			c := byAddress[m.Address]
			s.servers = append(s.servers, server{
				Server: configured.Servers[i], active: m.Active, inactive: m.Inactive, templates: m.Templates,
				counters: countersOf(c.Counters), rates: ratesOf(c.Rates),
			})
		}
		v.services[s.Key] = s
		v.order = append(v.order, s.Key)
	}
	return v, nil
}

func countersOf(c api.Counters) director.Counters {
	return director.Counters{
		Connections: c.Connections, InPackets: c.In.Packets, InBytes: c.In.Bytes, OutPackets: c.Out.Packets, OutBytes: c.Out.Bytes,
	}
}

func ratesOf(r api.Rates) director.Rates { return director.Rates(countersOf(api.Counters(r))) }

// keys returns a copy of the order.
func (v view) keys() []director.ServiceKey { return slices.Clone(v.order) }

// saved returns the services as they are configured.
func (v view) saved() []director.Service {
	all := make([]director.Service, 0, len(v.order))
	for _, key := range v.order {
		all = append(all, v.services[key].Service)
	}
	return all
}
