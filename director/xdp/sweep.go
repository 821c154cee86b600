package xdp

import (
	"context"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// sliceGroups is how many groups one run of the sweep program looks at. Packets
// wait for it on its CPU: some 100 microseconds.
const sliceGroups = 64

// templateSweeps is how many sweeps there are to one that counts the connections
// under each template: that costs a look in the table for each of them, and is for
// faults alone.
const templateSweeps = 16

// sweepInterval is the time from the begin of one sweep to that of the next.
const sweepInterval = 2 * time.Second

// sweepState is what sweeps have found. Guarded by Dataplane.mu.
type sweepState struct {
	started   uint64 // sweeps begun
	keys      [2]uint64
	expired   [2]uint64
	corrected [2]uint64
	orphans   uint64
	doubts    map[uint32]doubt  // servers whose counts differed in the last sweep
	udp       map[uint32]uint64 // UDP connections by server, in the last complete sweep
	unused    map[uint32]bool   // learned hops without a use in the last sweep
}

// families in the order of the arrays above.
var families = [2]struct {
	name string
	v6   bool
}{{"ipv4", false}, {"ipv6", true}}

// Run sweeps the tables and samples the rates until the context ends, and fails if
// following next hops does.
func (d *Dataplane) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sampling sync.WaitGroup
	defer sampling.Wait()
	defer cancel()
	sampling.Go(func() { d.sampleRates(ctx) })
	lost := make(chan error, 1) // one message, from the one waiter
	go func() { lost <- d.background.Wait() }()
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost:
			if d.isClosed() {
				return nil // detached or closed beside us
			}
			return fmt.Errorf("follow next hops: %w", err)
		case <-ticker.C:
			if err := d.sweep(ctx); err != nil && ctx.Err() == nil && !d.isClosed() {
				d.opts.Log.Error("sweep failed; expired connections stay until the next one", "err", err)
			}
		}
	}
}

func (d *Dataplane) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// sweep goes over both tables once, slice by slice, and acts on what it counted.
func (d *Dataplane) sweep(ctx context.Context) error {
	number, err := d.beginSweep()
	if err != nil {
		return err
	}
	for f, family := range families {
		groups := d.plane.Connections4.MaxEntries()
		if family.v6 {
			groups = d.plane.Connections6.MaxEntries()
		}
		var keys uint64
		for first := uint32(0); first < groups; first += sliceGroups {
			args := bpf.KernelSweepArgs{FirstGroup: first, Groups: min(sliceGroups, groups-first), Templates: templatesIn(number)}
			if err := d.sweepSlice(ctx, family.v6, &args); err != nil {
				return err
			}
			keys += uint64(args.LiveKeys)
			d.noteSlice(f, &args)
		}
		d.mu.Lock()
		d.sweeps.keys[f] = keys
		d.mu.Unlock()
	}
	return d.finishSweep(number)
}

// templatesIn says what the sweep of this number does about templates' connections:
// it takes one that begins to count and one that compares.
func templatesIn(number uint64) uint32 {
	switch number % templateSweeps {
	case 0:
		return uint32(bpf.KernelSweepTemplatesTEMPLATES_BEGUN)
	case 1:
		return uint32(bpf.KernelSweepTemplatesTEMPLATES_COUNTED)
	default:
		return uint32(bpf.KernelSweepTemplatesTEMPLATES_LEFT)
	}
}

func (d *Dataplane) beginSweep() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return 0, context.Canceled
	}
	d.sweeps.started++
	if err := bpf.ClearArray[bpf.KernelRecount](d.plane.Recounts); err != nil {
		return 0, err
	}
	return d.sweeps.started, bpf.ClearArray[uint32](d.plane.HopUses)
}

func (d *Dataplane) sweepSlice(ctx context.Context, v6 bool, args *bpf.KernelSweepArgs) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return err
	}
	return d.plane.Sweep(v6, args)
}

func (d *Dataplane) noteSlice(family int, args *bpf.KernelSweepArgs) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweeps.expired[family] += uint64(args.Removed)
	if args.Orphans > 0 {
		d.sweeps.orphans += uint64(args.Orphans)
		d.opts.Log.Error("removed reply keys that had no connection: please report this", "family", families[family].name, "keys", args.Orphans)
	}
}

// finishSweep acts on a complete sweep: heals counts, frees indices and hops.
func (d *Dataplane) finishSweep(number uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	recounts, err := bpf.ReadArray[bpf.KernelRecount](d.plane.Recounts)
	if err != nil {
		return err
	}
	d.noteUDP(recounts)
	if err := d.healCounts(recounts); err != nil {
		return err
	}
	named, looked, err := d.reviewDestinations(time.Now())
	if err != nil {
		return err
	}
	keeps := func(s *server) bool {
		return !s.service.removed && hasDestinations(s.service.scheduler) && (!looked || named[s.index])
	}
	if err := d.freeServers(number, recounts, keeps); err != nil {
		return err
	}
	if err := d.repairSchedules(); err != nil {
		return err
	}
	if err := d.reviewHops(); err != nil {
		return err
	}
	return d.reviewPlane()
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
	for i := range d.model.servers {
		if n := recounts[i].Udp; n > 0 {
			d.sweeps.udp[i] = n
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
		d.model.dropServer(s)
		freed = true
	}
	for i, svc := range d.model.services {
		if !svc.removed || len(svc.members) > 0 {
			continue
		}
		if err := d.plane.Services.Put(i, &bpf.KernelService{}); err != nil {
			return fmt.Errorf("free service %d: %w", i, err)
		}
		d.words.release(svc.words)
		d.model.dropService(svc)
		freed = true
	}
	if freed {
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

// reviewHops frees the learned next hops that two sweeps in a row found unused,
// and marks those that have failed, so that replies go by the route.
func (d *Dataplane) reviewHops() error {
	uses, err := bpf.ReadArray[uint32](d.plane.HopUses)
	if err != nil {
		return err
	}
	hops, err := bpf.ReadArray[bpf.KernelHop](d.plane.Hops)
	if err != nil {
		return err
	}
	unused := map[uint32]bool{}
	for i := uint32(bpf.KernelHopLayoutLEARNED_HOPS); i < uint32(len(hops)); i++ {
		h := &hops[i]
		if h.Ifindex == 0 {
			continue
		}
		switch failed := d.resolver.Failed(int(h.Ifindex), h.DestinationMac); {
		case uses[i] == 0 && d.sweeps.unused[i]:
			*h = bpf.KernelHop{Generation: h.Generation + 1}
		case failed == (h.Failed != 0):
			unused[i] = uses[i] == 0
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

// tables describes the connection tables.
func (s *sweepState) tables(plane *bpf.Plane) []director.TableStats {
	const slots = uint64(bpf.KernelTableShapeSLOTS)
	groups4, groups6 := uint64(plane.Connections4.MaxEntries()), uint64(plane.Connections6.MaxEntries())
	return []director.TableStats{
		{
			Family: families[0].name, Limit: plane.Limits.Connections4, Keys: s.keys[0], Slots: groups4 * slots,
			Bytes: groups4 * uint64(unsafe.Sizeof(bpf.KernelGroup4{})), Expired: s.expired[0], Corrected: s.corrected[0],
		},
		{
			Family: families[1].name, Limit: plane.Limits.Connections6, Keys: s.keys[1], Slots: groups6 * slots,
			Bytes: groups6 * uint64(unsafe.Sizeof(bpf.KernelGroup6{})), Expired: s.expired[1], Corrected: s.corrected[1],
		},
	}
}
