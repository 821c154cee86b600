package bpf_test

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// wideScene is a scene whose service has the addresses around the scene's virtual one and the
// ports from 8000 to 8999; the client asks for one in the middle.
func wideScene(t *testing.T, s *scene, serverPort uint16) {
	t.Helper()
	s.RemoveService(s.service)
	hop := s.service.Servers[0].Hop
	s.virtual = netip.AddrPortFrom(s.at(77), 8080)
	s.secondVirtual = netip.AddrPortFrom(s.at(78), 8080)
	s.server = netip.AddrPortFrom(s.server.Addr(), cmp.Or(serverPort, s.virtual.Port()))
	s.secondServer = netip.AddrPortFrom(s.secondServer.Addr(), s.server.Port())
	s.service = s.Apply(&bpftest.Service{
		Listen: netip.AddrPortFrom(s.at(0), 8000), Prefix: s.bits(24), LastPort: 8999, Protocol: s.protocol,
		Servers: []*bpftest.Server{{Address: netip.AddrPortFrom(s.server.Addr(), serverPort), Weight: 1, Hop: hop}},
	})
}

// eachWide runs a test of NAT by a wide service for every family and protocol, with a
// server that has a port and with one that has the client's.
func eachWide(t *testing.T, f *bpftest.Fixture, test func(*testing.T, *scene)) {
	t.Helper()
	eachScene(t, f, func(t *testing.T, s *scene) {
		for name, port := range map[string]uint16{"its own port": 4711, "the client's port": 0} {
			t.Run(name, func(t *testing.T) {
				s := newScene(t, f, s.family, s.protocol, nat)
				wideScene(t, s, port)
				test(t, s)
			})
		}
	})
}

// wideBoth is the table's entries of the scene's connection.
func (s *scene) wideBoth(state uint8, proven bool) []bpf.Entry {
	entries := s.both(state, proven)
	entries[1].Source = s.server
	for i := range entries {
		entries[i].Wide = true
	}
	return entries
}

// Packets both ways, in full: the replies come from where the client asked.
func TestWideNAT(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachWide(t, f, func(t *testing.T, s *scene) {
		request, reply := s.request(), s.reply()
		run(t, f, request.Bytes(), sent(forwarded(request, s.server)), nil)
		diffEntries(t, f, s.wideBoth(firstState(s.protocol), false)...)
		run(t, f, reply.Bytes(), sent(returned(reply, s.virtual)), nil)
		if s.protocol == bpftest.TCP {
			request.Flags, request.Ack, reply.Flags = "A", reply.Seq+1, "A"
		}
		for i := range 6 {
			request.Payload, reply.Payload = pattern(i), pattern(2*i+1)
			run(t, f, request.Bytes(), sent(forwarded(request, s.server)), nil)
			run(t, f, reply.Bytes(), sent(returned(reply, s.virtual)), nil)
		}
		state := stateUDP
		if s.protocol == bpftest.TCP {
			state = established
		}
		want := s.wideBoth(state, true)
		want[0].ByReply, want[1].ByReply = state == stateUDP, state == stateUDP
		diffEntries(t, f, want...)
		diffLoads(t, f, s.service.Servers...)
		if traffic := s.Traffic(s.service.Servers[0]); traffic.Connections != 1 || traffic.InPackets != 7 || traffic.OutPackets != 7 {
			t.Errorf("counted %+v", traffic)
		}
		if s.protocol == bpftest.UDP && !s.isV6() {
			reply.NoChecksum, request.NoChecksum = true, true
			run(t, f, request.Bytes(), sent(forwarded(request, s.server)), nil)
			run(t, f, reply.Bytes(), sent(returned(reply, s.virtual)), nil)
		}
	})
}

// Many connections of one client, to all addresses and ports.
func TestWideNATKeepsConnectionsApart(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	random := rand.New(rand.NewPCG(3, 4))
	eachWide(t, f, func(t *testing.T, s *scene) {
		type pair struct{ request, reply bpftest.Packet }
		var pairs []pair
		for i := range uint16(200) {
			p := pair{s.request(), s.reply()}
			p.request.From = netip.AddrPortFrom(s.client.Addr(), 1000+i)
			p.request.To = netip.AddrPortFrom(s.at(byte(random.IntN(256))), 8000+uint16(random.IntN(1000)))
			p.reply.To = p.request.From
			if s.service.Servers[0].Address.Port() == 0 {
				p.reply.From = netip.AddrPortFrom(s.server.Addr(), p.request.To.Port())
			}
			run(t, f, p.request.Bytes(), sent(forwarded(p.request, p.reply.From)), nil)
			pairs = append(pairs, p)
		}
		for range 2 {
			random.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
			for _, p := range pairs {
				run(t, f, p.reply.Bytes(), sent(returned(p.reply, p.request.To)), nil)
				if s.protocol == bpftest.TCP {
					ack := bpftest.Handshake(p.request, p.reply)[2]
					run(t, f, ack.Bytes(), sent(forwarded(ack, p.reply.From)), nil)
				}
			}
		}
	})
}

