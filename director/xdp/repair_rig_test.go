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
	turnService   // wrr, thresholds, limits and a guard
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
	turn.Limits = director.Limits{
		Rate: director.MaxRate, Connections: 1 << 20,
		Source: director.SourceLimits{Prefix: 24, Rate: director.MaxRate, Connections: 1 << 20},
	}
	turn.Guard = director.SourceGuard{Mode: director.GuardAuto, On: director.MaxRate, Off: 7}
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
	if _, err := r.director.DrainServer(t.Context(), director.Request{}, director.Drain{Service: sticky.Key, Server: local(3, 1).Address}); err != nil {
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

// editLimits changes what the limits map holds of the service.
func (r *repairRig) editLimits(i int, edit func(*bpf.KernelServiceLimits)) {
	r.t.Helper()
	var k bpf.KernelServiceLimits
	r.ok(r.plane.KernelMaps.Limits.Lookup(r.service(i).index, &k))
	edit(&k)
	r.ok(r.plane.KernelMaps.Limits.Put(r.service(i).index, &k))
}

// flip returns an edit that turns a flag of a service over.
func flip(flag bpf.KernelServiceFlags) func(*bpf.KernelService) {
	return func(k *bpf.KernelService) { schedule(k).Flags ^= uint16(flag) }
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
