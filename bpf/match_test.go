package bpf_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// at is an address of the scene's prefix, or one that differs from it in the octet
// before.
func (s *scene) at(octets ...byte) netip.Addr {
	b := s.virtual.Addr().AsSlice()
	copy(b[len(b)-len(octets):], octets)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// bits turns the length of an IPv4 prefix into one that leaves as many addresses.
func (s *scene) bits(v4 int) int { return v4 + s.virtual.Addr().BitLen() - 32 }

// add gives the scene a further service, with one server that has the octet last in
// its address.
func (s *scene) add(service bpftest.Service, last byte, method bpf.KernelMethod, port uint16) *bpftest.Service {
	b := s.server.Addr().AsSlice()
	b[len(b)-1] = last
	address, _ := netip.AddrFromSlice(b)
	service.Protocol = s.protocol
	service.Servers = []*bpftest.Server{{
		Address: netip.AddrPortFrom(address, port), Method: method, Weight: 1, Hop: s.service.Servers[0].Hop,
	}}
	return s.Apply(&service)
}

// serverOf is the last octet of the server that a client's first packet goes to; 0
// if it is passed. Each call is another client's.
func (s *scene) serverOf(t *testing.T, to netip.AddrPort) byte {
	t.Helper()
	p := s.request()
	s.client = netip.AddrPortFrom(s.client.Addr(), s.client.Port()+1)
	p.To = to
	got := s.Run(p.Bytes())
	switch got.Action {
	case bpftest.Pass:
		return 0
	case bpftest.TX:
	default:
		t.Fatalf("to %s: %v %v", to, got.Action, s.Events())
	}
	for _, e := range s.Entries() {
		if !e.Reply && e.Source == p.From && e.Destination == to {
			octets := s.Server(e.Server).Address.Addr().AsSlice()
			return octets[len(octets)-1]
		}
	}
	t.Fatalf("to %s: forwarded, and no connection was made", to)
	return 0
}

// The longest prefix has a packet, then the narrowest range of ports; one address
// with one port comes before all. Services added and removed change that at once.
func TestMatchMostSpecific(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, method := range []bpf.KernelMethod{nat, dr} {
		t.Run(fmt.Sprint("method ", method), func(t *testing.T) {
			eachScene(t, f, func(t *testing.T, s *scene) { testMostSpecific(t, s, method) })
		})
	}
}

func testMostSpecific(t *testing.T, s *scene, method bpf.KernelMethod) {
	s.RemoveService(s.service)
	port := func(p uint16) uint16 {
		if method == nat {
			return s.server.Port()
		}
		return p
	}
	listen := func(p uint16, octets ...byte) netip.AddrPort { return netip.AddrPortFrom(s.at(octets...), p) }
	// From the most specific one on; a server's last octet is its service's number.
	services := []bpftest.Service{
		{},
		{Listen: listen(80, 1)},
		{Listen: listen(80, 1), LastPort: 90},
		{Listen: listen(0, 1)},
		{Listen: listen(80, 0), Prefix: s.bits(28)},
		{Listen: listen(8000, 0), Prefix: s.bits(28), LastPort: 8009},
		{Listen: listen(7000, 0), Prefix: s.bits(28), LastPort: 8999},
		{Listen: listen(80, 0), Prefix: s.bits(24)},
		{Listen: listen(0, 0), Prefix: s.bits(24)},
		{Listen: listen(80, 0, 0), Prefix: s.bits(16)},
	}
	tests := []struct {
		to   netip.AddrPort
		want []byte // the services that have it, the most specific one first
	}{
		{listen(80, 1), []byte{1, 2, 3, 4, 7, 8, 9}},
		{listen(81, 1), []byte{2, 3, 8}},
		{listen(90, 1), []byte{2, 3, 8}},
		{listen(91, 1), []byte{3, 8}},
		{listen(79, 1), []byte{3, 8}},
		{listen(1, 1), []byte{3, 8}},
		{listen(65535, 1), []byte{3, 8}},
		{listen(8000, 1), []byte{3, 5, 6, 8}},
		{listen(80, 0), []byte{4, 7, 8, 9}},
		{listen(80, 15), []byte{4, 7, 8, 9}},
		{listen(80, 16), []byte{7, 8, 9}},
		{listen(8000, 2), []byte{5, 6, 8}},
		{listen(8009, 2), []byte{5, 6, 8}},
		{listen(8010, 2), []byte{6, 8}},
		{listen(7000, 2), []byte{6, 8}},
		{listen(8999, 2), []byte{6, 8}},
		{listen(9000, 2), []byte{8}},
		{listen(80, 255), []byte{7, 8, 9}},
		{listen(80, 77, 1), []byte{9}},
		{listen(81, 77, 1), nil},
	}
	applied := make([]*bpftest.Service, len(services))
	check := func(step string) {
		t.Helper()
		for _, test := range tests {
			var want byte
			for _, n := range slices.Backward(test.want) {
				if applied[n] != nil {
					want = n
				}
			}
			if got := s.serverOf(t, test.to); got != want {
				t.Errorf("%s: %s goes to service %d, want %d", step, test.to, got, want)
			}
		}
		s.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
		s.Sweep()
	}
	order := rand.New(rand.NewPCG(1, uint64(method))).Perm(len(services) - 1)
	for _, i := range order {
		n := byte(i + 1)
		applied[n] = s.add(services[n], n, method, port(services[n].Listen.Port()))
		check(fmt.Sprintf("after adding %d", n))
	}
	for _, i := range order {
		s.RemoveService(applied[i+1])
		applied[i+1] = nil
		check(fmt.Sprintf("after removing %d", i+1))
	}
}

// The program's choice is that of a search through all services, whatever they are.
func TestMatchRandom(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 1 << 14})
	const seed = 20240817
	random := rand.New(rand.NewPCG(seed, 1))
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.RemoveService(s.service)
		taken := map[string]bool{}
		var all []*bpftest.Service
		for len(all) < 40 {
			service := bpftest.Service{Listen: netip.AddrPortFrom(s.at(byte(random.IntN(256))), uint16(random.IntN(20)))}
			if random.IntN(3) > 0 {
				bits := s.bits(24 + random.IntN(8))
				prefix := netip.PrefixFrom(service.Listen.Addr(), bits).Masked()
				service.Listen, service.Prefix = netip.AddrPortFrom(prefix.Addr(), service.Listen.Port()), bits
			}
			if port := service.Listen.Port(); port != 0 && random.IntN(2) == 0 {
				service.LastPort = port + 1 + uint16(random.IntN(20))
			}
			key := fmt.Sprint(service.Listen, service.Prefix, service.LastPort)
			if !taken[key] {
				taken[key] = true
				all = append(all, s.add(service, byte(len(all)+1), dr, service.Listen.Port()))
			}
		}
		for range 400 {
			to := netip.AddrPortFrom(s.at(byte(random.IntN(256))), uint16(1+random.IntN(40)))
			if got, want := s.serverOf(t, to), mostSpecific(all, to); got != want {
				t.Fatalf("seed %d: %s goes to service %d, want %d", seed, to, got, want)
			}
		}
	})
}