func TestWideAnswers(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	from := func(s *scene) { // whose errors the scene expects
		listen := *s.service
		listen.Listen = s.virtual
		s.service = &listen
	}
	t.Run("time to live", func(t *testing.T) {
		eachWide(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			from(s)
			p, back := s.request(), s.reply()
			p.TTL, back.TTL = 1, 1
			run(t, f, p.Bytes(), s.icmp(timeExceeded, p), one("ttl-exceeded"))
			run(t, f, back.Bytes(), s.icmp(timeExceeded, back), one("ttl-exceeded"))
		})
	})
	t.Run("too big", func(t *testing.T) {
		eachWide(t, f, func(t *testing.T, s *scene) {
			link := serverLink(s.Outside)
			link.MTU = 1280
			s.SetHop(s.service.Servers[0].Hop, link)
			s.establish(t)
			from(s)
			p := s.request()
			p.Flags, p.DF, p.Payload = "A", true, pattern(1400)
			about := tooBig
			about[0].Parameter, about[1].Parameter = 1280, 1280
			run(t, f, p.Bytes(), s.icmp(about, p), one("frag-needed"))
		})
	})
	t.Run("direct routing", func(t *testing.T) {
		eachScene(t, f, func(t *testing.T, s *scene) {
			wideScene(t, s, 0)
			s.service.Servers[0].Method = dr
			f.Apply(s.service)
			from(s)
			p := s.request()
			run(t, f, p.Bytes(), sent(routed(p)), nil)
			p.TTL = 1
			run(t, f, p.Bytes(), s.icmp(timeExceeded, p), one("ttl-exceeded"))
		})
	})
	t.Run("no server", func(t *testing.T) {
		eachWide(t, f, func(t *testing.T, s *scene) {
			s.service.Servers[0].Weight = 0
			f.Apply(s.service)
			from(s)
			run(t, f, s.request().Bytes(), s.icmp(portUnreachable, s.request()), one("no-server"))
		})
	})
}

// The next hop of the replies is the forward entry's, and follows it.
func TestWideClientHop(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachWide(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		moved := s.request()
		moved.Source, moved.Flags = bpftest.OtherRouterMAC, "A"
		run(t, f, moved.Bytes(), sent(forwarded(moved, s.server)), one("hop-changed"))
		want := returned(s.reply(), s.virtual)
		want.Destination = bpftest.OtherRouterMAC
		run(t, f, s.reply().Bytes(), sent(want), nil)
		// The sweep counts one use, of the hop: the reply's place is none.
		if err := bpf.ClearArray[uint32](f.Plane.HopUses); err != nil {
			t.Fatal(err)
		}
		f.Sweep()
		uses, err := bpf.ReadArray[uint32](f.Plane.HopUses)
		if err != nil {
			t.Fatal(err)
		}
		used := map[uint32]uint32{}
		for i, n := range uses {
			if n != 0 {
				used[uint32(i)] = n
			}
		}
		hop := f.Entries()[0].Hop % uint32(bpf.KernelHopLayoutHOPS)
		if len(used) != 1 || used[hop] != 1 {
			t.Errorf("uses of hops: %v, want one of %d", used, hop)
		}
	})
}

// Every way a connection ends takes both its keys.
func TestWideConnectionEnds(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	ended := func(t *testing.T, s *scene) {
		t.Helper()
		diffEntries(t, f)
		diffLoads(t, f, s.service.Servers...)
	}
	t.Run("swept", func(t *testing.T) {
		eachWide(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
			if removed := f.Sweep(); removed != 1 {
				t.Errorf("removed %d connections", removed)
			}
			ended(t, s)
		})
	})
	t.Run("killed", func(t *testing.T) {
		eachWide(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			args := bpf.KernelRemoveArgs{
				Client: bpf.Address(s.client.Addr()), ClientPort: bpf.Port(s.client.Port()),
				VirtualAddress: bpf.Address(s.virtual.Addr()), VirtualPort: bpf.Port(s.virtual.Port()), Protocol: s.protocol,
			}
			if err := f.Plane.RemoveConnection(s.isV6(), &args); err != nil {
				t.Fatal(err)
			}
			ended(t, s)
			run(t, f, s.reply().Bytes(), passed(s.reply().Bytes()), one("no-service"))
		})
	})
	t.Run("expired, met by a reply", func(t *testing.T) {
		eachWide(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
			run(t, f, s.reply().Bytes(), passed(s.reply().Bytes()), one("expired-hit", "no-service"))
			ended(t, s)
		})
	})
	t.Run("the service is removed", func(t *testing.T) {
		eachWide(t, f, func(t *testing.T, s *scene) {
			s.establish(t)
			f.RemoveService(s.service)
			run(t, f, s.reply().Bytes(), dropped, one("service-removed"))
			p := s.request()
			p.Flags = "A"
			run(t, f, p.Bytes(), dropped, one("service-removed"))
			other := s.request()
			other.From = s.other
			run(t, f, other.Bytes(), passed(other.Bytes()), one("no-service"))
			f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
			f.Sweep()
			ended(t, s)
		})
	})
}

