package bench

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// restrained measures first segments that begin nothing: those that a guard answers,
// and those beyond a limit. Each is of a client of its own, as a flood's.
func (b *bench) restrained(coll *ebpf.Collection, f family) error {
	b.Log("%s, refused connections", label(f, tcp))
	h, err := newHarness(b.counter, 1, f.v6)
	if err != nil {
		return err
	}
	defer h.Close()
	g := group{packets: b.Packets, suffix: label(f, tcp)}
	for i, r := range []struct {
		name   string
		flag   bpf.KernelServiceFlags
		limits bpf.KernelServiceLimits
		action uint32
		event  bpf.KernelEvent
	}{
		{
			"guard-syn/", bpf.KernelServiceFlagsSERVICE_GUARDED,
			bpf.KernelServiceLimits{Guard: uint32(bpf.KernelGuardModeGUARD_ON)},
			xdpTX, bpf.KernelEventEVENT_ANSWER_GUARD,
		},
		{
			// Whoever comes is too early.
			"refused-syn/", bpf.KernelServiceFlagsSERVICE_LIMITED,
			bpf.KernelServiceLimits{Cost: 2, Burst: 1},
			xdpDrop, bpf.KernelEventEVENT_DROP_SERVICE_RATE,
		},
	} {
		w, err := newRestrained(coll, f, uint32(i), r.flag, r.limits)
		if err != nil {
			return err
		}
		plan := newPlan(w, toService, flagSYN, random)
		plan.Mask = math.MaxUint32
		s := g.add(r.name+g.suffix, w.main(), plan, r.action, nil)
		s.begin = func() (err error) {
			s.check, err = w.watch(nil, r.event)
			return err
		}
	}
	return b.take(h, &g)
}

// newRestrained adds a DR service with limits to the fast path, behind those of newWorld.
func newRestrained(coll *ebpf.Collection, f family, number uint32, flag bpf.KernelServiceFlags, limits bpf.KernelServiceLimits) (*world, error) {
	w := &world{
		Collection: coll, family: f, virtual: offset(f.virtual, 2+number), protocol: tcp,
		method: bpf.KernelMethodMETHOD_DR, connections: 1, index: 9 + number,
	}
	if f.v6 {
		w.index += 2
	}
	if err := w.configure(); err != nil {
		return nil, fmt.Errorf("configure a service with limits: %w", err)
	}
	var service bpf.KernelService
	if err := coll.Maps[bpf.KernelMapServices].Lookup(w.index, &service); err != nil {
		return nil, err
	}
	service.Schedule[0].Flags |= uint16(flag)
	p := putter{coll: coll}
	p.put(bpf.KernelMapServices, w.index, &service)
	p.put(bpf.KernelMapLimits, w.index, &limits)
	return w, p.err
}
