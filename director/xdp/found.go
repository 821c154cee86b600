package xdp

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Found reads what the kernel holds, as far as packets would meet it: a service
// that is not in the index or not let through the filter is not there, nor is a
// server whose entry or next hop does not lead to it. A schedule that is not
// what its scheduler makes of the servers shows as no scheduler, an address that
// is not on the host as one that is not managed, timeouts not in force as none.
// A service whose entry is not what its settings make it, or whose set of timeouts
// or limits are not, shows as one without a scheduler too.
func (d *Dataplane) Found(ctx context.Context) (director.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return director.State{}, err
	}
	r, err := read(d.plane)
	if err != nil {
		return director.State{}, err
	}
	onHost, err := d.onHost()
	if err != nil {
		return director.State{}, err
	}
	state := director.State{Timeouts: foundTimeouts(&r.settings, d.plane.Clock)}
	spoilt := d.matches.spoilt(r.matches, d.model)
	for _, svc := range d.model.sorted() {
		if !d.isIndexed(r, svc, spoilt) {
			continue
		}
		if s, ok := d.foundService(r, svc, onHost); ok {
			state.Services = append(state.Services, s)
		}
	}
	if unknown := d.unknownServices(r); len(unknown) > 0 {
		state.Services = append(state.Services, unknown...)
		slices.SortStableFunc(state.Services, func(a, b director.Service) int { return a.Key.Compare(b.Key) })
	}
	if r.failed != nil {
		return director.State{}, r.failed
	}
	used := d.model.setsInUse()
	for set := range r.access {
		d.access.strays = d.access.strays || !used[set]
	}
	return state, nil
}

// onHost returns the virtual addresses that are on the host by our doing; prefixes
// are looked for if a service has one.
func (d *Dataplane) onHost() (map[netip.Prefix]bool, error) {
	addresses, err := d.vips.Addresses()
	if err != nil || len(d.matches.services) == 0 {
		return addresses, err
	}
	prefixes, err := d.vips.Prefixes()
	maps.Copy(addresses, prefixes)
	return addresses, err
}

// isThere says whether packets find the service of the key in that place.
func (r *reading) isThere(index uint32) bool {
	k := &r.services[index]
	at, indexed := r.index[k.Key]
	return k.Life == uint8(bpf.KernelLifecycleLIFE_LIVE) && indexed && at == index &&
		has(&r.filter.VirtualAddress, parseServiceKey(k.Key).Prefix())
}

func (d *Dataplane) foundService(r *reading, svc *service, onHost map[netip.Prefix]bool) (director.Service, bool) {
	k := &r.services[svc.index]
	found := r.service(svc.index)
	if svc.removed || found.Key != svc.key {
		return director.Service{}, false
	}
	if found.VIP == director.VIPManaged && !onHost[svc.key.Prefix()] {
		found.VIP = director.VIPExternal
	}
	list := svc.list
	if !r.holds(svc, k) {
		found.Scheduler = ""
		list = d.listed(r, svc, k)
	}
	parsed := r.parse(svc.index)
	parsed.access.word = k.Access
	if again := kernelService(parsed); !sameEntry(k, &again) || !r.hasTimeouts(parsed) || !r.hasLimits(parsed) {
		found.Scheduler = ""
	}
	// The list is last added first; a Service has them as they were added.
	for _, s := range slices.Backward(list) {
		if server, ok := d.foundServer(r, s); ok {
			found.Servers = append(found.Servers, server)
		}
	}
	return found, true
}

// sameEntry compares all but the cursor, and of schedules the settings in force.
func sameEntry(a, b *bpf.KernelService) bool {
	x, y := *a, *b
	v, w := schedule(a), schedule(b)
	x.Cursor, x.Schedule = y.Cursor, y.Schedule
	return x == y && v.Flags == w.Flags && v.Scheduler == w.Scheduler && v.ClientMask == w.ClientMask
}

// service returns a service's settings.
func (r *reading) service(index uint32) director.Service {
	k := &r.services[index]
	svc := r.parse(index)
	return director.Service{
		Key: svc.key, Name: svc.name, Scheduler: svc.scheduler, Flags: svc.flags, VIP: svc.vip,
		Persistence: svc.persistence, OnePacket: svc.onePacket, Timeouts: svc.timeouts, Rules: svc.rules,
		Limits: svc.limits, Guard: svc.guard, MSS: svc.mss,
		Access: foundAccess(r.access, k.Access, svc.key.Address.Addr().Is6()),
	}
}

// listed returns the service's servers that the list in force names.
func (d *Dataplane) listed(r *reading, svc *service, k *bpf.KernelService) []*server {
	var list []*server
	indices, _ := r.list(schedule(k))
	for _, i := range indices {
		if s := d.model.servers[i]; s != nil && s.service == svc && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// foundServer returns what the kernel holds of the server; false if packets
// given to it would not get there.
func (d *Dataplane) foundServer(r *reading, s *server) (realserver.Server, bool) {
	k, want := r.servers[s.index], kernelServer(s)
	if !has(&r.filter.ServerAddress, host(s.address.Addr())) || s.removed ||
		!d.hops.isIntact(d.plane, s.hop) || !d.tunnels.isIntact(d.plane, s.tunnel) {
		return realserver.Server{}, false
	}
	// All else follows from these and what is known of the next hop. Where they are
	// the same and it differs, there is no telling what the entry does.
	found := r.server(s.index, s.service).value()
	found.Address = s.address
	if s.tunnel == 0 { // nothing is wrapped for it, so that no entry has its options
		found.Tunnel = s.tunnelOptions
	}
	const draining = uint8(bpf.KernelServerFlagsSERVER_DRAINING)
	want.Method, want.Weight, want.Flags = k.Method, k.Weight, want.Flags&^draining|k.Flags&draining
	if found != s.value() {
		want.OfferedWeight, want.LastWeight = k.OfferedWeight, k.LastWeight
	}
	return found, k == want
}

// unknownServices returns services that packets find and that are none of ours:
// somebody else wrote them. Their servers are read as the fast path reads them.
func (d *Dataplane) unknownServices(r *reading) []director.Service {
	var unknown []director.Service
	for key, index := range r.index {
		if d.model.services[index] != nil || int(index) >= len(r.services) || r.services[index].Key != key || !r.isThere(index) {
			continue
		}
		found := r.service(index)
		indices, _ := r.list(schedule(&r.services[index]))
		for _, i := range slices.Backward(indices) {
			if int(i) >= len(r.servers) || r.servers[i].Service != index || r.servers[i].Life != uint8(bpf.KernelLifecycleLIFE_LIVE) {
				continue
			}
			found.Servers = append(found.Servers, r.server(i, &service{key: found.Key}).value())
		}
		unknown = append(unknown, found)
	}
	return unknown
}
