package bpf_test

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

const denyRest = bpf.KernelAccessVerdictACCESS_DENY

// around returns the prefix of that length around the client.
func around(client netip.Addr, bits int) []netip.Prefix {
	p, err := client.Prefix(bits)
	if err != nil {
		panic(err)
	}
	return []netip.Prefix{p}
}

// A service's list decides about the first packet of a connection: the longest
// prefix, and where there is none what holds for the rest.
func TestAccess(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	// Whatever service has these clients, its list is not another's.
	everybody := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	set := uint32(1)
	f.PutAccess(set, bpftest.Access{Deny: everybody[:1]})
	f.PutAccess(set+1, bpftest.Access{Deny: everybody[1:]})
	for _, a := range families {
		host, whole := a.client.Addr().BitLen(), everybody[:1]
		if a.isV6() {
			whole = everybody[1:]
		}
		client, other := a.client.Addr(), a.other.Addr()
		for _, tt := range []struct {
			name   string
			list   bpftest.Access
			denied bool
		}{
			{"nothing listed", bpftest.Access{}, false},
			{"nothing listed, the rest denied", bpftest.Access{Rest: denyRest}, true},
			{"allowed", bpftest.Access{Allow: around(client, host), Rest: denyRest}, false},
			{"another allowed", bpftest.Access{Allow: around(other, host), Rest: denyRest}, true},
			{"denied", bpftest.Access{Deny: around(client, host)}, true},
			{"another denied", bpftest.Access{Deny: around(other, host)}, false},
			{"denied by its network", bpftest.Access{Deny: around(client, host/2)}, true},
			{"the longest prefix allows", bpftest.Access{
				Deny: append(around(client, host/2), whole...), Allow: around(client, host-1),
			}, false},
			{"the longest prefix denies", bpftest.Access{
				Deny: around(client, host-1), Allow: append(around(client, host-9), whole...),
			}, true},
			{"the whole family denied", bpftest.Access{Deny: whole}, true},
			{"the whole family allowed", bpftest.Access{Allow: whole, Rest: denyRest}, false},
		} {
			for _, protocol := range protocols {
				t.Run(a.name+"/"+tt.name+"/"+protocol.name, func(t *testing.T) {
					s := newScene(t, f, a, protocol.number, nat)
					set += 2
					s.service.Access = f.PutAccess(set, tt.list)
					f.Apply(s.service)
					p := s.request()
					if tt.denied {
						run(t, f, p.Bytes(), dropped, one("access-denied"))
						diffEntries(t, f)
						return
					}
					run(t, f, p.Bytes(), sent(forwarded(p, s.server)), nil)
				})
			}
		}
	}
}

// A list is asked once per connection: those that are there go on, and their
// clients' next ones are refused, mid-stream segments included.
func TestAccessLeavesConnectionsAlone(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Midstream: bpf.KernelMidstreamMIDSTREAM_RESET})
	set := uint32(0)
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		set++
		s.service.Access = f.PutAccess(set, bpftest.Access{Deny: around(s.client.Addr(), s.client.Addr().BitLen()-8)})
		f.Apply(s.service)
		p, reply := s.request(), s.reply()
		if s.protocol == bpftest.TCP {
			p.Flags, reply.Flags = "A", "A"
		}
		run(t, f, p.Bytes(), sent(forwarded(p, s.server)), nil)
		run(t, f, reply.Bytes(), sent(returned(reply, s.virtual)), nil)
		// One of the same network, with what would make a connection and what
		// would be reset.
		p.From = s.other
		run(t, f, p.Bytes(), dropped, one("access-denied"))
		if s.protocol == bpftest.TCP {
			p.Flags = "S"
			run(t, f, p.Bytes(), dropped, one("access-denied"))
		}
		// An expired connection is none.
		f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
		if s.protocol == bpftest.TCP {
			p = s.request()
		} else {
			p.From = s.client
		}
		run(t, f, p.Bytes(), dropped, one("expired-hit", "access-denied"))
		// Nor is the list any other service's.
		other := f.Apply(&bpftest.Service{Listen: s.secondVirtual, Protocol: s.protocol, Servers: []*bpftest.Server{
			{Address: s.secondServer, Weight: 1, Hop: s.service.Servers[0].Hop},
		}})
		p.To = other.Listen
		run(t, f, p.Bytes(), sent(forwarded(p, s.secondServer)), nil)
	})
}

// While a list is replaced again and again, as the data plane does it, no packet
// is judged by a part of one: each of the lists lets one client in and the other
// not, by other prefixes.
func TestAccessIsReplacedAsAWhole(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 1 << 16})
	a := families[0]
	hop := f.AddHop(bpftest.Link{Interface: loopback, Source: bpftest.DirectorInside, Destination: bpftest.ServerMAC})
	service := &bpftest.Service{Listen: a.virtual, Protocol: bpftest.UDP, Servers: []*bpftest.Server{
		{Address: netip.AddrPortFrom(a.server.Addr(), a.virtual.Port()), Method: dr, Weight: 1, Hop: hop},
	}}
	good, bad := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.9")
	var lists []bpftest.Access
	for bits := 8; bits <= 32; bits += 3 {
		lists = append(lists,
			bpftest.Access{Allow: around(good, bits), Rest: denyRest},
			bpftest.Access{Deny: around(bad, bits)})
	}
	service.Access = f.PutAccess(1, lists[0])
	f.Apply(service)
	word := func(access uint32) {
		var k bpf.KernelService
		if err := f.Plane.Services.Lookup(service.Index, &k); err != nil {
			t.Error(err)
		}
		if err := f.Plane.Services.Lookup(service.Index, &k); err != nil {
			t.Error(err)
		}
		if err := f.Plane.Switch(&bpf.KernelSwitchArgs{
			Key: k.Key, Service: service.Index, Schedule: k.Schedule[k.Cursor>>bpf.KernelCursorLayoutCURSOR_HALF&1],
			Life: k.Life, Access: access,
		}); err != nil {
			t.Error(err)
		}
	}
	f.Events()
	const packets = 60_000
	var wait sync.WaitGroup
	var faults [2]string
	done := make(chan struct{})
	wait.Go(func() {
		defer close(done)
		for n := range packets {
			client := bad
			if n%2 == 0 {
				client = good
			}
			p := bpftest.Packet{
				Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside,
				From: netip.AddrPortFrom(client, uint16(1024+n%60000)), To: a.virtual, Protocol: bpftest.UDP, ID: 1,
			}
			got, err := bpftest.Run(f.Plane.ShuntRoot, loopback, p.Bytes())
			switch {
			case err != nil:
				faults[n%2] = err.Error()
			case got.Action == bpftest.Drop != (client == bad):
				faults[n%2] = client.String() + " was judged wrongly: " + got.Action.String()
			}
		}
	})
	set, switches := uint32(1), 0
	for running := true; running; switches++ {
		select {
		case <-done:
			running = false
		default:
		}
		old := lists[switches%len(lists)]
		next := lists[(switches+1)%len(lists)]
		word(f.PutAccess(set+1, next))
		f.RemoveAccess(set, old)
		set++
	}
	wait.Wait()
	for _, fault := range faults {
		if fault != "" {
			t.Error(fault)
		}
	}
	events := f.Events()
	t.Log(switches, "switches,", events)
	if events["access-denied"] != packets/2 {
		t.Errorf("%d packets were denied, want %d", events["access-denied"], packets/2)
	}
	if switches < 100 {
		t.Errorf("%d switches: there was no race", switches)
	}
}
