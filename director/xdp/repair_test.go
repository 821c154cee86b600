package xdp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// plain compares addresses by value.
var plain = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// repairRig is a rig whose services use all there is to spoil.
type repairRig struct {
	*rig
	store    *directortest.Store
	director *director.Director
	want     director.State
	clients  int
}

// The places of the services in want.
const (
	webService = iota // rr, nat and local, IPv4, with a list and an address of ours
	hashService
	turnService   // wrr, thresholds
	stickyService // persistence, timeouts of its own, a server that drains
	farService    // dh
	dnsService    // one-packet
	mhService     // IPv6
)

func newRepairRig(t *testing.T) *repairRig {
	t.Helper()
	r := &repairRig{rig: newRig(t, Options{}), store: new(directortest.Store)}
	service := func(listen string, name director.Scheduler, servers ...realserver.Server) director.Service {
		return director.Service{
			Key: director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort(listen)}, Name: string(name),
			Scheduler: name, VIP: director.VIPManaged, Servers: servers,
		}
	}
	web := service("192.0.2.1:80", director.RoundRobin, local(1, 1),
		natServer())
	web.Access = director.Access{
		Allow: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Deny: []netip.Prefix{netip.MustParsePrefix("198.51.0.0/16")},
	}
	hash := service("192.0.2.2:80", director.SourceHash, local(1, 1), local(2, 3))
	hash.Flags.Port = true
	limited := local(2, 3)
	limited.Upper, limited.Lower = 60000, 50000
	turn := service("192.0.2.3:80", director.WeightedRoundRobin, local(1, 1), limited, local(3, 0))
	turn.Rules.ConnReuse = director.ReuseNever
	sticky := service("192.0.2.4:80", director.RoundRobin, local(1, 1), local(2, 1), local(3, 1))
	sticky.Name = "sticky"
	sticky.Persistence = director.Persistence{Timeout: 5 * time.Minute, Prefix: 32}
	sticky.Timeouts.TCP = time.Hour
	sticky.Rules = director.Rules{ExpireNoDestConn: true, ExpireQuiescentTemplate: true, ConnReuse: director.ReuseFinWait}
	far := service("192.0.2.5:80", director.DestinationHash, local(1, 1), local(2, 1))
	dns := service("192.0.2.6:53", director.LocalityLC, natServer())
	dns.Key.Protocol, dns.OnePacket = conntrack.UDP, true
	mh := service("[2001:db8::1]:80", director.Maglev,
		realserver.Server{Address: netip.MustParseAddrPort("[fd00::1]:80"), Method: realserver.Local, Weight: 1},
		realserver.Server{Address: netip.MustParseAddrPort("[fd00::2]:80"), Method: realserver.Local, Weight: 2})
	r.director = director.New(r.Dataplane, r.store, director.Options{})
	state := director.State{Services: []director.Service{web, hash, turn, sticky, far, dns, mh}}
	if err := r.director.Start(t.Context(), state, director.Request{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.director.DrainServer(t.Context(), director.Request{}, sticky.Key, local(3, 1).Address, time.Time{}, false); err != nil {
		t.Fatal(err)
	}
	r.want = r.director.State()
	r.sameAsWanted()
	r.flows()
	return r
}

func (r *repairRig) found() director.State {
	r.t.Helper()
	found, err := r.Found(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

// diff compares what is wanted, but for orders that no data plane knows, with what
// is found.
func (r *repairRig) diff() string {
	r.t.Helper()
	want := r.want
	want.Drains = nil
	return cmp.Diff(want, r.found(), plain)
}

func (r *repairRig) sameAsWanted() {
	r.t.Helper()
	if diff := r.diff(); diff != "" {
		r.t.Fatalf("found (-want +got):\n%s", diff)
	}
}

// flows opens connections to all services: as many as each has servers.
func (r *repairRig) flows() {
	r.t.Helper()
	for i, s := range r.want.Services {
		if s.OnePacket || i == farService {
			continue // there are no connections, or only such to one server
		}
		seen := map[netip.AddrPort]bool{}
		for range 24 {
			r.clients++
			addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(r.clients)})
			if s.Key.Address.Addr().Is6() {
				addr = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 4: 1, 15: byte(r.clients)})
			}
			client := netip.AddrPortFrom(addr, uint16(2000+r.clients))
			server, ok := r.syn(client, s.Key.Address)
			if !ok {
				r.t.Fatalf("%s: no connection was made", s.Key)
			}
			seen[server] = true
			want := bpftest.Redirect
			if i := s.Server(server); i < 0 {
				r.t.Fatalf("%s: paired with %s", s.Key, server)
			} else if s.Servers[i].Method == realserver.Local {
				want = bpftest.Pass
			}
			if got := r.send(bpftest.Packet{From: client, To: s.Key.Address, Flags: "S"}); got != want {
				r.t.Fatalf("%s: a packet to %s: %v, want %v", s.Key, server, got, want)
			}
		}
		for _, server := range s.Servers {
			if seen[server.Address] != (server.Weight > 0 && !server.Draining) {
				r.t.Errorf("%s: %s of weight %d was chosen: %v", s.Key, server.Address, server.Weight, seen[server.Address])
			}
		}
	}
	if got := r.send(bpftest.Packet{From: netip.MustParseAddrPort("198.51.7.7:99"), To: r.want.Services[webService].Key.Address, Flags: "S"}); got != bpftest.Drop {
		r.t.Errorf("a client that is denied: %v", got)
	}
}