// A reply entry whose forward entry is gone, or is another's by now, is nobody's: its
// packets are not forwarded and the sweep removes it as an orphan.
func TestWideOrphan(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	const reply, generation = uint64(1) << bpf.KernelRecipeLayoutRECIPE_REPLY, uint64(1) << bpf.KernelRecipeLayoutRECIPE_GENERATION
	for name, spoil := range map[string]func(recipe uint64) uint64{
		"another generation": func(recipe uint64) uint64 { return recipe ^ generation },
		"of another server":  func(recipe uint64) uint64 { return recipe ^ 1<<bpf.KernelRecipeLayoutRECIPE_SERVER },
		"not wide":           func(recipe uint64) uint64 { return recipe ^ 1<<bpf.KernelRecipeLayoutRECIPE_WIDE },
		"a reply":            func(recipe uint64) uint64 { return recipe ^ reply },
	} {
		t.Run(name, func(t *testing.T) {
			eachWide(t, f, func(t *testing.T, s *scene) {
				s.establish(t)
				f.EditRecipes(func(recipe uint64) uint64 {
					if recipe&reply != 0 {
						return recipe
					}
					return spoil(recipe)
				})
				run(t, f, s.reply().Bytes(), passed(s.reply().Bytes()), one("no-service"))
				f.EditRecipes(func(recipe uint64) uint64 { // what was the forward entry is away
					if recipe&reply != 0 && name != "a reply" {
						return recipe
					}
					return recipe | 1<<bpf.KernelRecipeLayoutRECIPE_BUSY
				})
				if name == "a reply" {
					return // both look like replies: there is no telling which one is left
				}
				f.AgeBy(4 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
				args := bpf.KernelSweepArgs{Groups: f.Plane.Connections4.MaxEntries()}
				if err := f.Plane.Sweep(s.isV6(), &args); err != nil {
					t.Fatal(err)
				}
				if args.Orphans != 1 {
					t.Errorf("the sweep removed %d orphans, want 1", args.Orphans)
				}
			})
		})
	}
}

// A place that has another connection of the same server by now is not followed.
func TestWidePlaceOfAnother(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	eachWide(t, f, func(t *testing.T, s *scene) {
		first, second := s.request(), s.request()
		second.From, second.To = s.other, s.secondVirtual
		for _, p := range []bpftest.Packet{first, second} {
			run(t, f, p.Bytes(), sent(forwarded(p, s.server)), nil)
		}
		if s.isV6() {
			swapPlaces(t, f.Plane.Connections6, func(g *bpf.KernelGroup6, i int) (uint64, *uint32) { return g.Slots[i].Recipe, &g.Slots[i].Hop })
		} else {
			swapPlaces(t, f.Plane.Connections4, func(g *bpf.KernelGroup4, i int) (uint64, *uint32) { return g.Slots[i].Recipe, &g.Slots[i].Hop })
		}
		for _, p := range []bpftest.Packet{first, second} {
			back := s.reply()
			back.To = p.From
			run(t, f, back.Bytes(), passed(back.Bytes()), one("no-service"))
		}
	})
}

// swapPlaces gives each of two reply entries what the other has in place of a hop.
func swapPlaces[G any](t *testing.T, table *ebpf.Map, at func(*G, int) (recipe uint64, hop *uint32)) {
	t.Helper()
	groups := make([]G, table.MaxEntries())
	var replies []*uint32
	for i := range groups {
		if err := table.Lookup(uint32(i), &groups[i]); err != nil {
			t.Fatal(err)
		}
		for slot := range int(bpf.KernelTableShapeSLOTS) {
			if recipe, hop := at(&groups[i], slot); recipe>>bpf.KernelRecipeLayoutRECIPE_REPLY&1 != 0 {
				replies = append(replies, hop)
			}
		}
	}
	if len(replies) != 2 || *replies[0] == *replies[1] {
		t.Fatalf("%d replies, or of one place", len(replies))
	}
	*replies[0], *replies[1] = *replies[1], *replies[0]
	for i := range groups {
		if err := table.Put(uint32(i), &groups[i]); err != nil {
			t.Fatal(err)
		}
	}
}

// One client port at two virtual addresses of one service: the server could not tell
// them apart, so that the second connection gets another server, or none, unless the first is over.
func TestWideReplyCollision(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachWide(t, f, func(t *testing.T, s *scene) {
		run(t, f, s.request().Bytes(), sent(forwarded(s.request(), s.server)), nil)
		p := s.request()
		p.To = s.secondVirtual
		run(t, f, p.Bytes(), dropped, one("reply-collision"))
		diffEntries(t, f, s.wideBoth(firstState(s.protocol), false)...)
		f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
		run(t, f, p.Bytes(), sent(forwarded(p, s.server)), nil)
		back := s.reply()
		run(t, f, back.Bytes(), sent(returned(back, s.secondVirtual)), nil)

		second := &bpftest.Server{
			Address: netip.AddrPortFrom(s.secondServer.Addr(), s.service.Servers[0].Address.Port()),
			Weight:  1, Hop: s.service.Servers[0].Hop,
		}
		s.service.Servers = append(s.service.Servers, second)
		f.Apply(s.service)
		f.Run(s.request().Bytes())
		for _, e := range f.Entries() {
			if !e.Reply && e.Destination == s.virtual && e.Server != second.Index {
				t.Errorf("the connection got server %d, whose reply key is taken", e.Server)
			}
		}
		// The other server's method may be another: nothing of the connection is wide then.
		f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
		f.Sweep()
		second.Method = dr
		f.Apply(s.service)
		for avoided := uint64(0); avoided == 0; avoided = f.Events()["collision-avoided"] {
			f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
			f.Sweep()
			// One of the two that follow one another is the nat server's, or the third is.
			for _, to := range []netip.AddrPort{s.virtual, s.secondVirtual, netip.AddrPortFrom(s.at(79), 8080)} {
				p.To = to
				f.Run(p.Bytes())
			}
			for _, e := range f.Entries() {
				if isDR := e.Method == uint8(dr); e.Wide == isDR {
					t.Errorf("%+v: wide %v", e, e.Wide)
				}
			}
		}
		diffLoads(t, f, s.service.Servers...)
	})
}

// A client's template holds for all addresses and ports of the service; a server
// without a port gets each connection at the one that was asked for.
func TestWidePersistence(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachScene(t, f, func(t *testing.T, s *scene) {
		wideScene(t, s, 0)
		s.RemoveService(s.service)
		hop := s.service.Servers[0].Hop
		service := &bpftest.Service{
			Listen: netip.AddrPortFrom(s.at(0), 0), Prefix: s.bits(24), Protocol: s.protocol,
			Flags: bpf.KernelServiceFlagsSERVICE_PERSISTENT, ClientPrefix: s.client.Addr().BitLen(),
			Timeouts: map[bpf.KernelConnState]time.Duration{bpf.KernelConnStateSTATE_TEMPLATE: time.Hour},
			Servers: []*bpftest.Server{
				{Address: netip.AddrPortFrom(s.server.Addr(), 0), Weight: 1, Hop: hop},
				{Address: netip.AddrPortFrom(s.secondServer.Addr(), 0), Weight: 1, Hop: hop},
			},
		}
		f.Apply(service)
		chosen := map[netip.Addr]bool{}
		for n, client := range []netip.Addr{s.client.Addr(), s.other.Addr()} {
			server := service.Servers[n].Address.Addr()
			for i := range uint16(6) {
				p, back := s.request(), s.reply()
				p.From = netip.AddrPortFrom(client, 3000+i)
				p.To = netip.AddrPortFrom(s.at(byte(10*i)), 1+1000*i)
				run(t, f, p.Bytes(), sent(forwarded(p, netip.AddrPortFrom(server, p.To.Port()))), nil)
				back.From, back.To = netip.AddrPortFrom(server, p.To.Port()), p.From
				run(t, f, back.Bytes(), sent(returned(back, p.To)), nil)
			}
			chosen[server] = true
		}
		if len(chosen) != 2 {
			t.Errorf("chosen: %v", chosen)
		}
		f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
		f.Sweep()
		for _, e := range f.Entries() {
			if !e.Template {
				t.Errorf("left: %+v", e)
			}
		}
		diffLoads(t, f, service.Servers...)
	})
}

// One-packet scheduling rewrites by the packet's own address and port, too.
func TestWideOnePacket(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, nat)
			wideScene(t, s, 0)
			s.service.Flags |= bpf.KernelServiceFlagsSERVICE_ONE_PACKET
			f.Apply(s.service)
			for port := uint16(8000); port < 9000; port += 111 {
				p := s.request()
				p.To = netip.AddrPortFrom(s.at(byte(port)), port)
				run(t, f, p.Bytes(), sent(forwarded(p, netip.AddrPortFrom(s.server.Addr(), port))), nil)
			}
			diffEntries(t, f)
		})
	}
}