// mostSpecific is the number of the service, from 1 on, that has the address; 0: none.
func mostSpecific(all []*bpftest.Service, to netip.AddrPort) byte {
	var best []int
	for i, s := range all {
		bits, first, last := s.Prefix, s.Listen.Port(), s.LastPort
		if bits == 0 {
			bits = to.Addr().BitLen()
		}
		if first == 0 {
			last = 65535
		} else if last == 0 {
			last = first
		}
		if to.Port() < first || to.Port() > last || !netip.PrefixFrom(s.Listen.Addr(), bits).Contains(to.Addr()) {
			continue
		}
		rank := []int{-bits, int(last - first), int(first), i + 1}
		if best == nil || slices.Compare(rank, best) < 0 {
			best = rank
		}
	}
	if best == nil {
		return 0
	}
	return byte(best[3])
}

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
			request.Flags, reply.Flags = "A", "A"
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
		diffEntries(t, f, s.wideBoth(state, true)...)
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
		// The server's method may be another: nothing of it is wide then.
		f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
		f.Sweep()
		second.Method = dr
		f.Apply(s.service)
		for range 4 {
			p.To = s.virtual
			f.Run(p.Bytes())
			p.To = s.secondVirtual
			f.Run(p.Bytes())
			for _, e := range f.Entries() {
				if isDR := e.Method == uint8(dr); e.Wide == isDR {
					t.Errorf("%+v: wide %v", e, e.Wide)
				}
			}
			f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
			f.Sweep()
		}
		diffLoads(t, f, s.service.Servers...)
	})
}

// The first address and port of a wide service are not taken for a service by
// themselves, whatever was found there before.
func TestWideServiceIsNotHinted(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.RemoveService(s.service)
		first := netip.AddrPortFrom(s.at(0), 80)
		exact := s.add(bpftest.Service{Listen: first}, 1, dr, 80)
		if got := s.serverOf(t, first); got != 1 {
			t.Fatalf("went to %d", got)
		}
		s.RemoveService(exact)
		s.add(bpftest.Service{Listen: first, Prefix: s.bits(24)}, 2, dr, 80)
		if got := s.serverOf(t, first); got != 2 {
			t.Errorf("went to %d, want 2: the prefix's", got)
		}
		s.add(bpftest.Service{Listen: first, Prefix: s.bits(32) - 1}, 3, dr, 80)
		if got := s.serverOf(t, first); got != 3 {
			t.Errorf("went to %d, want 3: the longer prefix's", got)
		}
		s.add(bpftest.Service{Listen: first}, 4, dr, 80)
		for range 2 {
			if got := s.serverOf(t, first); got != 4 {
				t.Errorf("went to %d, want 4: the exact service's", got)
			}
		}
	})
}
