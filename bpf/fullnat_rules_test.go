package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// expired lets all connections expire.
func (s *scene) expired() {
	s.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
}

// locals returns what stands in for each client, by its address and port.
func (s *scene) locals() map[netip.AddrPort]uint32 {
	all := map[netip.AddrPort]uint32{}
	for _, e := range s.Entries() {
		if !e.Reply && !e.Template {
			all[e.Source] = e.Local
		}
	}
	return all
}

// Answers to the client come from the virtual address, those to the server from what it
// has sent to.
func TestFullNATAnswers(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachFullNAT(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		listen, inside := *s.service, *s.service
		listen.Listen, inside.Listen = s.virtual, s.standIn
		p, back := s.request(), s.reply()
		p.Flags, back.Flags = "A", "A"
		p.TTL, back.TTL = 1, 1
		s.service = &listen
		run(t, f, p.Bytes(), s.icmp(timeExceeded, p), one("ttl-exceeded"))
		s.service = &inside
		run(t, f, back.Bytes(), s.icmp(timeExceeded, back), one("ttl-exceeded"))

		link := serverLink(s.Outside)
		link.MTU = 1280
		s.SetHop(listen.Servers[0].Hop, link)
		p.TTL, p.DF, p.Payload = 0, true, pattern(1400)
		about := tooBig
		about[0].Parameter, about[1].Parameter = 1280, 1280
		s.service = &listen
		run(t, f, p.Bytes(), s.icmp(about, p), one("frag-needed"))
	})
}

// A client behind another router is answered there: its next packet of a second shows it.
func TestFullNATClientHop(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachFullNAT(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		moved := s.request()
		moved.Source, moved.Flags = bpftest.OtherRouterMAC, "A"
		s.Age(s.Plane.Clock.Ticks(2e9))
		run(t, f, moved.Bytes(), sent(s.toServer(moved)), one("hop-changed"))
		want := s.toClient(s.reply())
		want.Destination = bpftest.OtherRouterMAC
		run(t, f, s.reply().Bytes(), sent(want), nil)
		// The sweep counts one use of the hop, and one of the address.
		if err := bpf.ClearArray[uint32](f.Plane.HopUses); err != nil {
			t.Fatal(err)
		}
		f.SetLocals(1024, 65535, s.standIn.Addr())
		f.Sweep()
		uses, err := bpf.ReadArray[uint32](f.Plane.HopUses)
		if err != nil {
			t.Fatal(err)
		}
		var used uint32
		for _, n := range uses {
			used += n
		}
		all, err := f.Plane.LocalAddresses()
		if err != nil {
			t.Fatal(err)
		}
		if n := all[bpf.FirstLocal(s.isV6())].Uses; n != 1 || used != 1 {
			t.Errorf("%d uses of the address, %d of hops, want one of each", n, used)
		}
	})
}

// A connection is proven by the client's acknowledgement of the server's own number,
// and by nothing else.
func TestFullNATProof(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newFullNATScene(t, f, a, bpftest.TCP)
			handshake := bpftest.Handshake(s.request(), s.reply())
			isProven := func(want bool) {
				t.Helper()
				if got := f.Entries()[0].Proven; got != want {
					t.Errorf("proven: %t", got)
				}
			}
			s.pass(t, "a first segment", handshake[0])
			early := handshake[2]
			early.Ack = 0
			s.pass(t, "an acknowledgement of nothing", early)
			isProven(false)
			s.pass(t, "the server's answer", handshake[1])
			for _, ack := range []uint32{handshake[2].Ack - 1, handshake[2].Ack + 1<<17} {
				wrong := handshake[2]
				wrong.Ack = ack
				s.pass(t, "a wrong acknowledgement", wrong)
				isProven(false)
			}
			// While it is awaited, the hop is not known; the client's first segment shows it again.
			run(t, f, handshake[1].Bytes(), dropped, one("no-route"))
			s.pass(t, "the first segment again", handshake[0])
			run(t, f, handshake[1].Bytes(), sent(s.toClient(handshake[1])), nil)
			s.pass(t, "the handshake's last", handshake[2])
			isProven(true)
			back := s.reply()
			back.Flags = "A"
			run(t, f, back.Bytes(), sent(s.toClient(back)), nil)
			want := s.fullBoth(established, true)
			diffEntries(t, f, want...)
		})
	}
}

