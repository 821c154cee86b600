package bpf_test

import (
	"math/bits"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

var (
	guardOn   = bpf.KernelServiceLimits{Guard: uint32(bpf.KernelGuardModeGUARD_ON)}
	guardAuto = bpf.KernelServiceLimits{Guard: uint32(bpf.KernelGuardModeGUARD_AUTO), GuardOn: 10, GuardOff: 4}
)

// spareBit is the one of a cookie that is not looked at (guard.h, COOKIE_SPARE).
const spareBit = 1 << 31

// cookieOf is the guard's number for the packet's client in the slot of the tick:
// SipHash-1-3 (guard.h), written down once more.
func cookieOf(t *testing.T, f *bpftest.Fixture, p bpftest.Packet, tick uint32) uint32 {
	t.Helper()
	settings, err := f.Plane.Settings()
	if err != nil {
		t.Fatal(err)
	}
	key := settings.Seed[11]
	v := [4]uint64{0x736f6d6570736575 ^ key, 0x646f72616e646f6d ^ key, 0x6c7967656e657261 ^ key, 0x7465646279746573 ^ key}
	round := func() {
		v[0] += v[1]
		v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
		v[0] = bits.RotateLeft64(v[0], 32)
		v[2] += v[3]
		v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
		v[0] += v[3]
		v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
		v[2] += v[1]
		v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
		v[2] = bits.RotateLeft64(v[2], 32)
	}
	from := bpf.Address(p.From.Addr())
	rest := tick>>6 ^ uint32(bpf.Port(p.To.Port())) ^ bpf.FilterBit(p.To.Addr())
	last := uint64(rest&0xffff)<<48 | uint64(bpf.Port(p.From.Port()))<<32
	words := []uint64{last | uint64(from[0])}
	if p.From.Addr().Is6() {
		words = []uint64{uint64(from[0]) | uint64(from[1])<<32, uint64(from[2]) | uint64(from[3])<<32, last}
	}
	for _, w := range words {
		v[3] ^= w
		round()
		v[0] ^= w
	}
	v[2] ^= 0xff
	for range 3 {
		round()
	}
	return uint32(v[0] ^ v[1] ^ v[2] ^ v[3])
}

// withinSlot runs a test that takes no time until it ran within one slot of the
// guard's clock.
func withinSlot(t *testing.T, f *bpftest.Fixture, test func(tick uint32)) {
	t.Helper()
	for {
		tick := now(t, f)
		if tick&63 < 60 { // else the slot may end meanwhile
			test(tick)
			return
		}
		waitTick(t, f, (tick|63)+1)
	}
}

// newGuarded is a scene with a guarded service whose clients are unknown.
func newGuarded(t *testing.T, f *bpftest.Fixture, a family, method bpf.KernelMethod, l bpf.KernelServiceLimits) *scene {
	t.Helper()
	s := newScene(t, f, a, bpftest.TCP, method)
	f.ForgetClients()
	f.PutLimits(s.service, l)
	return s
}

// reset is the client's answer to the guard with this number.
func reset(p bpftest.Packet, number uint32) bpftest.Packet {
	p.Flags, p.Seq, p.Ack, p.Payload, p.TCPOptions = "R", number, 0, nil, 0
	return p
}

// The guard. Loading the programs takes longest: once for all.
func TestGuard(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for name, test := range map[string]func(*testing.T, *bpftest.Fixture){
		"answered":            testGuardAnswer,
		"not fooled":          testGuardIsNotFooled,
		"a wrong number":      testGuardNumberIsWrong,
		"forgets":             testGuardForgets,
		"leaves others alone": testGuardLeavesOthersAlone,
		"goes on and off":     testGuardGoesOnAndOff,
	} {
		t.Run(name, func(t *testing.T) { test(t, f) })
	}
}

// An unknown client's first segment is answered, its reset lets it pass, and its
// next first segment makes a connection; in each family and method, and whatever
// the segment looks like.
func testGuardAnswer(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		for _, method := range []bpf.KernelMethod{nat, dr, local} {
			for name, change := range map[string]func(*bpftest.Packet){
				"plain":     func(*bpftest.Packet) {},
				"tagged":    func(p *bpftest.Packet) { p.VLANs = []uint16{100} },
				"tagged 2":  func(p *bpftest.Packet) { p.VLANs = []uint16{100, 7} },
				"options":   func(p *bpftest.Packet) { p.TCPOptions = 40 },
				"fast open": func(p *bpftest.Packet) { p.Payload = pattern(1400); p.TCPOptions = 20 },
				"TOS":       func(p *bpftest.Packet) { p.TOS, p.TTL = 0xfc, 9 },
				"IP options": func(p *bpftest.Packet) {
					if a.isV6() {
						p.Extensions = []bpftest.Extension{{Header: 0, Length: 8}, {Header: 60, Length: 24}}
					} else {
						p.Options = 40
					}
				},
			} {
				t.Run(a.name+"/"+methodName(method)+"/"+name, func(t *testing.T) {
					s := newGuarded(t, f, a, method, guardOn)
					p := s.request()
					change(&p)
					withinSlot(t, f, func(tick uint32) { testGuarded(t, s, p, cookieOf(t, f, p, tick)) })
				})
			}
		}
	}
}

