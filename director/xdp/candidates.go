package xdp

import (
	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// explainScheduler fills in what the service's scheduler looks at, as the maps have
// it now. Called with mu held.
func (d *Dataplane) explainScheduler(to *director.Decision, svc *service) error {
	var k [1]bpf.KernelService
	if err := bpf.ReadRange(d.plane.Services, svc.index, k[:]); err != nil {
		return err
	}
	r := reading{plane: d.plane}
	indices, weights := r.list(schedule(&k[0]))
	if r.failed != nil {
		return r.failed
	}
	for i, index := range indices {
		s := d.model.servers[index]
		if s == nil {
			continue // somebody else's doing: the next reconciliation repairs it
		}
		var load [1]bpf.KernelServerLoad
		if err := bpf.ReadRange(d.plane.Loads, index, load[:]); err != nil {
			return err
		}
		to.Candidates = append(to.Candidates, director.Candidate{
			Server: s.address, Weight: weights[i],
			Active: uint64(max(0, load[0].Active)), Inactive: uint64(max(0, load[0].Inactive)), Overloaded: isOverloaded(&load[0]),
			Suspended: isSuspended(&load[0]),
		})
	}
	switch svc.scheduler {
	case director.WeightedRoundRobin:
		to.CurrentWeight = uint32(k[0].Cursor)
		fallthrough
	case director.RoundRobin:
		to.Turn = int(k[0].Cursor>>bpf.KernelCursorLayoutCURSOR_POSITION&0xffff) - 1
	}
	to.Slot = slotOf(svc, to.Question)
	return nil
}

// slotOf returns where a hash scheduler begins to look in its table; -1 for others.
func slotOf(svc *service, q director.Question) int {
	var port uint16
	if svc.flags.Port {
		port = q.Client.Port()
	}
	switch svc.scheduler {
	case director.DestinationHash:
		return int(scheduler.DestinationHashBucket(q.Virtual.Addr()))
	case director.SourceHash:
		return int(scheduler.SourceHashBucket(q.Client.Addr(), port, 0))
	case director.Maglev:
		return int(scheduler.MaglevSlot(q.Client.Addr(), port, 0))
	default:
		return -1
	}
}
