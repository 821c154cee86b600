package bench

import (
	"fmt"
	"math"
	"net/netip"
	"runtime"

	"github.com/shunt-lb/shunt/bpf"
)

// Templates measures the first packets of connections that follow a persistence
// template which is there, template-hit/tcp4 and tcp6: DR, as new-dr's, so that the
// template is what differs. It needs root, and keeps the goroutine on its thread.
func Templates(o Options) ([]Row, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := bench{Options: o.withDefaults(), counter: OpenCounter()}
	defer b.counter.Close()
	coll, err := load(worldOptions{connections4: newConnections, connections6: newConnections, refresh: forever})
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	for _, f := range []family{family4, family6} {
		b.Log("%s, new connections under a template", label(f, tcp))
		w, err := newWorld(coll, f, tcp, bpf.KernelMethodMETHOD_DR, 1)
		if err == nil {
			err = w.persist()
		}
		if err != nil {
			return nil, err
		}
		if err := b.templateHits(w); err != nil {
			return nil, err
		}
		if err := w.checkTemplates(); err != nil {
			return nil, err
		}
	}
	return b.rows, nil
}

func (b *bench) templateHits(w *world) error {
	h, err := newHarness(b.counter, 1, w.family.v6)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := w.connect(h); err != nil { // the template's first
		return err
	}
	g := group{packets: newConnections / 8 / (b.Rounds + 1), suffix: label(w.family, tcp)}
	plan := newPlan(w, toService, flagSYN, inOrder)
	plan.Index, plan.Mask = 1, math.MaxUint32
	g.watched("template-hit/"+g.suffix, w, plan, connections, bpf.KernelEventEVENT_NONE)
	return b.take(h, &g)
}

// persist makes the service persistent, with all of the plans' clients in one network.
func (w *world) persist() error {
	var service bpf.KernelService
	if err := w.Maps[bpf.KernelMapServices].Lookup(w.index, &service); err != nil {
		return fmt.Errorf("read service %d: %w", w.index, err)
	}
	mask := netip.MustParseAddr("255.0.0.0")
	if w.family.v6 {
		mask = netip.MustParseAddr("ffff:ffff:ffff::")
	}
	service.Schedule[0].Flags |= uint16(bpf.KernelServiceFlagsSERVICE_PERSISTENT)
	service.Schedule[0].ClientMask = bpf.Address(mask)
	if err := w.Maps[bpf.KernelMapServices].Put(w.index, &service); err != nil {
		return fmt.Errorf("write service %d: %w", w.index, err)
	}
	return nil
}

// checkTemplates proves that one template had all connections.
func (w *world) checkTemplates() error {
	var sum int64
	for i := w.firstServer(); i < w.firstServer()+servers; i++ {
		var load bpf.KernelServerLoad
		if err := w.Maps[bpf.KernelMapLoads].Lookup(i, &load); err != nil {
			return fmt.Errorf("read loads: %w", err)
		}
		sum += load.Templates
	}
	if sum != 1 {
		return fmt.Errorf("the connections made %d templates, want 1", sum)
	}
	return nil
}
