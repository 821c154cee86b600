package metrics_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/metrics"
)

// source is a metrics.Source of values.
type source struct {
	stats    director.Stats
	err      error
	revision director.Revision
	drift    director.Drift
}

func (s *source) Stats(context.Context) (director.Stats, error) { return s.stats, s.err }
func (s *source) Head() director.Revision                       { return s.revision }
func (s *source) Drift() director.Drift                         { return s.drift }

// Drops are those of the state, two of them of one service and the other of none.
func (s *source) Drops(context.Context) ([]director.Drop, error) {
	if len(s.revision.State.Services) == 0 {
		return nil, director.ErrUnsupported
	}
	key := s.revision.State.Services[0].Key
	return []director.Drop{
		{Reason: "midstream", Number: 33, Kind: director.PacketDrop, Service: key, Interface: "eth0", Packets: 3, Bytes: 180},
		{Reason: "midstream", Number: 33, Kind: director.PacketDrop, Service: key, Removed: true, Interface: "eth0", Packets: 1, Bytes: 60},
		{Reason: "vlan", Number: 48, Kind: director.PacketDrop, Interface: "eth1", Packets: 2, Bytes: 120},
	}, nil
}

var errNoMap = errors.New("no such map")

// at returns a time that is easy to find in a golden text.
func at(seconds int64) time.Time { return time.Unix(seconds, 500e6) }

// state returns a source with the services, each with the servers, everything
// else a little.
func state(services, servers int) *source {
	s := &source{
		revision: director.Revision{RevisionInfo: director.RevisionInfo{Number: 7, Time: at(1000)}},
		drift: director.Drift{
			Checked: at(2000), Found: 5, Repaired: 4, Failed: 3,
			Pending: make([]director.Failure, 2), Foreign: make([]director.Service, 1),
		},
		stats: director.Stats{
			PacketEvents: []director.PacketEvent{
				{Name: "not-ours", Kind: director.PacketPass, Count: 100},
				{Name: "martian", Kind: director.PacketDrop, Count: 3},
			},
			Table: []director.TableStats{
				{Family: "ipv4", Limit: 1024, Keys: 20, Slots: 5120, Bytes: 1 << 19, Expired: 11, Corrected: 1, Pressure: 0.5, FullIn: 90 * time.Second, Refused: 4, SweepPeriod: 2 * time.Second, SweepShare: 0.01},
				{Family: "ipv6", Limit: 256, Keys: 2, Slots: 1280, Bytes: 1 << 18, Expired: 1, SweepPeriod: 2 * time.Second, SweepShare: 0.01},
			},
			Info:       director.DataplaneInfo{Version: "1.2.1", TableSize: 1280},
			Interfaces: []director.InterfaceStats{{Name: "eth0", Mode: "native"}, {Name: "eth1", Mode: "gone"}},
		},
	}
	for i := range services {
		service := director.Service{
			Key:  director.ServiceKey{Protocol: conntrack.TCP, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i / 250), byte(i%250 + 1)}), 80)},
			Name: "web", Scheduler: director.WeightedRoundRobin,
		}
		stats := director.ServiceStats{
			Key:      service.Key,
			Counters: director.Counters{Connections: 10, InPackets: 200, InBytes: 3000, OutPackets: 40, OutBytes: 50000},
			Refused: map[string]uint64{
				"service-rate": 8, "service-connections": 0, "source-rate": 1, "source-connections": 0, "table-full": 2,
			},
			Guard: director.GuardStats{On: true, Challenged: 70, Validated: 9},
		}
		for j := range servers {
			server := director.ServerStats{
				Counters: director.Counters{Connections: 1, InPackets: 2, InBytes: 3, OutPackets: 4, OutBytes: 5},
				Active:   6, Inactive: 7, UDP: 3, Templates: 2, Reachable: j != 1, Overloaded: j == 2,
			}
			server.Server.Address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i / 250), byte(i % 250), byte(j + 1)}), 8080)
			server.Server.Weight, server.Server.Draining = uint32(j), j == 3
			service.Servers = append(service.Servers, server.Server)
			stats.Servers = append(stats.Servers, server)
		}
		s.revision.State.Services = append(s.revision.State.Services, service)
		s.stats.Services = append(s.stats.Services, stats)
	}
	if services > 0 && servers > 0 {
		s.revision.State.Overrides = []director.Override{{Service: s.revision.State.Services[0].Key, Server: s.revision.State.Services[0].Servers[0].Address, Up: true}}
	}
	return s
}