func testGuarded(t *testing.T, s *scene, p bpftest.Packet, number uint32) {
	f := s.Fixture
	answer := bpftest.Result{Action: bpftest.TX, Packet: bpftest.Challenge(p, number)}
	for range 2 { // and a retransmission
		run(t, f, p.Bytes(), answer, one("guard"))
	}
	diffEntries(t, f)
	if got := explain(t, f, p); bpf.Events[got.Event].Name != "guard" || got.Server != 0 {
		t.Errorf("explained as %s", bpf.Events[got.Event].Name)
	}
	run(t, f, reset(p, number).Bytes(), dropped, one("guard-answered"))
	diffEntries(t, f)
	state := f.ServiceState(s.service)
	if state.Challenged != 2 || state.Validated != 1 {
		t.Errorf("%d answered, %d validated; want 2 and 1", state.Challenged, state.Validated)
	}
	if got := explain(t, f, p); got.Server != s.service.Servers[0].Index {
		t.Errorf("then explained as %s", bpf.Events[got.Event].Name)
	}
	if got := f.Run(p.Bytes()); got.Action == bpftest.Drop {
		t.Errorf("the client's next first segment: %v %v", got.Action, f.Events())
	}
	want := 1
	if s.service.Servers[0].Method == nat {
		want = 2
	}
	if got := len(f.Entries()); got != want {
		t.Errorf("%d entries, want %d", got, want)
	}
}

// Only what the client alone can know lets it pass.
func testGuardIsNotFooled(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newGuarded(t, f, a, nat, guardOn)
			second := f.Apply(&bpftest.Service{Listen: a.secondVirtual, Servers: []*bpftest.Server{
				{Address: a.secondServer, Weight: 1, Hop: s.service.Servers[0].Hop},
			}})
			f.PutLimits(second, guardOn)
			withinSlot(t, f, func(tick uint32) {
				p := s.request()
				number := cookieOf(t, f, p, tick)
				refused := func(name string, p bpftest.Packet) {
					t.Helper()
					t.Run(name, func(t *testing.T) { run(t, f, p.Bytes(), dropped, one("midstream")) })
				}
				refused("another number", reset(p, number+1))
				refused("of the slot before the last", reset(p, cookieOf(t, f, p, tick-128)))
				refused("of the next slot", reset(p, cookieOf(t, f, p, tick+64)))
				other := reset(p, number)
				other.From = s.other
				refused("from another address", other)
				other = reset(p, number)
				other.From = netip.AddrPortFrom(p.From.Addr(), p.From.Port()+1)
				refused("from another port", other)
				other = reset(p, number)
				other.To = a.secondVirtual
				refused("to another address", other)
				for _, flags := range []string{"RA", "A", "F", "SR"} {
					other = reset(p, number)
					other.Flags = flags
					refused("with flags "+flags, other)
				}
				if got := f.Validated(); len(got) != 0 {
					t.Errorf("these pass: %v", got)
				}
				f.ServiceState(s.service)
				for _, good := range []uint32{cookieOf(t, f, p, tick-64), number ^ spareBit} {
					f.ForgetClients()
					run(t, f, reset(p, good).Bytes(), dropped, one("guard-answered"))
					if got := len(f.Validated()); got != 1 {
						t.Errorf("%d clients pass, want 1", got)
					}
				}
			})
		})
	}
}

