package xdp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// Whatever somebody else does to the maps or to the host, the next
// reconciliation sees it and puts it right, and traffic flows as before.
func TestReconcileRepairs(t *testing.T) {
	r := newRepairRig(t)
	words := func(i int) *bpf.KernelSchedule { return &r.service(i).schedule }
	for _, damage := range bpftest.Sample([]struct {
		name string
		do   func()
	}{
		{"service not in the index", func() { r.ok(r.plane.ServiceIndex.Delete(serviceKey(r.want.Services[webService].Key))) }},
		{"service indexed as another", func() {
			r.ok(r.plane.ServiceIndex.Put(serviceKey(r.want.Services[webService].Key), r.service(hashService).index))
		}},
		{"service cleared", func() { r.editService(webService, func(k *bpf.KernelService) { *k = bpf.KernelService{} }) }},
		{"service of another key", func() { r.editService(hashService, func(k *bpf.KernelService) { k.Key.Port++ }) }},
		{"service removed", func() {
			r.editService(turnService, func(k *bpf.KernelService) { k.Life = uint8(bpf.KernelLifecycleLIFE_SERVICE_REMOVED) })
		}},
		{"scheduler", func() {
			r.editService(webService, func(k *bpf.KernelService) { schedule(k).Scheduler = uint8(bpf.KernelSchedulerSCHEDULER_MH) })
		}},
		{"scheduler unknown", func() { r.editService(webService, func(k *bpf.KernelService) { schedule(k).Scheduler = 77 }) }},
		{"flags", func() { r.editService(hashService, func(k *bpf.KernelService) { schedule(k).Flags ^= 3 }) }},
		{"vip no more managed", func() { r.editService(hashService, func(k *bpf.KernelService) { schedule(k).Flags ^= 4 }) }},
		{"name", func() { r.editService(mhService, func(k *bpf.KernelService) { k.Name[0] = 'X' }) }},
		{"other half of the cursor", func() {
			r.editService(webService, func(k *bpf.KernelService) { k.Cursor ^= 1 << bpf.KernelCursorLayoutCURSOR_HALF })
		}},
		{"weight no server has", func() { r.editService(turnService, func(k *bpf.KernelService) { k.Cursor |= 0x7fffffff }) }},
		{"schedule cleared", func() { r.editService(mhService, func(k *bpf.KernelService) { k.Schedule = [2]bpf.KernelSchedule{} }) }},
		{"schedule beyond the words", func() {
			r.editService(webService, func(k *bpf.KernelService) {
				for i := range k.Schedule {
					k.Schedule[i].List, k.Schedule[i].Servers = 0xfffffff0, 0xffffffff
				}
			})
		}},
		{"list names another server", func() { r.ok(r.plane.Words.Put(words(webService).List, r.server(hashService, 0).index)) }},
		{"list names one server twice", func() { r.ok(r.plane.Words.Put(words(hashService).List, r.server(hashService, 0).index)) }},
		{"weight in the list", func() { r.ok(r.plane.Words.Put(words(turnService).List+1, uint32(5))) }},
		{"table of sh", func() { r.ok(r.plane.Words.Put(words(hashService).Table+200, uint32(0))) }},
		{"table of mh", func() { r.ok(r.plane.Words.Put(words(mhService).Table+4092, uint32(0))) }},
		{"server cleared", func() { r.editServer(webService, 1, func(k *bpf.KernelServer) { *k = bpf.KernelServer{} }) }},
		{"server removed", func() {
			r.editServer(webService, 0, func(k *bpf.KernelServer) { k.Life = uint8(bpf.KernelLifecycleLIFE_SERVER_REMOVED) })
		}},
		{"server of another service", func() { r.editServer(hashService, 0, func(k *bpf.KernelServer) { k.Service++ }) }},
		{"server of another address", func() { r.editServer(webService, 1, func(k *bpf.KernelServer) { k.Address[0]++ }) }},
		{"checksum difference", func() { r.editServer(webService, 1, func(k *bpf.KernelServer) { k.DeltaL4++ }) }},
		{"server's next hop", func() { r.editServer(webService, 1, func(k *bpf.KernelServer) { k.Hop = 0 }) }},
		{"method", func() {
			r.editServer(webService, 1, func(k *bpf.KernelServer) { k.Method = uint8(bpf.KernelMethodMETHOD_LOCAL) })
		}},
		{"weight", func() { r.editServer(turnService, 1, func(k *bpf.KernelServer) { k.Weight = 9 }) }},
		{"offered weight", func() { r.editServer(mhService, 1, func(k *bpf.KernelServer) { k.OfferedWeight = 0 }) }},
		{"last weight", func() { r.editServer(mhService, 0, func(k *bpf.KernelServer) { k.LastWeight = 4 }) }},
		{"persistence's seconds", func() { r.editService(stickyService, func(k *bpf.KernelService) { k.Persistence = 7 }) }},
		{"persistence ended", func() { r.editService(stickyService, flip(bpf.KernelServiceFlagsSERVICE_PERSISTENT)) }},
		{"client network", func() { r.editService(stickyService, func(k *bpf.KernelService) { k.ClientPrefix = 8 }) }},
		{"client mask", func() { r.editService(stickyService, func(k *bpf.KernelService) { schedule(k).ClientMask[0] = 0 }) }},
		{"client mask of a service without persistence", func() { r.editService(turnService, func(k *bpf.KernelService) { schedule(k).ClientMask[3] = 1 }) }},
		{"timeouts of a service", func() { r.editService(stickyService, func(k *bpf.KernelService) { k.Seconds[0]-- }) }},
		{"timeouts of a service that has none", func() { r.editService(hashService, func(k *bpf.KernelService) { k.Seconds[2] = 5 }) }},
		{"set of timeouts", func() { r.editTimeouts(stickyService, bpf.KernelConnStateSTATE_ESTABLISHED) }},
		{"timeout of templates", func() { r.editTimeouts(stickyService, bpf.KernelConnStateSTATE_TEMPLATE) }},
		{"limits", func() { r.editLimits(turnService, func(k *bpf.KernelServiceLimits) { k.Connections-- }) }},
		{"limits cleared", func() { r.editLimits(turnService, func(k *bpf.KernelServiceLimits) { *k = bpf.KernelServiceLimits{} }) }},
		{"cost of a rate", func() { r.editLimits(turnService, func(k *bpf.KernelServiceLimits) { k.Cost++ }) }},
		{"burst of a source", func() { r.editLimits(turnService, func(k *bpf.KernelServiceLimits) { k.SourceBurst = 1 }) }},
		{"mask of sources", func() { r.editLimits(turnService, func(k *bpf.KernelServiceLimits) { k.SourceMask[0] = 1 }) }},
		{"limits not looked at", func() { r.editService(turnService, flip(bpf.KernelServiceFlagsSERVICE_LIMITED)) }},
		{"limits of a service that has none", func() { r.editService(webService, flip(bpf.KernelServiceFlagsSERVICE_LIMITED)) }},
		{"guard off", func() { r.editService(turnService, flip(bpf.KernelServiceFlagsSERVICE_GUARDED)) }},
		{"guard of a service that has none", func() { r.editService(webService, flip(bpf.KernelServiceFlagsSERVICE_GUARDED)) }},
		{"guard's mode", func() { r.editLimits(turnService, func(k *bpf.KernelServiceLimits) { k.Guard++ }) }},
		{"guard's mode unknown", func() { r.editLimits(turnService, func(k *bpf.KernelServiceLimits) { k.Guard = 9 }) }},
		{"guard's threshold", func() { r.editLimits(turnService, func(k *bpf.KernelServiceLimits) { k.GuardOff = 0 }) }},
		{"one-packet", func() { r.editService(dnsService, flip(bpf.KernelServiceFlagsSERVICE_ONE_PACKET)) }},
		{"sloppy TCP", func() { r.editService(webService, flip(bpf.KernelServiceFlagsSERVICE_SLOPPY_TCP)) }},
		{"expire-nodest-conn", func() { r.editService(stickyService, flip(bpf.KernelServiceFlagsSERVICE_EXPIRE_NODEST)) }},
		{"expire-quiescent-template", func() { r.editService(stickyService, flip(bpf.KernelServiceFlagsSERVICE_EXPIRE_QUIESCENT)) }},
		{"reuse never", func() { r.editService(turnService, flip(bpf.KernelServiceFlagsSERVICE_REUSE_NEVER)) }},
		{"reuse in FIN_WAIT", func() { r.editService(stickyService, flip(bpf.KernelServiceFlagsSERVICE_REUSE_FIN_WAIT)) }},
		{"both modes of reuse", func() { r.editService(stickyService, flip(bpf.KernelServiceFlagsSERVICE_REUSE_NEVER)) }},
		{"a flag nobody knows", func() { r.editService(mhService, flip(1<<15)) }},
		{"table of dh", func() { r.ok(r.plane.Words.Put(words(farService).Table+17, uint32(0))) }},
		{"server drains no more", func() {
			r.editServer(stickyService, 2, func(k *bpf.KernelServer) { k.Flags &^= uint8(bpf.KernelServerFlagsSERVER_DRAINING) })
		}},
		{"server drains", func() {
			r.editServer(turnService, 0, func(k *bpf.KernelServer) { k.Flags |= uint8(bpf.KernelServerFlagsSERVER_DRAINING) })
		}},
		{"server without its service's timeouts", func() {
			r.editServer(stickyService, 0, func(k *bpf.KernelServer) { k.Flags &^= uint8(bpf.KernelServerFlagsSERVER_OWN_TIMEOUTS) })
		}},
		{"server with timeouts of no service", func() {
			r.editServer(webService, 0, func(k *bpf.KernelServer) { k.Flags |= uint8(bpf.KernelServerFlagsSERVER_OWN_TIMEOUTS) })
		}},
		{"upper threshold", func() { r.editLoad(turnService, 1, func(k *bpf.KernelServerLoad) { k.Upper = 1 }) }},
		{"lower threshold", func() { r.editLoad(turnService, 1, func(k *bpf.KernelServerLoad) { k.Lower = 0 }) }},
		{"threshold of a server without", func() { r.editLoad(webService, 0, func(k *bpf.KernelServerLoad) { k.Upper = 3 }) }},
		{"filter of virtual addresses", func() {
			f := *r.model.filter.words
			clear(f.VirtualAddress[:])
			r.ok(r.plane.SetFilter(&f))
		}},
		{"filter of servers", func() {
			f := *r.model.filter.words
			clear(f.ServerAddress[:])
			r.ok(r.plane.SetFilter(&f))
		}},
		{"access word", func() { r.editService(webService, func(k *bpf.KernelService) { k.Access = 0 }) }},
		{"access of nobody", func() {
			r.editService(turnService, func(k *bpf.KernelService) { k.Access = bpf.AccessWord(9, true) })
		}},
		{"access of all in no prefix", func() {
			r.editService(webService, func(k *bpf.KernelService) { k.Access &= bpf.MaxAccessSet })
		}},
		{"prefix gone", func() {
			r.ok(r.plane.Access.Delete(bpf.AccessKey(r.service(webService).access.set(), netip.MustParsePrefix("198.51.100.0/24"))))
		}},
		{"prefix added", func() {
			r.ok(r.plane.Access.Put(bpf.AccessKey(r.service(webService).access.set(), netip.MustParsePrefix("198.51.7.0/24")), uint32(1)))
		}},
		{"prefix longer than an address", func() {
			key := bpf.AccessKey(r.service(webService).access.set(), netip.MustParsePrefix("198.51.7.7/32"))
			key.Bits += 8
			r.ok(r.plane.Access.Put(key, uint32(1)))
		}},
		{"verdict", func() {
			r.ok(r.plane.Access.Put(bpf.AccessKey(r.service(webService).access.set(), netip.MustParsePrefix("198.51.0.0/16")), uint32(1)))
		}},
		{"next hop", func() {
			var k bpf.KernelHop
			r.ok(r.plane.Hops.Lookup(r.server(webService, 1).hop, &k))
			k.DestinationMac = [6]uint8{}
			r.ok(r.plane.Hops.Put(r.server(webService, 1).hop, &k))
		}},
		{"timeout of a state", func() {
			r.ok(r.plane.ChangeSettings(func(s *bpf.KernelSettings) { s.Timeout[bpf.KernelConnStateSTATE_SYN_RECV]++ }))
		}},
		{"timeouts", func() {
			r.ok(r.plane.ChangeSettings(func(s *bpf.KernelSettings) { s.Seconds[2] = 7 }))
		}},
		{"address of a service", func() { r.removeAddress("192.0.2.2/32") }},
		{"address of an IPv6 service", func() { r.removeAddress("2001:db8::1/128") }},
	}) {
		t.Run(damage.name, func(t *testing.T) {
			r.t = t
			before := r.director.Drift()
			damage.do()
			if r.diff() == "" {
				t.Fatal("Found does not see it")
			}
			r.ok(r.director.Reconcile(t.Context()))
			drift := r.director.Drift()
			if len(drift.Pending) > 0 || drift.Failed > before.Failed || drift.Repaired == before.Repaired {
				t.Fatalf("drift %+v, before %+v", drift, before)
			}
			r.sameAsWanted()
			r.flows()
			again := r.director.Drift()
			r.ok(r.director.Reconcile(t.Context()))
			if after := r.director.Drift(); after.Repaired != again.Repaired {
				t.Errorf("repaired %d times more", after.Repaired-again.Repaired)
			}
		})
	}
}

