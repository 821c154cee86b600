package xdp

import (
	"context"
	"iter"
	"net/netip"
	"slices"
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
	c, err := d.readCounters()
	if err != nil {
		return stats, err
	}
	for _, svc := range d.model.sorted() {
		if !svc.removed {
			stats.Services = append(stats.Services, c.service(svc))
		}
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
	for i := range d.interfaces {
		a := &d.interfaces[i]
		mode := director.InterfaceMode(a.mode)
		if a.problem != "" || !d.isAttached(a) {
			mode = director.InterfaceGone
		}
		stats.Interfaces = append(stats.Interfaces, director.InterfaceStats{Name: a.name, Mode: mode})
	}
	return stats, nil
}

// allCounters are the counters of all servers, and of services' removed ones, by
// index.
type allCounters struct {
	traffic []bpf.KernelTraffic
	loads   []bpf.KernelServerLoad
	retired []bpf.KernelTraffic
}

func (d *Dataplane) readCounters() (c allCounters, err error) {
	used := d.model.usedServers()
	if c.traffic, err = d.plane.AllTraffic(used); err != nil {
		return c, err
	}
	c.loads = make([]bpf.KernelServerLoad, used)
	if err = bpf.ReadRange(d.plane.Loads, 0, c.loads); err != nil {
		return c, err
	}
	c.retired, err = bpf.ReadArray[bpf.KernelTraffic](d.plane.RetiredTraffic)
	return c, err
}

func (c *allCounters) service(svc *service) director.ServiceStats {
	stats := director.ServiceStats{Key: svc.key, Counters: counters(c.retired[svc.index])}
	for _, s := range svc.members {
		stats.Counters.Add(counters(c.traffic[s.index]))
	}
	// Servers in the order they were added, as a Service has them.
	for _, s := range slices.Backward(svc.list) {
		load := &c.loads[s.index]
		stats.Servers = append(stats.Servers, director.ServerStats{
			Server: s.value(), Counters: counters(c.traffic[s.index]),
			// Below zero for the instant in which a connection is removed as it is made.
			Active: uint64(max(0, load.Active)), Inactive: uint64(max(0, load.Inactive)),
			Reachable: s.method == realserver.Local || s.hop != 0, Reason: s.reason,
		})
	}
	return stats
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