// kernel is a source of the kernel's IPVS, with services that XDP cannot have.
func kernel() *source {
	s := &source{stats: director.Stats{
		Info:  director.DataplaneInfo{Version: "1.2.1", TableSize: 4096},
		Table: []director.TableStats{{Family: "ipv4", Keys: 3}, {Family: "ipv6"}},
	}}
	for _, key := range []director.ServiceKey{
		{Protocol: conntrack.SCTP, Address: netip.MustParseAddrPort("192.0.2.1:80")},
		{Mark: 7, Address: netip.MustParseAddrPort("[::]:0")},
	} {
		server := director.ServerStats{Rates: director.Rates{InBytes: 4711}, Active: 3, Reachable: true}
		server.Server.Address, server.Server.Weight = netip.MustParseAddrPort("10.0.0.1:0"), 1
		s.stats.Services = append(s.stats.Services, director.ServiceStats{Key: key, Servers: []director.ServerStats{server}})
	}
	return s
}

// collector returns the collector of the source, which logs to out.
func collector(s metrics.Source, out io.Writer) *metrics.Collector {
	events := event.NewStream(slog.New(slog.DiscardHandler), 0)
	events.Publish(event.Event{Name: event.Change})
	return metrics.New(metrics.Options{
		Health: func() metrics.Health { return offered(s.Head().State) },
		Source: s, Events: events, Version: "v1.2.3", Dataplane: "xdp", Started: at(500),
		Log: slog.New(slog.NewTextHandler(out, nil)),
	})
}

// offered has the first server of each service up by an operator's order, with three
// checks of a kind and one that was not asked yet, and the others suspended.
func offered(state director.State) metrics.Health {
	if len(state.Services) == 0 {
		return metrics.Health{}
	}
	all := metrics.Health{
		Checks: metrics.Checks{
			Asked: 9, Running: 3, Overdue: 1, Waiting: 2, Lag: 1500 * time.Millisecond, Overruns: 4, Unasked: 5,
			Times: []metrics.Times{{
				Kind: "http", Passed: true, Count: 3, Sum: 2 * time.Second,
				AtMost: map[time.Duration]uint64{time.Millisecond: 1, time.Second: 2},
			}},
		},
		Probing:     &metrics.Probing{Ports: 6, Refused: 7},
		Hosts:       map[string]uint64{"answered": 90, "timeout": 2, "failed": 1},
		Notified:    map[[2]string]uint64{{"command", "told"}: 8, {"pipe", "failed"}: 1},
		Maintenance: map[string]int{"/etc/shunt/away": 1},
		Leases: metrics.Leases{
			Members:    map[string][2]int{"blue": {4, 1}},
			Registered: 5, Renewed: 600, Left: 1, Expired: 2, Reports: 3, Refused: map[string]uint64{"replayed": 1},
		},
	}
	for _, service := range state.Services {
		health := metrics.ServiceHealth{
			Service: service.Key, Quorum: true, Panic: len(service.Servers) > 1, Sorry: len(service.Servers) > 2, Weight: 30, Needed: 20,
		}
		for i, server := range service.Servers {
			one := metrics.ServerHealth{
				Address: server.Address, Up: i == 0, Overridden: i == 0, Suspended: i > 0, Changes: 6, Suspensions: 2,
				Evidence: &director.Evidence{Unanswered: 1, Resets: 20, Unreachable: 3},
			}
			if i == 0 {
				one.Load = &metrics.Load{Value: 0.25, Share: 1.5}
				one.Checks = []metrics.CheckHealth{
					{Kind: "http", Passed: 5, Failed: 1, Took: 20 * time.Millisecond},
					{Kind: "http", Passed: 7, Failed: 2, Took: 10 * time.Millisecond, CertificateEnd: at(9000)},
					{Kind: "http", CertificateEnd: at(8000)},
					{Kind: "tcp"},
				}
			}
			health.Servers = append(health.Servers, one)
		}
		all.Services = append(all.Services, health)
	}
	return all
}

// registry returns a registry that checks whatever the collector says.
func registry(c prometheus.Collector) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	return r
}
