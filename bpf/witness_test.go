package bpf_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

// watch has the service's servers suspended by one piece of evidence of any kind, or as
// many as most.
func (s *scene) watch(t *testing.T, most uint32) {
	t.Helper()
	ticks := s.Plane.Clock.Ticks
	limits := bpf.KernelPassiveLimits{Most: [4]uint32{most, most, most}, Within: ticks(10 * time.Second), Suspend: ticks(time.Minute)}
	if err := s.Plane.Passive.Put(s.service.Index, &limits); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) told(t *testing.T, server *bpftest.Server) (k bpf.KernelTestimony) {
	t.Helper()
	if err := s.Plane.Evidence.Lookup(server.Index, &k); err != nil {
		t.Fatal(err)
	}
	return k
}

func isSuspended(f *bpftest.Fixture, server *bpftest.Server) bool {
	return f.Load(server).Unfit&uint32(bpf.KernelUnfitUNFIT_SUSPENDED) != 0
}

// flagged is the packet with other flags.
func flagged(p bpftest.Packet, flags string) bpftest.Packet {
	p.Flags = flags
	return p
}

// unreachable is a router's or the server's error about the first server's part of the request.
func (s *scene) unreachable(icmp4, code4, icmp6, code6 uint8) []byte {
	quoted := forwarded(s.request(), s.server)
	to := s.client.Addr()
	if s.standIn.IsValid() {
		quoted.From, to = s.standIn, s.standIn.Addr()
	}
	m := bpftest.Message{
		Source: bpftest.ServerMAC, Destination: bpftest.DirectorInside, From: s.server.Addr(), To: to,
		Type: icmp4, Code: code4, Body: quoted.Bytes()[14:],
	}
	if s.isV6() {
		m.Type, m.Code = icmp6, code6
	}
	return m.Bytes()
}