// model returns what the data plane calls the service.
func (r *repairRig) service(i int) *service { return r.model.byKey[r.want.Services[i].Key] }

// server returns the one added as number n.
func (r *repairRig) server(i, n int) *server {
	return r.service(i).members[r.want.Services[i].Servers[n].Address]
}

func (r *repairRig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *repairRig) editService(i int, edit func(*bpf.KernelService)) {
	r.t.Helper()
	var k bpf.KernelService
	r.ok(r.plane.Services.Lookup(r.service(i).index, &k))
	edit(&k)
	r.ok(r.plane.Services.Put(r.service(i).index, &k))
}

func (r *repairRig) editServer(i, n int, edit func(*bpf.KernelServer)) {
	r.t.Helper()
	var k bpf.KernelServer
	r.ok(r.plane.Servers.Lookup(r.server(i, n).index, &k))
	edit(&k)
	r.ok(r.plane.Servers.Put(r.server(i, n).index, &k))
}

func (r *repairRig) editLoad(i, n int, edit func(*bpf.KernelServerLoad)) {
	r.t.Helper()
	var k bpf.KernelServerLoad
	r.ok(r.plane.Loads.Lookup(r.server(i, n).index, &k))
	edit(&k)
	r.ok(r.plane.Loads.Put(r.server(i, n).index, &k))
}

// editTimeouts changes one of a service's set.
func (r *repairRig) editTimeouts(i int, state bpf.KernelConnState) {
	r.t.Helper()
	var set bpf.KernelTimeoutSet
	r.ok(r.plane.Timeouts.Lookup(r.service(i).index, &set))
	set.Ticks[state]++
	r.ok(r.plane.Timeouts.Put(r.service(i).index, &set))
}

// flip returns an edit that turns a flag of a service over.
func flip(flag bpf.KernelServiceFlags) func(*bpf.KernelService) {
	return func(k *bpf.KernelService) { k.Flags ^= uint16(flag) }
}

// Whatever somebody else does to the maps or to the host, the next
// reconciliation sees it and puts it right, and traffic flows as before.
func TestReconcileRepairs(t *testing.T) {
	r := newRepairRig(t)
	words := func(i int) *bpf.KernelSchedule { return &r.service(i).schedule }
	for _, damage := range []struct {
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
			r.editService(webService, func(k *bpf.KernelService) { k.Scheduler = uint8(bpf.KernelSchedulerSCHEDULER_MH) })
		}},
		{"scheduler unknown", func() { r.editService(webService, func(k *bpf.KernelService) { k.Scheduler = 77 }) }},
		{"flags", func() { r.editService(hashService, func(k *bpf.KernelService) { k.Flags ^= 3 }) }},
		{"vip no more managed", func() { r.editService(hashService, func(k *bpf.KernelService) { k.Flags ^= 4 }) }},
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
		{"client mask", func() { r.editService(stickyService, func(k *bpf.KernelService) { k.ClientMask[0] = 0 }) }},
		{"client mask of a service without persistence", func() { r.editService(turnService, func(k *bpf.KernelService) { k.ClientMask[3] = 1 }) }},
		{"timeouts of a service", func() { r.editService(stickyService, func(k *bpf.KernelService) { k.Seconds[0]-- }) }},
		{"timeouts of a service that has none", func() { r.editService(hashService, func(k *bpf.KernelService) { k.Seconds[2] = 5 }) }},
		{"set of timeouts", func() { r.editTimeouts(stickyService, bpf.KernelConnStateSTATE_ESTABLISHED) }},
		{"timeout of templates", func() { r.editTimeouts(stickyService, bpf.KernelConnStateSTATE_TEMPLATE) }},
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
	} {
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

// removeAddress is ip address del ADDRESS dev lo.
func (r *repairRig) removeAddress(prefix string) {
	r.t.Helper()
	lo, err := r.ns.Netlink().LinkByName("lo")
	r.ok(err)
	addr, err := netlink.ParseAddr(prefix)
	r.ok(err)
	r.ok(r.ns.Netlink().AddrDel(lo, addr))
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
