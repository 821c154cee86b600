package xdp

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// finishSweep acts on a complete sweep: heals counts, frees indices and hops.
func (d *Dataplane) finishSweep(w *sweepRun) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.sweeps.complete = w.number
	if err := w.counts.widen(d.plane, d.model.usedServers()); err != nil {
		return err
	}
	recounts := make([]bpf.KernelRecount, len(w.counts.now))
	if err := bpf.ReadRange(d.plane.Recounts, 0, recounts); err != nil {
		return err
	}
	d.noteUDP(recounts)
	if err := d.healCounts(&w.counts, recounts); err != nil {
		return err
	}
	if err := d.healServices(); err != nil {
		return err
	}
	named, looked, err := d.reviewDestinations(time.Now())
	if err != nil {
		return err
	}
	keeps := func(s *server) bool {
		return !s.service.removed && hasDestinations(s.service.scheduler) && (!looked || named[s.index])
	}
	if err := d.freeServers(w.number, recounts, keeps); err != nil {
		return err
	}
	return errors.Join(d.tunnels.expire(d.plane), d.reviewHops(), d.sweepLocals())
}

// review repairs what is to be repaired soon, however long a sweep takes.
func (d *Dataplane) review() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	return errors.Join(d.repairSchedules(), d.reviewPassive(), d.reviewPlane())
}

// repairSchedules puts schedules in force that could not be when their servers'
// reachability changed.
func (d *Dataplane) repairSchedules() error {
	for _, svc := range d.model.services {
		if svc.removed || !isStale(svc) {
			continue
		}
		if err := d.reschedule(svc, svc.list, false, weightStep(svc.list)); err != nil {
			return err
		}
		d.opts.Log.Info("schedule repaired", "service", svc.key)
	}
	return nil
}

// noteUDP keeps for Stats what the recount found.
func (d *Dataplane) noteUDP(recounts []bpf.KernelRecount) {
	d.sweeps.udp = map[uint32]uint64{}
	for i := range recounts {
		if n := recounts[i].Udp; n > 0 && d.model.servers[uint32(i)] != nil {
			d.sweeps.udp[uint32(i)] = n
		}
	}
}

// freeServers frees the indices of removed servers, and then services, that no
// connection or template refers to any more; keeps says which ones something else
// does.
func (d *Dataplane) freeServers(number uint64, recounts []bpf.KernelRecount, keeps func(*server) bool) error {
	freed := false
	for i, s := range d.model.servers {
		if !s.removed || s.removedBefore > number || recounts[i].Keys > 0 || keeps(s) {
			continue
		}
		if err := d.retireTraffic(s); err != nil {
			return err
		}
		if err := d.plane.Servers.Put(i, &bpf.KernelServer{}); err != nil {
			return fmt.Errorf("free server %d: %w", i, err)
		}
		d.hops.release(s.hop)
		d.tunnels.release(s.tunnel)
		d.model.dropServer(s)
		freed = true
	}
	gone := map[uint32]bool{}
	for i, svc := range d.model.services {
		if svc.removed && len(svc.members) == 0 {
			gone[i] = true
		}
	}
	if len(gone) > 0 {
		// Before an index is another service's.
		if err := d.plane.ClearDrops(func(service uint32) bool { return gone[service] }); err != nil {
			return err
		}
	}
	for i := range gone {
		svc := d.model.services[i]
		if err := d.plane.Services.Put(i, &bpf.KernelService{}); err != nil {
			return fmt.Errorf("free service %d: %w", i, err)
		}
		d.words.release(svc.words)
		d.model.dropService(svc)
		freed = true
	}
	if freed {
		d.watching.isStale = true
		return d.writeFilter()
	}
	return nil
}

// retireTraffic adds a removed server's counters to its service's.
func (d *Dataplane) retireTraffic(s *server) error {
	traffic, err := d.plane.Traffic(s.index)
	if err != nil {
		return err
	}
	var sum, zeroed bpf.KernelTraffic
	if err := d.plane.ZeroedTraffic.Lookup(s.index, &zeroed); err != nil {
		return fmt.Errorf("read counters of server %d: %w", s.index, err)
	}
	traffic = since(zeroed, traffic)
	if err := d.plane.RetiredTraffic.Lookup(s.service.index, &sum); err != nil {
		return fmt.Errorf("read counters of %s: %w", s.service.key, err)
	}
	sum.Connections += traffic.Connections
	sum.InPackets += traffic.InPackets
	sum.InBytes += traffic.InBytes
	sum.OutPackets += traffic.OutPackets
	sum.OutBytes += traffic.OutBytes
	if err := d.plane.RetiredTraffic.Put(s.service.index, &sum); err != nil {
		return fmt.Errorf("write counters of %s: %w", s.service.key, err)
	}
	return d.clearCounters(s.index)
}

// mtuOf returns the MTU of packets that leave by a learned next hop. 0, in generic mode:
// packets there may be several that the host has joined.
func (d *Dataplane) mtuOf(ifindex uint32) uint16 {
	if d.opts.Generic {
		return 0
	}
	return uint16(min(d.resolver.MTU(int(ifindex)), math.MaxUint16))
}

// reviewHops frees the learned next hops that two sweeps in a row found unused,
// and marks those that have failed, so that replies go by the route.
func (d *Dataplane) reviewHops() error {
	const first, count = uint32(bpf.KernelHopLayoutLEARNED_HOPS), uint32(bpf.KernelHopLayoutHOPS - bpf.KernelHopLayoutLEARNED_HOPS)
	uses, hops := make([]uint32, count), make([]bpf.KernelHop, count)
	if err := errors.Join(bpf.ReadRange(d.plane.HopUses, first, uses), bpf.ReadRange(d.plane.Hops, first, hops)); err != nil {
		return err
	}
	unused := map[uint32]bool{}
	for n := range hops {
		h, i := &hops[n], first+uint32(n)
		if h.Ifindex == 0 {
			continue
		}
		mtu := d.mtuOf(h.Ifindex)
		switch failed := d.resolver.Failed(int(h.Ifindex), h.DestinationMac); {
		case uses[n] == 0 && d.sweeps.unused[i]:
			*h = bpf.KernelHop{Generation: h.Generation + 1}
		case h.Mtu != mtu:
			h.Mtu = mtu // the programs do not know it; what else there is has time until the next sweep
		case failed == (h.Failed != 0):
			unused[i] = uses[n] == 0
			continue
		case failed:
			d.opts.Log.Warn("next hop of clients failed: replies go by the route", "ifindex", h.Ifindex, "mac", fmt.Sprintf("%x", h.DestinationMac))
			h.Failed = 1
		default:
			h.Failed = 0
		}
		if err := d.plane.Hops.Update(i, h, ebpf.UpdateExist); err != nil {
			return fmt.Errorf("write next hop %d: %w", i, err)
		}
	}
	d.sweeps.unused = unused
	return nil
}
