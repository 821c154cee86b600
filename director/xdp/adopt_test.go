package xdp

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// What was spoilt while no daemon ran is put right by the next one's start.
func TestStartRepairs(t *testing.T) {
	r := newRepairRig(t)
	for _, damage := range []struct {
		name string
		do   func(m *bpf.KernelMaps)
	}{
		{"nothing", func(*bpf.KernelMaps) {}},
		{"schedules cleared", func(m *bpf.KernelMaps) {
			for i := range r.want.Services {
				var k bpf.KernelService
				r.ok(m.Services.Lookup(r.service(i).index, &k))
				k.Schedule = [2]bpf.KernelSchedule{}
				r.ok(m.Services.Put(r.service(i).index, &k))
			}
		}},
		{"schedules of two services in the same words", func(m *bpf.KernelMaps) {
			var k bpf.KernelService
			r.ok(m.Services.Lookup(r.service(hashService).index, &k))
			k.Schedule = [2]bpf.KernelSchedule{r.service(mhService).schedule, r.service(mhService).schedule}
			r.ok(m.Services.Put(r.service(hashService).index, &k))
		}},
		{"tables", func(m *bpf.KernelMaps) {
			r.ok(m.Words.Put(r.service(hashService).schedule.Table, uint32(0)))
			r.ok(m.Words.Put(r.service(mhService).schedule.Table, uint32(0)))
		}},
		{"index", func(m *bpf.KernelMaps) {
			stale := serviceKey(r.want.Services[webService].Key)
			r.ok(m.ServiceIndex.Delete(stale))
			stale.Port++
			r.ok(m.ServiceIndex.Put(stale, r.service(webService).index))
		}},
		{"server", func(m *bpf.KernelMaps) { r.ok(m.Servers.Put(r.server(webService, 1).index, &bpf.KernelServer{})) }},
		{"timeouts of a service", func(m *bpf.KernelMaps) {
			r.ok(m.Timeouts.Put(r.service(stickyService).index, &bpf.KernelTimeoutSet{}))
		}},
		{"limits of a service", func(m *bpf.KernelMaps) {
			r.ok(m.Limits.Put(r.service(turnService).index, &bpf.KernelServiceLimits{Connections: 1}))
		}},
		{"settings of a service", func(m *bpf.KernelMaps) {
			var k bpf.KernelService
			r.ok(m.Services.Lookup(r.service(stickyService).index, &k))
			k.Persistence, schedule(&k).ClientMask, k.Seconds = 0, [4]uint32{}, [3]uint32{}
			r.ok(m.Services.Put(r.service(stickyService).index, &k))
		}},
		{"thresholds", func(m *bpf.KernelMaps) {
			r.ok(m.Loads.Put(r.server(turnService, 1).index, &bpf.KernelServerLoad{Upper: 1, Unfit: uint32(bpf.KernelUnfitUNFIT_OVERLOADED)}))
		}},
		{"prefixes", func(m *bpf.KernelMaps) {
			r.ok(m.Access.Delete(bpf.AccessKey(r.service(webService).access.set(), netip.MustParsePrefix("198.51.0.0/16"))))
			r.ok(m.Access.Put(bpf.AccessKey(99, netip.MustParsePrefix("198.51.0.0/16")), uint32(1)))
		}},
	} {
		t.Run(damage.name, func(t *testing.T) {
			r.t = t
			var maps bpf.KernelMaps
			for to, from := range map[**ebpf.Map]*ebpf.Map{
				&maps.Services: r.plane.Services, &maps.Servers: r.plane.Servers, &maps.Words: r.plane.Words,
				&maps.ServiceIndex: r.plane.ServiceIndex, &maps.Access: r.plane.Access, &maps.Timeouts: r.plane.Timeouts,
				&maps.Loads: r.plane.Loads, &maps.Limits: r.plane.KernelMaps.Limits,
			} {
				clone, err := from.Clone()
				r.ok(err)
				defer clone.Close()
				*to = clone
			}
			r.ok(r.Close())
			damage.do(&maps)
			r.open()
			r.director = director.New(r.Dataplane, r.store, director.Options{})
			r.ok(r.director.Start(t.Context(), director.State{}, director.Request{}))
			r.sameAsWanted()
			r.flows()
			if got, want := len(r.entries()), 2; got != want {
				t.Errorf("%d prefixes in the trie, want %d", got, want)
			}
		})
	}
}
