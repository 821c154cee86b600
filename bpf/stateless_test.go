package bpf_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// fill has clients of one set of the table prove themselves until it is full, and
// returns so many more of that set, which there is no room for. The service is by
// DR and rr meanwhile.
func (s *scene) fill(t *testing.T, more int) (late []bpftest.Packet) {
	t.Helper()
	crowd := s.crowd(t, places+more)
	for _, p := range crowd[:places] {
		s.pass(t, "a first packet", p)
	}
	s.prove(t, crowd[:places]...)
	for _, e := range s.Entries() {
		if !e.Proven {
			t.Fatalf("%+v is not proven", e)
		}
	}
	s.Events()
	return crowd[places:]
}

// tableState returns when and how often a family's table was full.
func tableState(t *testing.T, f *bpftest.Fixture, v6 bool) (state bpf.KernelTableState) {
	t.Helper()
	if err := f.Plane.TableStates.Lookup(index(v6), &state); err != nil {
		t.Fatal(err)
	}
	return state
}

func putTableState(t *testing.T, f *bpftest.Fixture, v6 bool, state bpf.KernelTableState) {
	t.Helper()
	if err := f.Plane.TableStates.Put(index(v6), &state); err != nil {
		t.Fatal(err)
	}
}

func index(v6 bool) uint32 {
	if v6 {
		return 1
	}
	return 0
}

// hashedTo runs a client's packet, which must be sent on by DR as the trial of it says;
// the index of the server whose counters have it.
func (s *scene) hashedTo(t *testing.T, p bpftest.Packet, events map[string]uint64) uint32 {
	t.Helper()
	before := map[uint32]uint64{}
	for _, server := range s.service.Servers {
		before[server.Index] = s.Traffic(server).InPackets
	}
	explained := explain(t, s.Fixture, p)
	run(t, s.Fixture, p.Bytes(), sent(routed(p)), events)
	for _, server := range s.service.Servers {
		if s.Traffic(server).InPackets == before[server.Index]+1 {
			if explained.Event != 0 || explained.Server != server.Index {
				t.Errorf("explained as %q to server %d, went to %d", bpf.Events[explained.Event].Name, explained.Server, server.Index)
			}
			return server.Index
		}
	}
	t.Error("the packet is in no server's count")
	return 0
}

// A full table: what a hash finds the server of goes on without an entry, for as long
// as that would have lived.
func TestServesWithoutAnEntryWhenFull(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, a := range families {
		for name, scheduler := range map[string]bpf.KernelScheduler{
			"sh": bpf.KernelSchedulerSCHEDULER_SH, "mh": bpf.KernelSchedulerSCHEDULER_MH, "dh": bpf.KernelSchedulerSCHEDULER_DH,
		} {
			t.Run(a.name+"/"+name, func(t *testing.T) { testStateless(t, newScene(t, f, a, bpftest.TCP, dr, dr), scheduler) })
		}
	}
}

func testStateless(t *testing.T, s *scene, scheduler bpf.KernelScheduler) {
	late := s.fill(t, 8)
	s.service.Scheduler = scheduler
	s.Apply(s.service)
	putTableState(t, s.Fixture, s.isV6(), bpf.KernelTableState{})
	ack := func(p bpftest.Packet, flags string) bpftest.Packet {
		p.Flags, p.Ack = flags, 5001
		return p
	}
	run(t, s.Fixture, ack(late[0], "A").Bytes(), dropped, one("midstream")) // it is not known that it is full
	loads, entries := s.loads(), s.Entries()
	for i, p := range late {
		server := s.hashedTo(t, p, one("stateless"))
		for _, flags := range []string{"A", "AP", "FA", "RA", "S"} {
			if again := s.hashedTo(t, ack(p, flags), one("stateless")); again != server {
				t.Errorf("client %d: %q went to server %d, the first segment to %d", i, flags, again, server)
			}
		}
	}
	if diff := cmp.Diff(loads, s.loads()); diff != "" {
		t.Errorf("connections without an entry are counted (-want +got):\n%s", diff)
	}
	if got := s.Entries(); len(got) != len(entries) {
		t.Errorf("%d entries, there were %d", len(got), len(entries))
	}
	full := uint64(2 * len(late)) // with their first segments, sent twice
	state := tableState(t, s.Fixture, s.isV6())
	if state.Full != full || state.FullTick == 0 || s.ServiceState(s.service).Full != full {
		t.Errorf("%+v, of the service %d, want %d and when", state, s.ServiceState(s.service).Full, full)
	}

	// The end: the last time was longer ago than an entry lives without a packet.
	last := ack(late[0], "A")
	state.FullTick -= s.Plane.Clock.Ticks(bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED] - 10*time.Second)
	putTableState(t, s.Fixture, s.isV6(), state)
	s.hashedTo(t, last, one("stateless"))
	state.FullTick -= s.Plane.Clock.Ticks(11 * time.Second)
	putTableState(t, s.Fixture, s.isV6(), state)
	for _, flags := range []string{"A", "RA"} {
		if got := explain(t, s.Fixture, ack(last, flags)); got.Event != uint32(bpf.KernelEventEVENT_DROP_MIDSTREAM) {
			t.Errorf("explained as %q", bpf.Events[got.Event].Name)
		}
		run(t, s.Fixture, ack(last, flags).Bytes(), dropped, one("midstream"))
	}
	// With a timeout of its own, that is what counts.
	s.service.Timeouts = map[bpf.KernelConnState]time.Duration{bpf.KernelConnStateSTATE_ESTABLISHED: time.Hour}
	s.Apply(s.service)
	s.hashedTo(t, last, one("stateless"))

	// Room again: the next first segment makes an entry, and its connection goes on.
	s.service.Timeouts = nil
	server := s.hashedTo(t, late[1], one("stateless"))
	s.AgeBy(time.Hour)
	if got := s.hashedTo(t, late[1], nil); got != server || s.forward(t, late[1]).Server != server {
		t.Errorf("server %d, and %d before there was an entry", s.forward(t, late[1]).Server, server)
	}
}

