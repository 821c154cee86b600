package ipvs

import (
	"context"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
	"github.com/shunt-lb/shunt/realserver"
)

// Found reads what the kernel holds. What it has no place for is what was written,
// as far as the kernel's values confirm it: a name while the service is there, an
// address while it is on the host, a drain while the weight is 0. Services that
// were never written since the start have no name and an external address.
func (d *Dataplane) Found(ctx context.Context) (director.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var state director.State
	if err := d.check(ctx); err != nil {
		return state, err
	}
	entries, err := d.driver.Services(ctx)
	if err != nil {
		return state, err
	}
	timeouts, err := d.driver.Timeouts(ctx)
	if err != nil {
		return state, err
	}
	onHost, err := d.vips.Addresses()
	if err != nil {
		return state, err
	}
	for i := range entries {
		state.Services = append(state.Services, d.memory.found(&entries[i], onHost))
	}
	slices.SortFunc(state.Services, func(a, b director.Service) int { return a.Key.Compare(b.Key) })
	state.Timeouts = foundTimeouts(timeouts)
	state.Sync, err = d.foundSync(ctx)
	return state, err
}

// found returns the service as it is in the kernel, with what is remembered of it.
func (m *memory) found(entry *kernel.ServiceEntry, onHost map[netip.Prefix]bool) director.Service {
	s := foundService(entry.Service)
	known := m.services[s.Key]
	if known != nil {
		s.Name = known.name
		s.VIP = known.vip
		if p, ok := managedPrefix(s.Key, known.vip); ok && !onHost[p] {
			s.VIP = director.VIPExternal
		}
	}
	// The kernel's list is last added first; a Service has them as they were added.
	for _, k := range slices.Backward(entry.Servers) {
		s.Servers = append(s.Servers, known.server(k.Server))
	}
	return s
}

// server returns the server as it is in the kernel, draining if that is why its
// weight is 0.
func (r *remembered) server(k kernel.Server) realserver.Server {
	s := foundServer(k)
	if r == nil || k.Weight != 0 {
		return s
	}
	if was, ok := r.servers[s.Address]; ok {
		s.Draining, s.Weight = true, was.Weight
	}
	return s
}

// foundSync returns the sync daemons that run.
func (d *Dataplane) foundSync(ctx context.Context) ([]director.SyncDaemon, error) {
	daemons, err := d.driver.SyncDaemons(ctx)
	if err != nil {
		return nil, err
	}
	var found []director.SyncDaemon
	for _, k := range daemons {
		found = append(found, runningDaemon(k))
	}
	return found, nil // the master first, as in a State
}

func foundTimeouts(t kernel.Timeouts) conntrack.Timeouts {
	return conntrack.Timeouts{TCP: t.TCP, TCPFin: t.TCPFin, UDP: t.UDP}
}
