package xdp

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// adoptState builds the model from the maps and sees to it that what an
// interrupted change left is put right: schedules that are not what their
// servers ask for are written anew, a live service is indexed, keys that no
// service has are deleted, next hops followed.
func (d *Dataplane) adoptState() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := read(d.plane)
	if err != nil {
		return err
	}
	d.words = newArena(d.plane.Limits.Words)
	d.hops = newHopTable()
	d.tunnels = newTunnelTable()
	d.access = newAccessSets(d.plane)
	if d.model = r.model(d.words); r.failed != nil {
		return r.failed
	}
	d.matches = newMatchTable(d.plane, d.words)
	d.matches.adopt(r.matches, d.model)
	d.echoes = newEchoTable(d.plane, d.opts.Echo)
	for _, svc := range d.model.services {
		d.echoes.take(svc)
	}
	if err := d.hops.adopt(d.plane, d.model); err != nil {
		return err
	}
	if err := d.tunnels.adopt(d.plane, r.tunnels, d.model); err != nil {
		return err
	}
	for _, svc := range d.model.services {
		if err := d.writeTimeouts(svc, readTimeouts(&r.settings)); err != nil {
			return err
		}
	}
	if err := d.adoptLimits(); err != nil {
		return err
	}
	for _, s := range d.model.servers {
		if !s.removed && !s.service.removed {
			d.watch(s)
		}
		if err := d.writeServer(s); err != nil {
			return err
		}
	}
	for _, svc := range d.model.sorted() {
		if svc.removed {
			continue
		}
		if err := d.adoptService(r, svc); err != nil {
			return fmt.Errorf("adopt service %s: %w", svc.key, err)
		}
	}
	if err := d.adoptIndex(r); err != nil {
		return err
	}
	if _, err := d.echoes.repair(); err != nil {
		return err
	}
	if err := d.access.purge(d.model.setsInUse()); err != nil {
		return err
	}
	if err := d.beginRates(); err != nil {
		return err
	}
	return d.writeFilter()
}

// adoptService takes over the schedule in force with its cursor, or writes it
// anew if it is not what the servers ask for.
func (d *Dataplane) adoptService(r *reading, svc *service) error {
	next, table := buildSchedule(svc, svc.list)
	content := make([]uint32, 0, 2*len(svc.list))
	for _, s := range svc.list {
		content = append(content, s.index, s.offered())
	}
	if svc.migration != settled {
		d.opts.Log.Warn("service was being moved from the host's stack when the daemon ended: unknown connections are left to that still", "service", svc.key)
	}
	has := schedule(&r.services[svc.index])
	next.List, next.Table = has.List, has.Table
	svc.schedule, svc.sum = next, addWords(addWords(0, content), table)
	if svc.words.count > 0 && r.holds(svc, &r.services[svc.index]) {
		return nil
	}
	return d.reschedule(svc, svc.list, false, weightStep(svc.list))
}

// adoptIndex makes the index that of the live services.
func (d *Dataplane) adoptIndex(r *reading) error {
	for key := range r.index {
		if _, err := d.model.live(parseServiceKey(key)); err == nil {
			continue
		}
		if err := d.plane.ServiceIndex.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("unindex %s: %w", parseServiceKey(key), err)
		}
	}
	for _, svc := range d.model.services {
		if svc.removed {
			continue
		}
		if err := d.index(svc); err != nil {
			return fmt.Errorf("service %s: %w", svc.key, err)
		}
	}
	return d.matches.purge()
}

// model makes the model of what was read, and takes the regions of schedules
// from words.
func (r *reading) model(words *arena) *model {
	m := newModel()
	for i := range r.services {
		k := &r.services[i]
		if i == 0 || k.Life == uint8(bpf.KernelLifecycleLIFE_FREE) {
			continue
		}
		svc := r.parse(uint32(i))
		// Two of one key: the index says which one packets find.
		if other := m.byKey[svc.key]; other != nil && r.index[k.Key] == other.index {
			continue
		} else if other != nil {
			m.dropService(other)
		}
		svc.access = accessList{k.Access, foundAccess(r.access, k.Access, svc.key.Address.Addr().Is6())}
		m.addService(svc)
	}
	for i := range r.servers {
		svc := m.services[r.servers[i].Service]
		if i == 0 || r.servers[i].Life == uint8(bpf.KernelLifecycleLIFE_FREE) || svc == nil {
			continue
		}
		if s := r.server(uint32(i), svc); svc.members[s.address] == nil {
			m.addServer(s)
		}
	}
	for _, svc := range m.services {
		r.takeList(m, svc, words)
	}
	return m
}

// takeList takes the service's list from its schedule. A live server that is not
// in it was being added or removed when the daemon died: it counts as removed.
func (r *reading) takeList(m *model, svc *service, words *arena) {
	s := schedule(&r.services[svc.index])
	listed := map[*server]bool{}
	indices, weights := r.list(s)
	for i, index := range indices {
		if member := m.servers[index]; member != nil && member.service == svc && !member.removed && !listed[member] {
			svc.list = append(svc.list, member)
			svc.weights = append(svc.weights, weights[i])
			listed[member] = true
		}
	}
	for _, member := range svc.members {
		if !listed[member] {
			member.removed = true
		}
	}
	if s.Servers > director.MaxServers || s.Slots > maxSlots {
		return
	}
	taken := region{first: s.List, count: roundUp(2*s.Servers + s.Slots)}
	if words.take(taken) {
		svc.words = taken
	}
}