// One address that is offered behind all others of the family, as of a pool that was replaced
// while connections have them, is found by every new connection.
func TestFullNATOffered(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachFullNAT(t, f, func(t *testing.T, s *scene) {
		const old, connections = uint32(bpf.Locals - 1), 16
		first, a := bpf.FirstLocal(s.isV6()), s.standIn.Addr()
		f.SetLocals(5000, 5999, a)
		put := func(i uint32, k bpf.KernelLocalAddress) {
			t.Helper()
			if err := f.Plane.PutLocalAddress(first+i, &k); err != nil {
				t.Fatal(err)
			}
		}
		put(old, bpf.KernelLocalAddress{Address: bpf.Address(a), Offered: 1})
		a = a.Next()
		put(0, bpf.KernelLocalAddress{Address: bpf.Address(a), Skip: old})
		for i := range old - 1 {
			a = a.Next()
			put(1+i, bpf.KernelLocalAddress{Address: bpf.Address(a)})
		}
		for i := range uint16(connections) {
			p := s.request()
			p.From = netip.AddrPortFrom(s.client.Addr(), 40000+i)
			s.pass(t, "a first packet", p)
		}
		all := s.locals()
		if len(all) != connections {
			t.Errorf("%d connections, want %d", len(all), connections)
		}
		for _, word := range all {
			if index, _ := bpf.ParseLocal(word); index != first+old {
				t.Errorf("local %d stands in, and is not offered", index)
			}
		}
	})
}

// A pool of one address and four ports has four connections of a server, at ports that
// nobody shares; the fifth has another server, or ends. Ports come back with the end of
// their connections.
func TestFullNATPorts(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachFullNAT(t, f, func(t *testing.T, s *scene) {
		f.SetLocals(5000, 5003, s.standIn.Addr())
		request := func(i uint16) bpftest.Packet {
			p := s.request()
			p.From = netip.AddrPortFrom(s.client.Addr(), 40000+i)
			return p
		}
		for i := range uint16(4) {
			s.pass(t, "a first packet", request(i))
		}
		ports := map[uint32]bool{}
		for _, word := range s.locals() {
			_, port := bpf.ParseLocal(word)
			if ports[word] = true; port < 5000 || port > 5003 {
				t.Errorf("port %d", port)
			}
		}
		if len(ports) != 4 {
			t.Errorf("ports: %v", s.locals())
		}
		run(t, f, request(4).Bytes(), dropped, one("local-ports"))
		diffLoads(t, f, s.service.Servers...)
		// The same ports stand in towards another server.
		second := &bpftest.Server{Address: s.secondServer, Method: fullNAT, Weight: 1, Hop: s.service.Servers[0].Hop}
		s.service.Servers = append(s.service.Servers, second)
		f.Apply(s.service)
		for i := range uint16(4) {
			s.pass(t, "a first packet", request(4+i))
		}
		if got := f.Events()["collision-avoided"]; got == 0 || got > 4 {
			t.Errorf("%d connections got another server than the next", got)
		}
		if all := s.locals(); len(all) != 8 {
			t.Errorf("%d connections", len(all))
		}
		inVain := map[string]uint64{"local-ports": 1, "collision-avoided": 4} // there and back
		run(t, f, request(8).Bytes(), dropped, inVain)
		// One that has expired makes way, before any sweep.
		s.expired()
		f.Events()
		s.pass(t, "a first packet", request(9))
		if all := s.locals(); len(all) != 8 {
			t.Errorf("%d connections after one has made way", len(all))
		}
		f.Sweep()
		if all := s.locals(); len(all) != 1 {
			t.Errorf("%d connections after the sweep", len(all))
		}
		diffLoads(t, f, s.service.Servers...)
		// Without a pool there is no server.
		f.SetLocals(5000, 5003)
		run(t, f, request(10).Bytes(), dropped, inVain)
		// What is not offered stays for those who have it.
		options, err := f.Plane.PacketOptions()
		if err != nil {
			t.Fatal(err)
		}
		options.Locals4, options.Locals6 = 1, 1
		if err := f.Plane.PutLocalAddress(bpf.FirstLocal(s.isV6()), &bpf.KernelLocalAddress{Address: bpf.Address(s.standIn.Addr())}); err != nil {
			t.Fatal(err)
		}
		if err := f.Plane.SetPacketOptions(&options); err != nil {
			t.Fatal(err)
		}
		run(t, f, request(10).Bytes(), dropped, inVain)
		s.pass(t, "one that is known", request(9))
	})
}

// Among servers of several methods, one whose ports are all taken leaves the connection
// to the next, whatever its method: nothing of the first stays.
func TestFullNATThenAnotherMethod(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		for _, method := range []bpf.KernelMethod{nat, dr} {
			t.Run(a.name, func(t *testing.T) {
				s := newScene(t, f, a, bpftest.UDP, fullNAT, method)
				f.SetLocals(5000, 5000, a.localAddress())
				for i := range uint16(5) {
					p := s.request()
					p.From = netip.AddrPortFrom(s.client.Addr(), 40000+i)
					s.pass(t, "a first packet", p)
					s.pass(t, "another one", p)
				}
				full := 0
				for _, e := range f.Entries() {
					isFull := e.Method == uint8(fullNAT)
					if e.Wide != isFull || e.Local != 0 && !isFull {
						t.Errorf("%+v", e)
					}
					if isFull && !e.Reply {
						full++
					}
				}
				if full != 1 {
					t.Errorf("%d connections by full NAT at one port", full)
				}
				diffLoads(t, f, s.service.Servers...)
			})
		}
	}
}

