package xdp

import (
	"context"
	"fmt"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// Zero has the counters of the service, or of all, and their rates begin anew. What
// programs count is not touched: where the counts stood is noted beside them, in a
// map that outlives the daemon, so that no packet is lost between two writes. An
// error may leave some of the servers as they were.
func (d *Dataplane) Zero(ctx context.Context, key director.ServiceKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return err
	}
	services := d.model.sorted()
	if key != (director.ServiceKey{}) {
		svc, err := d.model.live(key)
		if err != nil {
			return fmt.Errorf("set the counters of %s to zero: %w", key, err)
		}
		services = []*service{svc}
	}
	traffic, err := d.plane.AllTraffic(d.model.usedServers())
	if err != nil {
		return err
	}
	zeroed := map[uint32]bool{0: key == (director.ServiceKey{})} // what was for no service, with all
	for _, svc := range services {
		if svc.removed {
			continue
		}
		zeroed[svc.index] = true
		if err := d.zeroService(svc, traffic); err != nil {
			return fmt.Errorf("set the counters of %s to zero: %w", svc.key, err)
		}
	}
	return d.plane.ClearDrops(func(service uint32) bool { return zeroed[service] })
}

// zero has the counters of one service begin anew.
func (d *Dataplane) zero(svc *service) error {
	traffic, err := d.plane.AllTraffic(d.model.usedServers())
	if err == nil {
		err = d.zeroService(svc, traffic)
	}
	if err == nil {
		err = d.plane.ClearDrops(func(service uint32) bool { return service == svc.index })
	}
	if err != nil {
		return fmt.Errorf("set the counters to zero: %w", err)
	}
	return nil
}

// zeroService takes the servers' counters as they are in traffic for zero.
func (d *Dataplane) zeroService(svc *service, traffic []bpf.KernelTraffic) error {
	for _, s := range svc.members {
		if err := d.plane.ZeroedTraffic.Put(s.index, &traffic[s.index]); err != nil {
			return fmt.Errorf("note where server %s stands: %w", s.address, err)
		}
		s.rates.Reset(director.Counters{})
	}
	if err := d.plane.RetiredTraffic.Put(svc.index, &bpf.KernelTraffic{}); err != nil {
		return fmt.Errorf("clear those of its removed servers: %w", err)
	}
	svc.rates.Reset(director.Counters{})
	return nil
}

// since returns what was counted since the counters were set to zero. Counters that
// stand below that were cleared, by a daemon that was killed then.
func since(zeroed, now bpf.KernelTraffic) bpf.KernelTraffic {
	return bpf.KernelTraffic{
		Connections: now.Connections - min(zeroed.Connections, now.Connections),
		InPackets:   now.InPackets - min(zeroed.InPackets, now.InPackets),
		InBytes:     now.InBytes - min(zeroed.InBytes, now.InBytes),
		OutPackets:  now.OutPackets - min(zeroed.OutPackets, now.OutPackets),
		OutBytes:    now.OutBytes - min(zeroed.OutBytes, now.OutBytes),
	}
}
