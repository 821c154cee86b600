package xdp

import (
	"context"
	"slices"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// reproduced is the version of IPVS whose semantics these are (kernel:
// include/uapi/linux/ip_vs.h, IP_VS_VERSION_CODE).
const reproduced = "1.2.1"

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
	for i, info := range bpf.AllEvents() {
		stats.PacketEvents = append(stats.PacketEvents, director.PacketEvent{
			Number: uint8(i), Name: info.Name, Kind: director.PacketKind(info.Kind), Help: info.Help, Count: counts[i],
		})
	}
	v4, v6 := d.plane.Limits.Connections4, d.plane.Limits.Connections6
	stats.Info = director.DataplaneInfo{Version: reproduced, TableSize: v4 + v6}
	if stats.Table, err = d.tables(); err != nil {
		return stats, err
	}
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
	traffic []bpf.KernelTraffic // since it was set to zero
	loads   []bpf.KernelServerLoad
	retired []bpf.KernelTraffic
	states  []bpf.KernelServiceState
	udp     map[uint32]uint64
	clock   bpf.Clock
	tick    uint32
}

func (d *Dataplane) readCounters() (c allCounters, err error) {
	c.udp, c.clock = d.sweeps.udp, d.plane.Clock
	if c.tick, err = d.plane.Now(); err != nil {
		return c, err
	}
	c.states = make([]bpf.KernelServiceState, d.model.usedServices())
	if err = bpf.ReadRange(d.plane.ServiceStates, 0, c.states); err != nil {
		return c, err
	}
	used := d.model.usedServers()
	if c.traffic, err = d.plane.AllTraffic(used); err != nil {
		return c, err
	}
	zeroed := make([]bpf.KernelTraffic, used)
	if err = bpf.ReadRange(d.plane.ZeroedTraffic, 0, zeroed); err != nil {
		return c, err
	}
	for i := range c.traffic {
		c.traffic[i] = since(zeroed[i], c.traffic[i])
	}
	c.loads = make([]bpf.KernelServerLoad, used)
	if err = bpf.ReadRange(d.plane.Loads, 0, c.loads); err != nil {
		return c, err
	}
	c.retired, err = bpf.ReadArray[bpf.KernelTraffic](d.plane.RetiredTraffic)
	return c, err
}

func (c *allCounters) service(svc *service) director.ServiceStats {
	state := &c.states[svc.index]
	stats := director.ServiceStats{
		Key: svc.key, Counters: c.total(svc), Rates: svc.rates.Rates(),
		Refused: refused(state), Guard: guardStats(svc.guard, state, c.clock, c.tick),
	}
	// Servers in the order they were added, as a Service has them.
	for _, s := range slices.Backward(svc.list) {
		load := &c.loads[s.index]
		stats.Servers = append(stats.Servers, director.ServerStats{
			Server: s.value(), Counters: counters(c.traffic[s.index]), Rates: s.rates.Rates(),
			// Below zero for the instant in which a connection is removed as it is made.
			Active: uint64(max(0, load.Active)), Inactive: uint64(max(0, load.Inactive)),
			UDP:        min(c.udp[s.index], uint64(max(0, load.Inactive))),
			Templates:  uint64(max(0, load.Templates)),
			Overloaded: isOverloaded(load),
			Reachable:  s.isReachable(), Reason: s.reason,
		})
	}
	return stats
}

// total returns the service's counters.
func (c *allCounters) total(svc *service) director.Counters {
	sum := counters(c.retired[svc.index])
	for _, s := range svc.members {
		sum.Add(counters(c.traffic[s.index]))
	}
	return sum
}

func counters(t bpf.KernelTraffic) director.Counters {
	return director.Counters{
		Connections: t.Connections, InPackets: t.InPackets, InBytes: t.InBytes, OutPackets: t.OutPackets, OutBytes: t.OutBytes,
	}
}