// The answer's number is never one that the client would take for an answer.
func testGuardNumberIsWrong(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		for name, sent := range map[string]uint32{"SYN": 1, "first of a payload": 2, "last of a payload": 65536} {
			t.Run(a.name+"/"+name, func(t *testing.T) {
				s := newGuarded(t, f, a, dr, guardOn)
				withinSlot(t, f, func(tick uint32) {
					p := s.request()
					number := cookieOf(t, f, p, tick)
					p.Seq = number - sent
					run(t, f, p.Bytes(), bpftest.Result{Action: bpftest.TX, Packet: bpftest.Challenge(p, number^spareBit)}, one("guard"))
					run(t, f, reset(p, number^spareBit).Bytes(), dropped, one("guard-answered"))
				})
			})
		}
	}
}

// A client that answered passes for ten minutes.
func testGuardForgets(t *testing.T, f *bpftest.Fixture) {
	s := newGuarded(t, f, families[0], dr, guardOn)
	minutes := func(n time.Duration) uint32 { return f.Plane.Clock.Ticks(time.Second) * 60 * uint32(n) }
	p := s.request()
	for _, tt := range []struct {
		name  string
		ago   uint32
		event string
	}{
		{"just now", 0, ""},
		{"on a CPU that is ahead", ^uint32(0), ""},
		{"nine minutes ago", minutes(9), ""},
		{"eleven minutes ago", minutes(11), "guard"},
		{"days ago", minutes(60 * 24 * 9), "guard"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.From = netip.AddrPortFrom(p.From.Addr(), p.From.Port()+1)
			f.Validate(p.From.Addr(), now(t, f)-tt.ago)
			f.Events()
			f.Run(p.Bytes())
			want := map[string]uint64{}
			if tt.event != "" {
				want = one(tt.event)
			}
			if diff := cmp.Diff(want, f.Events()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
	// Nobody counts for many clients by one answer, sent again and again.
	withinSlot(t, f, func(tick uint32) {
		f.Validate(p.From.Addr(), now(t, f)-minutes(1))
		before := f.ServiceState(s.service).Validated
		for range 5 {
			run(t, f, reset(p, cookieOf(t, f, p, tick)).Bytes(), dropped, one("guard-answered"))
		}
		if got := f.ServiceState(s.service).Validated - before; got != 0 {
			t.Errorf("counted %d times", got)
		}
	})
}

// The guard asks who begins, and nobody else.
func testGuardLeavesOthersAlone(t *testing.T, f *bpftest.Fixture) {
	for _, a := range families {
		t.Run(a.name+"/connections", func(t *testing.T) {
			s := newGuarded(t, f, a, nat, bpf.KernelServiceLimits{})
			s.establish(t)
			f.PutLimits(s.service, guardOn)
			p := s.request()
			for _, flags := range []string{"A", "PA", "S", "FA"} {
				p.Flags = flags
				run(t, f, p.Bytes(), sent(forwarded(p, s.server)), nil)
			}
		})
		t.Run(a.name+"/UDP", func(t *testing.T) {
			s := newScene(t, f, a, bpftest.UDP, nat)
			f.PutLimits(s.service, guardOn)
			run(t, f, s.request().Bytes(), sent(forwarded(s.request(), s.server)), nil)
		})
		t.Run(a.name+"/what cannot be asked", func(t *testing.T) {
			s := newGuarded(t, f, a, nat, guardOn)
			s.service.Flags |= bpf.KernelServiceFlagsSERVICE_SLOPPY_TCP
			f.Apply(s.service)
			p := s.request()
			for _, flags := range []string{"A", "SA", "SF", "F"} {
				p.Flags = flags
				run(t, f, p.Bytes(), dropped, one("midstream"))
			}
			f.Validate(p.From.Addr(), now(t, f))
			p.Flags = "A"
			run(t, f, p.Bytes(), sent(forwarded(p, s.server)), nil)
		})
		t.Run(a.name+"/limits", func(t *testing.T) {
			limits := guardOn
			limits.Cost, limits.Burst, limits.SourceConnections, limits.SourceMask = hour, hour, 1, wholeAddress
			s := newGuarded(t, f, a, nat, limits)
			for range 3 {
				if got := f.Run(s.request().Bytes()); got.Action != bpftest.TX {
					t.Fatalf("%v", got.Action)
				}
			}
			if got := f.ServiceState(s.service); got.RateTime != 0 || len(f.Sources()) != 0 {
				t.Errorf("what the guard answered has used up limits: %+v", got)
			}
			f.Validate(s.client.Addr(), now(t, f))
			run(t, f, s.request().Bytes(), sent(forwarded(s.request(), s.server)), nil)
			p := s.request()
			p.From = netip.AddrPortFrom(p.From.Addr(), 9)
			run(t, f, p.Bytes(), dropped, one("service-rate"))
		})
		t.Run(a.name+"/migration", func(t *testing.T) {
			s := newGuarded(t, f, a, nat, guardOn)
			s.migrate(true)
			p := s.request()
			withinSlot(t, f, func(tick uint32) {
				number := cookieOf(t, f, p, tick)
				run(t, f, p.Bytes(), bpftest.Result{Action: bpftest.TX, Packet: bpftest.Challenge(p, number)}, one("guard"))
				run(t, f, reset(p, number+1).Bytes(), passed(reset(p, number+1).Bytes()), one("migrating"))
				run(t, f, reset(p, number).Bytes(), dropped, one("guard-answered"))
			})
		})
	}
}

// autoScene is a scene with a guard that goes on and off by itself.
type autoScene struct {
	limitedScene
	second uint32 // in ticks
	next   int    // client
}

func newAutoScene(t *testing.T, f *bpftest.Fixture, method bpf.KernelMethod) *autoScene {
	t.Helper()
	s := newGuarded(t, f, families[0], method, guardAuto)
	auto := &autoScene{limitedScene{s}, f.Plane.Clock.Ticks(time.Second), 0}
	auto.open(t) // its window begins
	return auto
}

// pass lets so many ticks go by for the guard.
func (s *autoScene) pass(ticks uint32) {
	s.EditServiceState(s.service, func(state *bpf.KernelServiceState) {
		state.Window -= ticks
		if state.GuardUntil != 0 {
			state.GuardUntil -= ticks
		}
	})
}

// open sends a new client's first segment and compares the events.
func (s *autoScene) open(t *testing.T, events ...string) {
	t.Helper()
	s.next++
	s.Events()
	s.Run(s.from(s.next, 0).Bytes())
	if diff := cmp.Diff(one(events...), s.Events()); diff != "" {
		t.Errorf("events of client %d (-want +got):\n%s", s.next, diff)
	}
}

// begin has so many more connections begun that do not prove themselves, and answer
// so many more first segments that nobody follows up. No packet is sent for them: the
// clock goes on while packets are.
func (s *autoScene) begin(begun, answered uint64) {
	s.EditServiceState(s.service, func(state *bpf.KernelServiceState) {
		state.Begun += begun
		state.Challenged += answered
	})
}

// flood is enough to go on, on a slow machine too.
func (s *autoScene) flood(t *testing.T) {
	t.Helper()
	s.begin(1000, 0)
	s.pass(s.second)
	s.open(t, "guard", "guard-on")
}

// It goes on when enough begin in a second that do not prove themselves, and off
// ten seconds after the last second in which enough did. Time passes while packets
// are sent, so that what is enough is more than just that.
func testGuardGoesOnAndOff(t *testing.T, f *bpftest.Fixture) {
	t.Run("flood", func(t *testing.T) {
		s := newAutoScene(t, f, dr)
		for range 3 {
			s.begin(8, 0)
			s.pass(s.second)
			s.open(t) // nine in that second
		}
		if got := f.ServiceState(s.service); got.Begun != 4+3*8 || got.Proven != 0 || got.Challenged != 0 {
			t.Errorf("%d begun, %d proven, %d answered", got.Begun, got.Proven, got.Challenged)
		}
		s.flood(t)
		// While on, four a second that nobody follows up keep it on.
		for range 30 {
			s.begin(0, 100)
			s.pass(s.second)
			s.open(t, "guard")
		}
		// Three do not.
		for range 8 {
			s.begin(0, 2)
			s.pass(s.second)
			s.open(t, "guard")
		}
		s.pass(3 * s.second)
		s.open(t, "guard-off")
		s.open(t)
	})
	t.Run("quick", func(t *testing.T) {
		s := newAutoScene(t, f, dr)
		s.begin(1000, 0)
		s.pass(1) // a second need not pass
		s.open(t, "guard", "guard-on")
	})
	t.Run("silence", func(t *testing.T) {
		s := newAutoScene(t, f, dr)
		s.flood(t)
		s.pass(8 * s.second)
		s.open(t, "guard")
		s.pass(12 * s.second)
		s.open(t, "guard-off") // as soon as anybody asks
	})
	t.Run("a long time without packets", func(t *testing.T) {
		for _, gap := range []uint32{5 * s60, 1 << 30, 1<<31 - 5, 1<<31 + 5, 3 << 30} {
			s := newAutoScene(t, f, dr)
			s.begin(30, 0) // in five minutes or more: few
			s.pass(gap)
			s.open(t)
			s.open(t)
		}
	})
	t.Run("answers", func(t *testing.T) {
		s := newAutoScene(t, f, dr)
		s.flood(t)
		// Real clients, however many, do not keep it on.
		for range 5 {
			for range 12 {
				s.next++
				p := s.from(s.next, 0)
				answer := s.Run(p.Bytes())
				s.Run(reset(p, bpftest.AckOf(answer.Packet)).Bytes())
			}
			s.pass(s.second)
		}
		s.pass(6 * s.second)
		s.open(t, "guard-off")
	})
	t.Run("proof", func(t *testing.T) {
		s := newAutoScene(t, f, nat)
		for range 5 {
			for range 20 {
				s.next++
				s.handshake(t, s.from(s.next, 0))
			}
			s.pass(s.second)
			s.open(t)
		}
	})
}

// s60 is a minute in ticks, or more.
const s60 = 60 * 5

// handshake makes a connection of the packet's that is proven.
func (s *autoScene) handshake(t *testing.T, p bpftest.Packet) {
	t.Helper()
	reply, ack := s.reply(), p
	reply.To = p.From
	ack.Flags, ack.Seq, ack.Ack = "A", p.Seq+1, reply.Seq+1
	for _, p := range []bpftest.Packet{p, reply, ack} {
		if got := s.Run(p.Bytes()); got.Action != bpftest.TX {
			t.Fatalf("%s of a handshake: %v", p.Flags, got.Action)
		}
	}
}
