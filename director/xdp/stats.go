package xdp

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Stats reads all counters.
func (d *Dataplane) Stats(ctx context.Context) (director.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var stats director.Stats
	if err := d.check(ctx); err != nil {
		return stats, err
	}
	for _, svc := range d.model.sorted() {
		if svc.removed {
			continue
		}
		s, err := d.serviceStats(svc)
		if err != nil {
			return stats, err
		}
		stats.Services = append(stats.Services, s)
	}
	counts, err := d.plane.EventCounts()
	if err != nil {
		return stats, err
	}
	for i, info := range bpf.Events[1:] {
		stats.PacketEvents = append(stats.PacketEvents, director.PacketEvent{
			Name: info.Name, Kind: director.PacketKind(info.Kind), Help: info.Help, Count: counts[i+1],
		})
	}
	stats.Table = d.sweeps.tables(d.plane)
	for _, a := range d.interfaces {
		mode := string(a.mode)
		if a.gone {
			mode = "gone"
		}
		stats.Interfaces = append(stats.Interfaces, director.InterfaceStats{Name: a.name, Mode: mode})
	}
	return stats, nil
}

func (d *Dataplane) serviceStats(svc *service) (director.ServiceStats, error) {
	stats := director.ServiceStats{Key: svc.key}
	var retired bpf.KernelTraffic
	if err := d.plane.RetiredTraffic.Lookup(svc.index, &retired); err != nil {
		return stats, fmt.Errorf("read counters of %s: %w", svc.key, err)
	}
	stats.Counters = counters(retired)
	for _, s := range d.model.servers {
		if s.service != svc {
			continue
		}
		traffic, err := d.plane.Traffic(s.index)
		if err != nil {
			return stats, err
		}
		stats.Counters.Add(counters(traffic))
	}
	// Servers in the order they were added, as a Service has them.
	for i := len(svc.list) - 1; i >= 0; i-- {
		s, err := d.serverStats(svc.list[i])
		if err != nil {
			return stats, err
		}
		stats.Servers = append(stats.Servers, s)
	}
	return stats, nil
}

func (d *Dataplane) serverStats(s *server) (director.ServerStats, error) {
	stats := director.ServerStats{Server: s.value(), Reachable: s.method == realserver.Local || s.hop != 0, Reason: s.reason}
	traffic, err := d.plane.Traffic(s.index)
	if err != nil {
		return stats, err
	}
	stats.Counters = counters(traffic)
	var load bpf.KernelServerLoad
	if err := d.plane.Loads.Lookup(s.index, &load); err != nil {
		return stats, fmt.Errorf("read connection counts of %s: %w", s.address, err)
	}
	// Below zero for the instant in which a connection is removed as it is made.
	stats.Active, stats.Inactive = uint64(max(0, load.Active)), uint64(max(0, load.Inactive))
	return stats, nil
}

func counters(t bpf.KernelTraffic) director.Counters {
	return director.Counters{
		Connections: t.Connections, InPackets: t.InPackets, InBytes: t.InBytes, OutPackets: t.OutPackets, OutBytes: t.OutBytes,
	}
}

// Connections iterates over the table's forward keys.
func (d *Dataplane) Connections(ctx context.Context, filter director.ConnectionFilter) iter.Seq2[conntrack.Connection, error] {
	return func(yield func(conntrack.Connection, error) bool) {
		names, timeouts, now, err := d.connectionView(ctx)
		if err != nil {
			yield(conntrack.Connection{}, err)
			return
		}
		for _, v6 := range []bool{false, true} {
			for e, err := range d.plane.Entries(v6) {
				if err == nil {
					err = ctx.Err()
				}
				if err != nil {
					yield(conntrack.Connection{}, err)
					return
				}
				if e.Reply || e.Busy {
					continue
				}
				idle := time.Duration(max(0, int32(now-e.Seen))) * d.plane.Clock.Tick()
				c := conntrack.Connection{
					Protocol: conntrack.Protocol(e.Protocol), Client: e.Source, Virtual: e.Destination,
					Server: names[e.Server], Method: realserver.Method(e.Method).String(),
					State: conntrack.State(e.State), Proven: e.Proven,
					Expires: timeouts.Of(conntrack.State(e.State)) - idle,
				}
				if matches(filter, &c) && !yield(c, nil) {
					return
				}
			}
		}
	}
}

// connectionView returns what the walk needs and must not lock for: servers'
// addresses by index, timeouts, the tick.
func (d *Dataplane) connectionView(ctx context.Context) (map[uint32]netip.AddrPort, conntrack.Timeouts, uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return nil, conntrack.Timeouts{}, 0, err
	}
	names := make(map[uint32]netip.AddrPort, len(d.model.servers))
	for i, s := range d.model.servers {
		names[i] = s.address
	}
	settings, err := d.plane.Settings()
	if err != nil {
		return nil, conntrack.Timeouts{}, 0, err
	}
	now, err := d.plane.Now()
	return names, readTimeouts(&settings), now, err
}

func matches(f director.ConnectionFilter, c *conntrack.Connection) bool {
	var any director.ServiceKey
	return (f.Service == any || f.Service == director.ServiceKey{Protocol: c.Protocol, Address: c.Virtual}) &&
		(!f.Server.IsValid() || f.Server == c.Server) &&
		(!f.Client.IsValid() || f.Client.Contains(c.Client.Addr()))
}
