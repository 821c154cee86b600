package xdp

import (
	"fmt"

	"github.com/shunt-lb/shunt/bpf"
)

// serviceDoubt is what is known about a service whose count of connections is not
// that of its servers.
type serviceDoubt struct {
	connections, servers int64
	suspect
}

// healServices corrects the services' counts of connections, by which limits go: each
// is the sum of its servers' counts, which the sweep heals itself. What counts while
// both are read is between the sums before and after; the rest is weighed as servers'
// counts are.
func (d *Dataplane) healServices() error {
	before := make([]bpf.KernelServerLoad, d.model.usedServers())
	after := make([]bpf.KernelServerLoad, len(before))
	states := make([]bpf.KernelServiceState, d.model.usedServices())
	if err := bpf.ReadRange(d.plane.Loads, 0, before); err != nil {
		return err
	}
	if err := bpf.ReadRange(d.plane.ServiceStates, 0, states); err != nil {
		return err
	}
	if err := bpf.ReadRange(d.plane.Loads, 0, after); err != nil {
		return err
	}
	doubts := map[uint32]serviceDoubt{}
	for i, svc := range d.model.services {
		var low, high int64
		for _, s := range svc.members {
			x, y := total(&before[s.index]), total(&after[s.index])
			low, high = low+min(x, y), high+max(x, y)
		}
		counted := states[i].Connections
		var diff int64 // to what its servers have
		if counted > high {
			diff = high - counted
		} else if counted < low {
			diff = low - counted
		}
		last := d.sweeps.ofServices[i]
		now := serviceDoubt{connections: counted, servers: high}
		var by int64
		now.suspect, by = last.next(diff, last.connections == counted && last.servers == high)
		if now.suspect != (suspect{}) {
			doubts[i] = now
		}
		if by == 0 {
			continue
		}
		if err := d.plane.Correct(bpf.KernelCorrectArgs{Service: i, Connections: by}); err != nil {
			return fmt.Errorf("correct the connections of %s: %w", svc.key, err)
		}
		d.opts.Log.Warn("count of a service's connections corrected", "service", svc.key, "connections", by)
	}
	d.sweeps.ofServices = doubts
	return nil
}

func total(load *bpf.KernelServerLoad) int64 { return load.Active + load.Inactive }

// usedServices is one more than the highest service index in use.
func (m *model) usedServices() uint32 {
	var highest uint32
	for i := range m.services {
		highest = max(highest, i)
	}
	return highest + 1
}