// Every way a connection ends takes both its keys.
func TestFullNATConnectionEnds(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for name, end := range map[string]func(*testing.T, *scene){
		"swept": func(t *testing.T, s *scene) {
			s.expired()
			if removed := f.Sweep(); removed != 1 {
				t.Errorf("removed %d connections", removed)
			}
		},
		"killed": func(t *testing.T, s *scene) {
			v6, args := f.Entries()[0].RemoveArgs()
			if err := f.Plane.RemoveConnection(v6, &args); err != nil {
				t.Fatal(err)
			}
			run(t, f, s.reply().Bytes(), passed(s.reply().Bytes()), one("no-service"))
		},
		"expired, met by a reply": func(t *testing.T, s *scene) {
			s.expired()
			back := s.reply()
			back.Flags = "FA" // settled, however young the forward entry seemed
			run(t, f, back.Bytes(), passed(back.Bytes()), one("expired-hit", "no-service"))
		},
		"of a removed service": func(t *testing.T, s *scene) {
			f.RemoveService(s.service)
			run(t, f, s.reply().Bytes(), dropped, one("service-removed"))
			p := s.request()
			p.Flags = "A"
			run(t, f, p.Bytes(), dropped, one("service-removed"))
			s.expired()
			f.Sweep()
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachFullNAT(t, f, func(t *testing.T, s *scene) {
				s.establish(t)
				end(t, s)
				diffEntries(t, f)
				diffLoads(t, f, s.service.Servers...)
			})
		})
	}
}

// A reply entry whose forward entry is gone, or is of another connection, is nobody's.
func TestFullNATOrphan(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	const reply = uint64(1) << bpf.KernelRecipeLayoutRECIPE_REPLY
	for name, spoil := range map[string]func(recipe uint64) uint64{
		"another generation": func(r uint64) uint64 { return r ^ 1<<bpf.KernelRecipeLayoutRECIPE_GENERATION },
		"of another server":  func(r uint64) uint64 { return r ^ 1<<bpf.KernelRecipeLayoutRECIPE_SERVER },
		"not full NAT":       func(r uint64) uint64 { return r ^ 1<<bpf.KernelRecipeLayoutRECIPE_FULLNAT },
		"being removed":      func(r uint64) uint64 { return r ^ 1<<bpf.KernelRecipeLayoutRECIPE_BUSY },
	} {
		t.Run(name, func(t *testing.T) {
			eachFullNAT(t, f, func(t *testing.T, s *scene) {
				s.establish(t)
				f.EditRecipes(func(recipe uint64) uint64 {
					if recipe&reply != 0 {
						return recipe
					}
					return spoil(recipe)
				})
				want, events := passed(s.reply().Bytes()), one("no-service")
				if name == "being removed" {
					want, events = dropped, one("busy")
				}
				run(t, f, s.reply().Bytes(), want, events)
			})
		})
	}
}

// Where connections are counted, each packet is, on the fast path and off it, and news of
// the end say what the two directions were and what stood in for the client.
func TestFullNATTraffic(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{CountConnections: true})
	eachFullNAT(t, f, func(t *testing.T, s *scene) {
		length := func(p bpftest.Packet) uint64 { return uint64(len(p.Bytes()) - 14) }
		r := watch(t, f)
		request, back := s.later()
		s.pass(t, "the first", s.request())
		s.pass(t, "its answer", s.reply())
		for range 5 {
			s.pass(t, "request", request)
			s.pass(t, "answer", back)
		}
		in, out := packets(6, length(s.request())+5*length(request)), packets(6, length(s.reply())+5*length(back))
		want := map[netip.AddrPort]bpf.KernelSlotTraffic{s.client: in, s.server: out}
		if diff := cmp.Diff(want, carried(t, f), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("counted (-want +got):\n%s", diff)
		}
		s.remove(t, s.request())
		var closed bpf.News
		for closed.Kind != bpf.KernelNewsKindNEWS_CLOSED {
			closed = nextNews(t, r, 1)[0]
		}
		if e := closed.Slot.Entry(); closed.In != in || closed.Out != out || e.Local != s.fullBoth(0, false)[0].Local {
			t.Errorf("at its end %v and %v, stood in for by %#x", closed.In, closed.Out, e.Local)
		}
	})
}