// What packets tell of a server, by kind, and what is none of it: what a client can make
// a server that is well do.
func TestWitness(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	type evidence = [4]uint64
	syn := func(s *scene) { s.Run(s.request().Bytes()) }
	reset := func(flags string) func(*scene) {
		return func(s *scene) { s.Run(flagged(s.reply(), flags).Bytes()) }
	}
	client := func(flags string) func(*scene) {
		return func(s *scene) { s.Run(flagged(s.request(), flags).Bytes()) }
	}
	later := func(s *scene) { s.AgeBy(time.Second) }
	hear := func(icmp4, code4, icmp6, code6 uint8) func(*scene) {
		return func(s *scene) { s.Run(s.unreachable(icmp4, code4, icmp6, code6)) }
	}
	for _, tt := range []struct {
		name     string
		protocol uint8
		method   bpf.KernelMethod
		steps    []func(*scene)
		want     evidence
	}{
		{"reset", bpftest.TCP, nat, []func(*scene){syn, reset("RA")}, evidence{0, 1}},
		{"reset by full NAT", bpftest.TCP, fullNAT, []func(*scene){syn, reset("RA")}, evidence{0, 1}},
		{"reset of what is no SYN", bpftest.TCP, nat, []func(*scene){syn, reset("R")}, evidence{}},
		{"reset after the answer", bpftest.TCP, nat, []func(*scene){syn, reset("SA"), reset("RA")}, evidence{}},
		{"reset after the answer by full NAT", bpftest.TCP, fullNAT, []func(*scene){syn, reset("SA"), reset("RA")}, evidence{}},
		{"reset after the handshake", bpftest.TCP, nat, []func(*scene){syn, reset("SA"), client("A"), reset("RA")}, evidence{}},
		{"the client's reset", bpftest.TCP, nat, []func(*scene){syn, client("RA")}, evidence{}},
		{"a second reset", bpftest.TCP, nat, []func(*scene){syn, reset("RA"), reset("RA")}, evidence{0, 1}},
		{"SYN again", bpftest.TCP, nat, []func(*scene){syn, later, syn}, evidence{1}},
		{"SYN again by full NAT", bpftest.TCP, fullNAT, []func(*scene){syn, later, syn}, evidence{1}},
		{"SYN again by dr", bpftest.TCP, dr, []func(*scene){syn, later, syn}, evidence{1}},
		{"SYN twice again", bpftest.TCP, dr, []func(*scene){syn, later, syn, later, syn}, evidence{2}},
		{"SYN at once again", bpftest.TCP, nat, []func(*scene){syn, syn, syn}, evidence{}},
		{"SYN again, answered", bpftest.TCP, nat, []func(*scene){syn, reset("SA"), later, syn}, evidence{}},
		{"SYN again, answered by full NAT", bpftest.TCP, fullNAT, []func(*scene){syn, reset("SA"), later, syn}, evidence{}},
		{"SYN again after the handshake by dr", bpftest.TCP, dr, []func(*scene){syn, client("A"), later, syn}, evidence{}},
		{"SYN and ACK again", bpftest.TCP, nat, []func(*scene){syn, later, client("SA")}, evidence{}},
		{"host unreachable", bpftest.TCP, nat, []func(*scene){syn, hear(3, 1, 1, 3)}, evidence{0, 0, 1}},
		{"host unreachable by full NAT", bpftest.TCP, fullNAT, []func(*scene){syn, hear(3, 1, 1, 3)}, evidence{0, 0, 1}},
		{"TCP port unreachable", bpftest.TCP, nat, []func(*scene){syn, hear(3, 3, 1, 4)}, evidence{0, 0, 1}},
		{"UDP port unreachable", bpftest.UDP, nat, []func(*scene){syn, hear(3, 3, 1, 4)}, evidence{0, 1}},
		{"UDP host unreachable", bpftest.UDP, nat, []func(*scene){syn, hear(3, 1, 1, 3)}, evidence{0, 0, 1}},
		{"too big", bpftest.TCP, nat, []func(*scene){syn, hear(3, 4, 2, 0)}, evidence{}},
		{"time exceeded", bpftest.TCP, nat, []func(*scene){syn, hear(11, 0, 3, 0)}, evidence{}},
		{"an error of no connection", bpftest.TCP, nat, []func(*scene){hear(3, 1, 1, 3)}, evidence{}},
	} {
		for _, a := range families {
			t.Run(a.name+"/"+tt.name, func(t *testing.T) {
				var s *scene
				if tt.method == fullNAT {
					s = newFullNATScene(t, f, a, tt.protocol)
				} else {
					s = newScene(t, f, a, tt.protocol, tt.method)
				}
				for _, limit := range []uint32{0, 1, 2} { // none; at once; a second piece is needed
					s.watch(t, limit)
					server := s.service.Servers[0]
					if err := f.Plane.Evidence.Put(server.Index, &bpf.KernelTestimony{}); err != nil {
						t.Fatal(err)
					}
					for _, step := range tt.steps {
						step(s)
					}
					want, pieces := tt.want, tt.want[0]+tt.want[1]+tt.want[2]
					if limit == 0 {
						want = evidence{}
					}
					if got := s.told(t, server); got.Told != want {
						t.Errorf("limit %d: told %v, want %v", limit, got.Told, want)
					}
					if got, want := isSuspended(f, server), limit > 0 && pieces >= uint64(limit); got != want {
						t.Errorf("limit %d: suspended %v, want %v", limit, got, want)
					}
					if err := f.Plane.Absolve(server.Index); err != nil {
						t.Fatal(err)
					}
					for _, e := range f.Entries() {
						if !e.Reply {
							s.remove(t, s.request())
						}
					}
				}
			})
		}
	}
}

// Routers' errors about wrapped packets are evidence of the server whose connection they
// quote, and the stack's as before; what quotes none tells nothing.
func TestWitnessOfTunnels(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, p := range pathTunnels {
		for _, a := range families {
			t.Run(fmt.Sprintf("%s/%s in %t", p.name, a.name, p.isV6), func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, bpf.KernelMethodMETHOD_TUNNEL)
				server := s.service.Servers[0]
				if err := p.install(f, server); err != nil {
					t.Fatal(err)
				}
				s.watch(t, 1)
				s.pass(t, "the first segment", s.request())
				unreachable := func(inner bpftest.Packet) {
					m := p.tooBigFor(inner, 1000, 0)
					if m.Code = 1; p.isV6 {
						m.Type, m.Code = 1, 3
					}
					if got := f.Run(m.Bytes()); got.Action != bpftest.Pass {
						t.Errorf("%v", got.Action)
					}
				}
				stranger := s.request()
				stranger.From = netip.AddrPortFrom(stranger.From.Addr(), stranger.From.Port()+1)
				f.Events()
				unreachable(stranger)
				if got := s.told(t, server); got.Told != [4]uint64{} {
					t.Errorf("told %v by an error about nothing of ours", got.Told)
				}
				unreachable(s.request())
				if got := s.told(t, server); got.Told != [4]uint64{0, 0, 1} || !isSuspended(f, server) {
					t.Errorf("told %v, suspended %v", got.Told, isSuspended(f, server))
				}
				if events := f.Events(); events["path-mtu"]+events["path-mtu-refused"] != 0 || events["server-suspended"] != 1 {
					t.Errorf("events %v", events)
				}
			})
		}
	}
}

