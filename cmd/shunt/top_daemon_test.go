package main

import (
	"context"
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/director/api"
)

// fakeTop is a daemon whose counters grow by the same in every second, which
// passes with every reading.
type fakeTop struct {
	seconds uint64
	err     error
	asked   []api.ConnectionQuery
	edit    func(*topReading) // changes what is read; nil: nothing
}

func (f *fakeTop) read(_ context.Context, list *api.ConnectionQuery) (topReading, error) {
	if f.err != nil {
		return topReading{}, f.err
	}
	f.seconds++
	r := topReading{
		at: time.Date(2026, 11, 22, 14, 3, 20, 0, time.UTC).Add(time.Duration(f.seconds) * time.Second),
		status: api.Status{
			Version: "1.2.3", Dataplane: "xdp", Revision: 42, Ready: true, Services: 5, Servers: 9, Unreachable: 2, Foreign: 1,
			Interfaces: []api.Interface{{Name: "eth0", Mode: "native"}},
			Tables: []api.Table{
				{Family: "ipv4", Slots: 1 << 21, Keys: 1 << 19, Pressure: 0.25}, {Family: "ipv6", Slots: 1 << 17, Keys: 120000, Pressure: 0.916},
			},
			Drift: api.DriftSummary{Found: 3, Repaired: 3},
		},
		services: topServices(),
	}
	for i, service := range r.services {
		r.stats.Services = append(r.stats.Services, f.stats(service, uint64(i)))
	}
	r.stats.PacketEvents = []api.PacketEvent{
		{Name: "not-ours", Kind: "pass", Count: 4711 * f.seconds, Help: "no service of ours"},
		{Name: "server-removed", Kind: "drop", Count: 3 * f.seconds, Help: "the connection's server was removed"},
		{Name: "no-room", Kind: "drop", Count: 1200 * f.seconds, Help: "the connection table is full of proven connections"},
		{Name: "no-server", Kind: "answer", Count: 7, Help: "no server can take the connection"},
		{Name: "bad-index", Kind: "fault", Help: "an index out of range"},
	}
	if list != nil {
		f.asked = append(f.asked, *list)
		r.list = &topList{query: *list, connections: topConnectionsOf(list)}
	}
	if f.edit != nil {
		f.edit(&r)
	}
	return r, nil
}

// stats are counters of a service. The second service has the most traffic.
func (f *fakeTop) stats(service api.Service, i uint64) api.ServiceStats {
	s := api.ServiceStats{Listen: service.Listen, Name: service.Name}
	busy := []uint64{100, 250000, 3, 40, 0}[i] * f.seconds
	for _, server := range service.Servers {
		c := api.Counters{Connections: busy / 10, In: api.Traffic{Packets: busy, Bytes: 700 * busy}}
		if server.Method == "nat" {
			c.Out = api.Traffic{Packets: 2 * busy, Bytes: 1400 * busy}
		}
		s.Servers = append(s.Servers, api.ServerStats{Address: server.Address, Counters: c})
		s.Counters = addCounters(s.Counters, c)
	}
	return s
}

func addCounters(a, b api.Counters) api.Counters {
	return api.Counters{
		Connections: a.Connections + b.Connections,
		In:          api.Traffic{Packets: a.In.Packets + b.In.Packets, Bytes: a.In.Bytes + b.In.Bytes},
		Out:         api.Traffic{Packets: a.Out.Packets + b.Out.Packets, Bytes: a.Out.Bytes + b.Out.Bytes},
	}
}

func topServices() []api.Service {
	server := func(address, method string, weight uint32, active uint64) api.Server {
		return api.Server{Address: address, Method: method, Weight: weight, Active: active, Inactive: active / 3, Reachable: true}
	}
	down := server("10.0.0.13:8080", "nat", 1, 0)
	down.Reachable, down.Reason = false, "no answer to ARP on eth1"
	down6 := server("[2001:db8:1:2:3:4:5:7]:53", "tunnel", 1, 0)
	down6.Reachable, down6.Reason = false, "no route"
	return []api.Service{
		{Listen: "tcp://192.0.2.9:443", Scheduler: "rr", Servers: []api.Server{server("10.0.0.9:443", "dr", 1, 12)}},
		{Listen: "tcp://192.0.2.10:80", Name: "web", Scheduler: "wrr", Servers: []api.Server{
			server("10.0.0.9:8080", "nat", 3, 1234), server("10.0.0.12:8080", "nat", 65535, 24999),
			server("10.0.0.11:8080", "nat", 0, 7), down,
		}},
		{Listen: "udp://192.0.2.10:53", Name: "dns", Scheduler: "sh", Servers: []api.Server{server("10.0.0.53:53", "dr", 0, 0)}},
		{Listen: "udp://[2001:db8:aaaa:bbbb:cccc:dddd:eeee:10]:53", Name: "dns6", Scheduler: "sh", Flags: []string{"sh-port"}, Servers: []api.Server{
			server("[2001:db8:1:2:3:4:5:6]:53", "tunnel", 1, 3), down6,
		}},
		{Listen: "tcp://198.51.100.1:25", Scheduler: "rr", Foreign: true, Servers: []api.Server{server("10.9.9.9:25", "nat", 1, 0)}},
	}
}

// topConnectionsOf are those the query selects.
func topConnectionsOf(q *api.ConnectionQuery) []api.Connection {
	if q.Service == "udp://[2001:db8:aaaa:bbbb:cccc:dddd:eeee:10]:53" {
		return []api.Connection{{
			Protocol: "udp", Client: "[2001:db8:ffff:eeee:dddd:cccc:bbbb:aaaa]:53531", Virtual: "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:10]:53",
			Server: "[2001:db8:1:2:3:4:5:6]:53", Method: "tunnel", State: "UDP", Proven: true, Expires: api.Duration(5 * time.Minute),
		}}
	}
	var all []api.Connection
	for i := range 30 {
		all = append(all, api.Connection{
			Protocol: "tcp", Client: fmt.Sprintf("198.51.100.%d:%d", i%15, 40000+i), Virtual: "192.0.2.10:80",
			Server: "10.0.0.12:8080", Method: "nat", State: "ESTABLISHED", Proven: i%7 != 0,
			Expires: api.Duration(time.Duration(i) * 31 * time.Second),
		})
	}
	return all
}