// What is no part of the director's state is put right by the sweep.
func TestSweepRepairs(t *testing.T) {
	r := newRepairRig(t)
	for _, damage := range []struct {
		name string
		do   func()
		is   func() bool // whether it is right again
	}{
		{"program slots", func() {
			r.ok(r.plane.Slots.Delete(uint32(bpf.KernelSlotSLOT_MAIN)))
		}, func() bool {
			return r.plane.Slots.Lookup(uint32(bpf.KernelSlotSLOT_MAIN), new(uint32)) == nil
		}},
		{"port", func() {
			r.ok(r.plane.Ports.Delete(uint32(r.interfaces[0].index)))
		}, func() bool {
			return r.plane.Ports.Lookup(uint32(r.interfaces[0].index), new(uint32)) == nil
		}},
		{"settings", func() {
			r.ok(r.plane.ChangeSettings(func(s *bpf.KernelSettings) { s.Seed[3]++; s.Midstream = 1; s.AbiVersion = 99 }))
		}, func() bool {
			s, err := r.plane.Settings()
			r.ok(err)
			return s.Midstream == 0 && s.AbiVersion != 99
		}},
		{"packet options", func() {
			r.ok(r.plane.SetPacketOptions(&bpf.KernelPacketOptions{LocalFirst: 1}))
		}, func() bool {
			o, err := r.plane.PacketOptions()
			r.ok(err)
			return o.FragmentTicks == r.plane.Clock.Ticks(30*time.Second) && o.PathTicks == r.plane.Clock.Ticks(10*time.Minute) && o.LocalFirst != 1
		}},
		{"prefixes of no list", func() {
			r.ok(r.plane.Access.Put(bpf.AccessKey(4711, netip.MustParsePrefix("198.51.100.0/24")), uint32(2)))
			r.found()
		}, func() bool {
			entries, err := r.plane.AccessEntries()
			r.ok(err)
			return len(entries) == 2
		}},
	} {
		t.Run(damage.name, func(t *testing.T) {
			r.t = t
			if !damage.is() {
				t.Fatal("not right before")
			}
			damage.do()
			if damage.is() {
				t.Fatal("the damage does not show")
			}
			r.sweepNow()
			if !damage.is() {
				t.Fatal("not repaired")
			}
			r.sameAsWanted()
			r.flows()
		})
	}
}
