package xdp

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// adoptState builds the model from the maps and sees to it that what an
// interrupted change left is put right: schedules are written anew, indices of
// half-made services freed, next hops followed.
func (d *Dataplane) adoptState() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.words = newArena(d.plane.Limits.Words)
	d.hops = newHopTable()
	m, err := readModel(d.plane, d.words)
	if err != nil {
		return err
	}
	d.model = m
	if err := d.hops.adopt(d.plane, m); err != nil {
		return err
	}
	for _, s := range m.servers {
		if !s.removed && !s.service.removed {
			d.watch(s)
		}
		if err := d.writeServer(s); err != nil {
			return err
		}
	}
	for _, svc := range m.sorted() {
		if svc.removed {
			continue
		}
		if isStale(svc) {
			if err := d.reschedule(svc, svc.list, false); err != nil {
				return fmt.Errorf("adopt service %s: %w", svc.key, err)
			}
		}
		index := svc.index
		if err := d.plane.ServiceIndex.Put(serviceKey(svc.key), index); err != nil {
			return fmt.Errorf("adopt service %s: %w", svc.key, err)
		}
	}
	return d.writeFilter()
}

// readModel reads services, servers and schedules from the maps.
func readModel(plane *bpf.Plane, words *arena) (*model, error) {
	m := newModel()
	services, err := bpf.ReadArray[bpf.KernelService](plane.Services)
	if err != nil {
		return nil, err
	}
	for i := range services {
		if services[i].Life == uint8(bpf.KernelLifecycleLIFE_FREE) {
			continue
		}
		svc := parseService(uint32(i), &services[i])
		m.services[svc.index] = svc
		m.byKey[svc.key] = svc
	}
	servers, err := bpf.ReadArray[bpf.KernelServer](plane.Servers)
	if err != nil {
		return nil, err
	}
	for i := range servers {
		svc := m.services[servers[i].Service]
		if servers[i].Life == uint8(bpf.KernelLifecycleLIFE_FREE) || svc == nil {
			continue
		}
		m.servers[uint32(i)] = parseServer(uint32(i), &servers[i], svc)
	}
	for i, svc := range m.services {
		k := &services[i]
		if err := readList(plane, m, svc, k.Schedule[k.Cursor>>bpf.KernelCursorLayoutCURSOR_HALF&1], words); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func parseService(index uint32, k *bpf.KernelService) *service {
	svc := &service{
		index:     index,
		key:       parseServiceKey(k.Key),
		name:      string(bytes.TrimRight(k.Name[:], "\x00")),
		scheduler: schedulerName(k.Scheduler),
		vip:       director.VIPExternal,
		removed:   k.Life != uint8(bpf.KernelLifecycleLIFE_LIVE),
	}
	has := func(flag bpf.KernelServiceFlags) bool { return k.Flags&uint8(flag) != 0 }
	svc.flags.Port = has(bpf.KernelServiceFlagsSERVICE_HASH_PORT)
	svc.flags.Fallback = has(bpf.KernelServiceFlagsSERVICE_FALLBACK)
	if has(bpf.KernelServiceFlagsSERVICE_VIP_MANAGED) {
		svc.vip = director.VIPManaged
	}
	return svc
}

func parseServer(index uint32, k *bpf.KernelServer, svc *service) *server {
	return &server{
		index:      index,
		service:    svc,
		address:    netip.AddrPortFrom(bpf.ParseAddress(k.Address, svc.key.Address.Addr().Is6()), bpf.Port(k.Port)),
		method:     realserver.Method(k.Method),
		weight:     k.Weight,
		lastWeight: k.LastWeight,
		removed:    k.Life != uint8(bpf.KernelLifecycleLIFE_LIVE),
		hop:        k.Hop,
	}
}

// readList takes the service's list from its schedule. A live server that is not
// in it was being added or removed when the daemon died: it counts as removed.
func readList(plane *bpf.Plane, m *model, svc *service, schedule bpf.KernelSchedule, words *arena) error {
	listed := map[*server]bool{}
	for i := range schedule.Servers {
		var index, weight uint32
		if err := plane.Words.Lookup(schedule.List+2*i, &index); err != nil {
			return fmt.Errorf("read the servers of %s: %w", svc.key, err)
		}
		if err := plane.Words.Lookup(schedule.List+2*i+1, &weight); err != nil {
			return fmt.Errorf("read the servers of %s: %w", svc.key, err)
		}
		if s := m.servers[index]; s != nil && s.service == svc && !s.removed {
			svc.list = append(svc.list, s)
			svc.weights = append(svc.weights, weight)
			listed[s] = true
		}
	}
	for _, s := range m.servers {
		if s.service == svc && !listed[s] {
			s.removed = true
		}
	}
	svc.words = region{first: schedule.List, count: roundUp(2*schedule.Servers + schedule.Slots)}
	words.take(svc.words)
	return nil
}

// isStale says whether the schedule in force is not what its servers ask for.
// One that is stays as it is, its cursor with it.
func isStale(svc *service) bool {
	for i, s := range svc.list {
		if svc.weights[i] != s.offered() {
			return true
		}
	}
	return false
}

// Found reads what the kernel holds.
func (d *Dataplane) Found(ctx context.Context) (director.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return director.State{}, err
	}
	m, err := readModel(d.plane, newArena(d.plane.Limits.Words))
	if err != nil {
		return director.State{}, err
	}
	var state director.State
	for _, svc := range m.sorted() {
		if svc.removed {
			continue
		}
		s := director.Service{Key: svc.key, Name: svc.name, Scheduler: svc.scheduler, Flags: svc.flags, VIP: svc.vip}
		// The list is last added first; a Service has them as they were added.
		for i := len(svc.list) - 1; i >= 0; i-- {
			s.Servers = append(s.Servers, svc.list[i].value())
		}
		state.Services = append(state.Services, s)
	}
	settings, err := d.plane.Settings()
	if err != nil {
		return director.State{}, err
	}
	state.Timeouts = readTimeouts(&settings)
	return state, nil
}

func putTimeouts(s *bpf.KernelSettings, clock bpf.Clock, t conntrack.Timeouts) {
	for _, state := range conntrack.States() {
		s.Timeout[state] = clock.Ticks(t.Of(state))
	}
	s.Seconds = [3]uint32{uint32(t.TCP / time.Second), uint32(t.TCPFin / time.Second), uint32(t.UDP / time.Second)}
}

func readTimeouts(s *bpf.KernelSettings) conntrack.Timeouts {
	seconds := func(i int) time.Duration { return time.Duration(s.Seconds[i]) * time.Second }
	return conntrack.Timeouts{TCP: seconds(0), TCPFin: seconds(1), UDP: seconds(2)}
}