// loads are the connections counted of the scene's servers.
func (s *scene) loads() (all []bpf.KernelServerLoad) {
	for _, server := range s.service.Servers {
		all = append(all, s.Load(server))
	}
	return all
}

// A datagram of such a service needs no entry either.
func TestServesDatagramsWithoutAnEntryWhenFull(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, a := range families {
		s := newScene(t, f, a, bpftest.UDP, dr, dr)
		late := s.fill(t, 1)[0]
		s.service.Scheduler = bpf.KernelSchedulerSCHEDULER_SH
		f.Apply(s.service)
		server := s.hashedTo(t, late, one("stateless"))
		if again := s.hashedTo(t, late, one("stateless")); again != server {
			t.Errorf("%s: server %d, then %d", a.name, server, again)
		}
	}
}

// All other services refuse what there is no room for, as they say; their segments
// without an entry are never hashed.
func TestRefusesWhenFull(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, tt := range []struct {
		name      string
		scheduler bpf.KernelScheduler
		method    bpf.KernelMethod
		flags     bpf.KernelServiceFlags
	}{
		{"rr", bpf.KernelSchedulerSCHEDULER_RR, dr, 0},
		{"nat", bpf.KernelSchedulerSCHEDULER_SH, nat, 0},
		{"persistent", bpf.KernelSchedulerSCHEDULER_SH, dr, bpf.KernelServiceFlagsSERVICE_PERSISTENT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, f, families[0], bpftest.TCP, dr)
			late := s.fill(t, 1)[0]
			s.service.Servers[0].Method, s.service.Scheduler = tt.method, tt.scheduler
			s.service.Flags |= tt.flags
			s.service.ClientPrefix = 32
			if tt.flags != 0 {
				s.service.Timeouts = map[bpf.KernelConnState]time.Duration{bpf.KernelConnStateSTATE_TEMPLATE: time.Hour}
			}
			f.Apply(s.service)
			before := tableState(t, f, false).Full
			if got := explain(t, f, late); got.Event != uint32(bpf.KernelEventEVENT_DROP_TABLE_FULL) {
				t.Errorf("explained as %q", bpf.Events[got.Event].Name)
			}
			run(t, f, late.Bytes(), dropped, one("table-full"))
			if n, of := tableState(t, f, false).Full-before, f.ServiceState(s.service).Full; n != 1 || of != 1 {
				t.Errorf("counted %d times, %d of the service", n, of)
			}
			late.Flags = "A"
			run(t, f, late.Bytes(), dropped, one("midstream"))
			diffLoads(t, f, s.service.Servers...)
		})
	}
}

// Who is given up, in this order: who is not established, then who is half proven,
// each the longest idle first; never who is proven.
func TestEvictionPrefersTheIdle(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, dr)
			const half, begun, newcomers = 4, 3, 8
			crowd := s.crowd(t, places+newcomers)
			made, late := crowd[:places], crowd[places:]
			for _, p := range made {
				s.Age(1) // those before
				s.pass(t, "SYN", p)
			}
			s.prove(t, made[half+begun:]...)
			// Those half proven are established, and older than those that are not.
			for i, p := range made[:half+begun] {
				p.Flags = "A"
				if i < half {
					s.pass(t, "ACK", p)
				}
				s.Age(1)
			}
			s.Age(s.Plane.Clock.Ticks(time.Second))
			p := made[half] // the first of those is the last to have been heard of
			s.pass(t, "SYN again", p)
			p = made[0]
			p.Flags = "A"
			s.pass(t, "ACK again", p)
			order := []int{half + 1, half + 2, half, 1, 2, 3, 0}
			for i, victim := range order {
				first := late[i]
				s.Age(1) // those there, not the newcomers
				run(t, f, first.Bytes(), sent(routed(first)), one("evicted"))
				for _, e := range f.Entries() {
					if e.Source == made[victim].From {
						t.Fatalf("newcomer %d: connection %d is there still: %+v", i, victim, e)
					}
				}
				if got := len(f.Entries()); got != places {
					t.Fatalf("newcomer %d: %d entries, want %d", i, got, places)
				}
				if i >= begun-1 { // newcomers alone are not established: they would be next
					f.EditRecipes(func(recipe uint64) uint64 {
						if recipe>>bpf.KernelRecipeLayoutRECIPE_STATE&uint64(bpf.KernelMasksSTATE_MASK) == uint64(synReceived) {
							recipe |= 1 << bpf.KernelRecipeLayoutRECIPE_PROVEN
						}
						return recipe
					})
				}
			}
			run(t, f, late[len(order)].Bytes(), dropped, one("table-full"))
			diffLoads(t, f, s.service.Servers...)
		})
	}
}