// A suspended server gets nothing new from the packet after the one that told of it, and
// its connections go on; with its time over, or absolved, it is one like the others.
func TestSuspension(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat, nat)
			s.watch(t, 1)
			first, second := s.service.Servers[0], s.service.Servers[1]
			s.establish(t) // with the first
			again := flagged(s.request(), "A")
			n := 0
			gets := func(rounds int) (got int64) {
				before := f.Load(first).Active
				for range rounds {
					n++
					f.Run(s.requestOf(n).Bytes())
				}
				return f.Load(first).Active - before
			}
			refuse := func() { // the first server answers a client's SYN with a reset
				for isNew := false; !isNew; n++ {
					p, before := s.requestOf(n), f.Load(first).Active
					f.Run(p.Bytes())
					isNew = f.Load(first).Active > before
					answer := flagged(s.reply(), "RA")
					answer.To = p.From
					if isNew {
						f.Run(answer.Bytes())
					}
				}
			}
			f.Events()
			refuse()
			if events := f.Events(); events["server-suspended"] != 1 || !isSuspended(f, first) || isSuspended(f, second) {
				t.Fatalf("not suspended: %v", events)
			}
			if got := gets(6); got != 0 {
				t.Errorf("%d of 6 connections with the suspended server", got)
			}
			s.pass(t, "a packet of its connection", again)
			expire := func() {
				k := s.told(t, first)
				now, err := f.Plane.Now()
				if err != nil {
					t.Fatal(err)
				}
				k.Until = now
				if err := f.Plane.Evidence.Put(first.Index, &k); err != nil {
					t.Fatal(err)
				}
				f.EditServiceState(s.service, func(state *bpf.KernelServiceState) { state.SuspendedTick = now - 1 })
			}
			expire()
			if got := gets(6); got != 3 || isSuspended(f, first) {
				t.Errorf("%d of 6 connections when its time is over", got)
			}
			if tick := f.ServiceState(s.service).SuspendedTick; tick != 0 {
				t.Errorf("somebody is looked for still, since tick %d", tick)
			}
			refuse()
			if err := f.Plane.Absolve(first.Index); err != nil {
				t.Fatal(err)
			}
			if got := gets(6); got != 3 {
				t.Errorf("%d of 6 connections when it was absolved", got)
			}
			// Nor does the end of a server's overload end its suspension, or the other way round.
			refuse()
			f.SetLoad(first, 1, 0, true)
			load := f.Load(first)
			load.Unfit |= uint32(bpf.KernelUnfitUNFIT_SUSPENDED)
			if err := f.Plane.Loads.Put(first.Index, &load); err != nil {
				t.Fatal(err)
			}
			f.Apply(s.service) // without a threshold
			if got := f.Load(first).Unfit; got != uint32(bpf.KernelUnfitUNFIT_SUSPENDED) {
				t.Errorf("unfit for %#x when overload has ended", got)
			}
			if err := f.Plane.Absolve(1 << 30); !errors.Is(err, bpf.ErrNotFound) {
				t.Errorf("absolved nobody: %v", err)
			}
		})
	}
}

// Evidence counts by windows: what is told after the end of one begins the next.
func TestEvidenceWindows(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	s := newScene(t, f, families[0], bpftest.TCP, nat)
	s.watch(t, 3)
	server := s.service.Servers[0]
	for i, passes := range []time.Duration{0, time.Second, 11 * time.Second, 0, 0} {
		k := s.told(t, server)
		k.Window -= f.Plane.Clock.Ticks(passes)
		if err := f.Plane.Evidence.Put(server.Index, &k); err != nil {
			t.Fatal(err)
		}
		p, answer := s.requestOf(i), flagged(s.reply(), "RA")
		answer.To = p.From
		f.Run(p.Bytes())
		f.Run(answer.Bytes())
		if got, want := isSuspended(f, server), i == 4; got != want {
			t.Errorf("reset %d: suspended %v", i, got)
		}
	}
	if got := s.told(t, server); got.Told[1] != 5 || got.Suspensions != 1 {
		t.Errorf("told %+v", got)
	}
}

