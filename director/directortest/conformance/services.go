package conformance

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

func tcp(vip netip.Addr) string { return "tcp://" + netip.AddrPortFrom(vip, port).String() }
func udp(vip netip.Addr) string { return "udp://" + netip.AddrPortFrom(vip, port).String() }

// samples have, together, every setting that each data plane has.
func (b *bench) samples() []director.Service {
	web := b.service(tcp(b.vip4), realserver.NAT)
	web.Name, web.Scheduler, web.Flags = "web", director.Maglev, director.SchedulerFlags{Port: true, Fallback: true}
	web.Servers[0].Weight, web.Servers[1].Upper, web.Servers[1].Lower = 65535, 100, 50
	dns := b.service(udp(b.vip4), realserver.DR)
	dns.Scheduler, dns.OnePacket = director.SourceHash, true
	ports := b.service("tcp://192.0.2.77:0", realserver.NAT)
	ports.Persistence = director.Persistence{Timeout: 5 * time.Minute, Prefix: 24}
	web6 := b.service(tcp(b.vip6), realserver.DR)
	web6.Persistence = director.Persistence{Timeout: time.Hour, Prefix: 64}
	web6.VIP = director.VIPExternal
	local := b.service("udp://"+netip.AddrPortFrom(b.vip6, 53).String(), realserver.Local)
	local.Servers = local.Servers[:1]
	local.Servers[0].Weight, local.Servers[0].Draining = 7, true
	return director.State{Services: []director.Service{web, dns, ports, web6, local}}.Normalize().Services
}

// What is written is found, and nothing is left to do; writing it again changes
// nothing, and what is removed is gone, however often.
func testServices(b *bench) {
	services := b.samples()
	for i := range services {
		services[i].Servers = slices.Clone(services[i].Servers)
	}
	for range 2 {
		for range 2 {
			b.apply(adding(services...)...)
			b.holds(services...)
		}
		found := b.found()
		b.same("left to do", []director.Operation(nil), director.Plan(director.State{Services: services, Timeouts: found.Timeouts}, found))
		for range 2 {
			b.apply(director.RemoveService{Key: services[0].Key})
			b.holds(services[1:]...)
		}
		for _, s := range services {
			b.apply(director.RemoveService{Key: s.Key})
		}
		b.holds()
	}
}

// Every setting can be changed, and changes no other.
func testEdits(b *bench) {
	services := b.samples()
	b.apply(adding(services...)...)
	at := slices.IndexFunc(services, func(s director.Service) bool { return s.Name == "web" })
	s := &services[at]
	for _, edit := range []func(){
		func() { s.Name = "" },
		func() { s.Scheduler = director.NeverQueue },
		func() { s.Flags = director.SchedulerFlags{} },
		func() { s.Flags = director.SchedulerFlags{Third: true} },
		func() { s.Scheduler, s.Flags = director.SourceHash, director.SchedulerFlags{Fallback: true} },
		func() { s.Persistence = director.Persistence{Timeout: time.Minute, Prefix: 8} },
		func() { s.Persistence = director.Persistence{Timeout: time.Minute, Prefix: 32} },
		func() { s.Persistence = director.Persistence{} },
		func() { s.VIP = director.VIPExternal },
		func() { s.VIP = director.VIPManaged },
	} {
		edit()
		for range 2 {
			b.apply(director.EditService{Service: *s})
			b.holds(services...)
		}
	}
	server := &s.Servers[1]
	for _, edit := range []func(){
		func() { server.Weight = 9 },
		func() { server.Weight = 0 },
		func() { server.Weight, server.Draining = 5, true },
		func() { server.Weight = 6 },
		func() { server.Draining = false },
		func() { server.Upper, server.Lower = 0, 0 },
		func() { server.Upper, server.Lower = 5000, 4000 },
	} {
		edit()
		for range 2 {
			b.apply(director.EditServer{Key: s.Key, Server: *server})
			b.holds(services...)
		}
	}
	gone := *server
	s.Servers = s.Servers[:1]
	for range 2 {
		b.apply(director.RemoveServer{Key: s.Key, Address: gone.Address})
		b.holds(services...)
	}
	b.apply(director.RemoveServer{Key: key("tcp://192.0.2.99:1"), Address: gone.Address}) // of no service
}

// Servers are found in the order in which they were added. An edit leaves a server
// where it is; one that is added again is the newest.
func testOrder(b *bench) {
	s := b.service(tcp(b.vip4), realserver.NAT)
	s.Servers = nil
	for _, last := range []byte{40, 10, 30, 20} {
		s.Servers = append(s.Servers, realserver.Server{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, 0, last}), 80), Method: realserver.NAT, Weight: uint32(last),
		})
	}
	b.apply(adding(s)...)
	b.holds(s)
	s.Servers[1].Weight = 1
	b.apply(director.EditServer{Key: s.Key, Server: s.Servers[1]})
	b.holds(s)
	first := s.Servers[0]
	s.Servers = append(s.Servers[1:], first)
	b.apply(director.RemoveServer{Key: s.Key, Address: first.Address}, director.AddServer{Key: s.Key, Server: first})
	b.holds(s)
	stats := b.stats(s.Key)
	var order []realserver.Server
	for _, server := range stats.Servers {
		order = append(order, server.Server)
	}
	b.same("order of the counters", s.Servers, order)
}

// A daemon that starts anew finds the services as far as the kernel holds them; with
// the plan from there it has all, its draining servers included.
func testRestart(b *bench) {
	services := b.samples()
	b.apply(adding(services...)...)
	for range 2 {
		b.reopen()
		found := b.found()
		var keys, wanted []director.ServiceKey
		for _, s := range found.Services {
			keys = append(keys, s.Key)
		}
		for _, s := range services {
			wanted = append(wanted, s.Key)
		}
		b.same("services after the restart", wanted, keys)
		ops := director.Plan(director.State{Services: services, Timeouts: found.Timeouts}, found)
		for _, op := range ops {
			switch op.(type) {
			case director.EditService, director.EditServer:
			default:
				b.Errorf("after the restart: %s", op)
			}
		}
		b.apply(ops...)
		b.holds(services...)
	}
}

// Managed addresses are on the host while a service wants them there, and are put
// back where somebody takes them away.
func testAddresses(b *bench) {
	has := func(want bool) {
		b.Helper()
		for _, vip := range []netip.Addr{b.vip4, b.vip6} {
			if got := b.onHost(vip); got != want {
				b.Errorf("%s on the host: %t, want %t", vip, got, want)
			}
		}
	}
	services := []director.Service{
		b.service(tcp(b.vip4), realserver.NAT), b.service(udp(b.vip4), realserver.NAT),
		b.service(tcp(b.vip6), realserver.NAT), b.service(udp(b.vip6), realserver.NAT),
	}
	has(false)
	b.apply(adding(services...)...)
	has(true)
	b.apply(director.RemoveService{Key: services[0].Key}, director.RemoveService{Key: services[2].Key})
	has(true)
	left := []director.Service{services[1], services[3]}
	b.holds(left...)

	b.takeOff(b.vip4)
	b.takeOff(b.vip6)
	has(false)
	for _, s := range b.found().Services {
		if s.VIP != director.VIPExternal {
			b.Errorf("%s is found with a managed address that is not there", s.Key)
		}
	}
	found := b.found()
	b.apply(director.Plan(director.State{Services: left, Timeouts: found.Timeouts}, found)...)
	has(true)
	b.holds(left...)

	for i := range left {
		left[i].VIP = director.VIPExternal
		b.apply(director.EditService{Service: left[i]})
	}
	has(false)
	b.holds(left...)
}