// suspend marks the server as the program does.
func (s *selection) suspend(server *bpftest.Server) {
	s.t.Helper()
	load := s.Load(server)
	load.Unfit |= uint32(bpf.KernelUnfitUNFIT_SUSPENDED)
	now, err := s.Plane.Now()
	if err == nil {
		err = errors.Join(s.Plane.Loads.Put(server.Index, &load), s.Plane.Evidence.Put(server.Index, &bpf.KernelTestimony{Until: now + 1000}))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.EditServiceState(s.service, func(state *bpf.KernelServiceState) { state.SuspendedTick = now })
}

// No scheduler chooses a suspended server while others can be chosen; where all are
// suspended, all are tried again, as a trial foretells. Also what lblc remembers.
func TestSchedulersSkipTheSuspended(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	var hops []uint32
	eachScheduler(t, func(t *testing.T, scheduler director.Scheduler) {
		const fallback = bpf.KernelServiceFlagsSERVICE_FALLBACK
		s := newSelection(t, f, &hops, scheduler, false, fallback).with(9, 1, 2)
		s.spread(20, 5) // lblc and lblcr know some of them by now
		suspended := s.service.Servers[2]
		s.suspend(suspended)
		s.neverChosen(60, 10, func(server *bpftest.Server) bool { return server == suspended }, namesByHash(scheduler, fallback))
		if !isSuspended(f, suspended) {
			t.Error("it is suspended no more though others are there")
		}
		for _, server := range s.service.Servers {
			s.suspend(server)
		}
		f.Events()
		client, virtual := s.client(4000), s.virtual(77)
		before := s.state()
		tried := s.trial(client, virtual)
		if diff := cmp.Diff(before, s.state()); diff != "" || !isSuspended(f, suspended) || len(f.Events()) > 0 {
			t.Errorf("a trial changed: %s", diff)
		}
		got := s.open(client, virtual)
		if got == nil || got != tried && scheduler != director.TwoRandomChoices {
			t.Errorf("%s was chosen, tried was %s", name(got), name(tried))
		}
		if events := f.Events(); events["suspensions-lifted"] != 1 {
			t.Errorf("events %v", events)
		}
		for _, server := range s.service.Servers {
			if isSuspended(f, server) {
				t.Errorf("%s is suspended still", name(server))
			}
		}
	})
}

// A template is not followed to a suspended server.
func TestTemplateOfTheSuspended(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newPersistentScene(t, f, a, bpftest.TCP, nat, nat)
			s.watch(t, 1)
			first, second := s.service.Servers[0], s.service.Servers[1]
			p := s.requestFrom(0, 1)
			if got := s.connectionOf(t, p); got != first {
				t.Fatalf("on server %d", got.Index)
			}
			answer := flagged(s.reply(), "RA")
			answer.To = p.From
			f.Run(answer.Bytes())
			if !isSuspended(f, first) {
				t.Fatal("not suspended")
			}
			for host := 2; host < 4; host++ {
				if got := s.connectionOf(t, s.requestFrom(0, host)); got != second {
					t.Errorf("on server %d, want %d", got.Index, second.Index)
				}
			}
		})
	}
}

// What was pinned before evidence was counted gets its maps, and keeps all else.
func TestOpenAddsMaps(t *testing.T) {
	dir := bpftest.PinDir(t)
	p := open(t, dir, small)
	if err := errors.Join(p.Services.Put(uint32(3), &bpf.KernelService{Persistence: 7}), p.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{bpf.KernelMapEvidence, bpf.KernelMapPassive} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	p = open(t, dir, bpf.Limits{Services: 99, Servers: 99})
	defer func() {
		if err := p.Remove(); err != nil {
			t.Error(err)
		}
	}()
	var service bpf.KernelService
	if err := p.Services.Lookup(uint32(3), &service); err != nil || !p.Adopted || service.Persistence != 7 {
		t.Errorf("adopted %v, service %+v: %v", p.Adopted, service, err)
	}
	if got, want := p.Evidence.MaxEntries(), small.Servers; got != want {
		t.Errorf("evidence of %d servers, want %d", got, want)
	}
	if got, want := p.Passive.MaxEntries(), small.Services; got != want {
		t.Errorf("limits of %d services, want %d", got, want)
	}
}
