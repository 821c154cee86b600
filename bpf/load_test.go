package bpf_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// loaded is the connection that the packet would begin, as it is loaded.
func (s *scene) loaded(p bpftest.Packet, server *bpftest.Server, state uint8, left time.Duration) bpf.KernelLoadEntry {
	return bpf.KernelLoadEntry{
		Client: bpf.Address(p.From.Addr()), ClientPort: bpf.Port(p.From.Port()),
		VirtualAddress: bpf.Address(p.To.Addr()), VirtualPort: bpf.Port(p.To.Port()),
		Server: server.Index, Left: s.Plane.Clock.Ticks(left),
		Protocol: s.protocol, State: state, Method: uint8(server.Method),
	}
}

// loadedTemplate is the template of the packet's client network.
func (s *scene) loadedTemplate(p bpftest.Packet, server *bpftest.Server, left time.Duration) bpf.KernelLoadEntry {
	return bpf.KernelLoadEntry{
		Client: bpf.Address(s.network(p)), VirtualAddress: [4]uint32{s.service.Index},
		Server: server.Index, Left: s.Plane.Clock.Ticks(left),
		Protocol: uint8(bpf.KernelTemplateLayoutPROTOCOL_TEMPLATE),
		State:    uint8(bpf.KernelConnStateSTATE_TEMPLATE), Method: uint8(server.Method),
	}
}

// load loads the connections and compares what became of them.
func (s *scene) load(t *testing.T, entries []bpf.KernelLoadEntry, want ...bpf.KernelLoadResult) {
	t.Helper()
	if err := s.Plane.Load(s.isV6(), entries); err != nil {
		t.Fatal(err)
	}
	var got []bpf.KernelLoadResult
	for _, e := range entries {
		got = append(got, bpf.KernelLoadResult(e.Result))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
}

const (
	loadDone  = bpf.KernelLoadResultLOAD_DONE
	loadKnown = bpf.KernelLoadResultLOAD_KNOWN
)

// settledState is that of a connection in full use.
func settledState(protocol uint8) uint8 {
	if protocol == bpftest.TCP {
		return established
	}
	return stateUDP
}

// later is a packet of the client's in a connection, and back one of the server's.
func (s *scene) later() (request, back bpftest.Packet) {
	request, back = s.request(), s.reply()
	request.Payload, back.Payload = []byte("more"), []byte("and more!")
	if s.protocol == bpftest.TCP {
		request.Flags, request.Seq, request.Ack = "A", 1001, 5001
		back.Flags, back.Seq, back.Ack = "A", 5001, 1005
	}
	return request, back
}

// A loaded connection's packets go both ways from the first one on, and its state
// goes on from where it was.
func TestLoad(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachScene(t, f, func(t *testing.T, s *scene) {
		state, server := settledState(s.protocol), s.service.Servers[0]
		e := s.loaded(s.request(), server, state, time.Minute)
		e.Flags = uint8(bpf.KernelLoadFlagsLOAD_PROVEN)
		s.load(t, []bpf.KernelLoadEntry{e}, loadDone)
		diffEntries(t, f, s.both(state, true)...)
		diffLoads(t, f, server)
		s.diffTraffic(t, bpf.KernelTraffic{}) // it is no new connection
		request, back := s.later()
		learned := one("hop-changed") // nobody could say where the client's packets come from
		for range 3 {
			run(t, f, request.Bytes(), sent(forwarded(request, s.server)), learned)
			learned = nil
			run(t, f, back.Bytes(), sent(returned(back, s.virtual)), nil)
		}
		if s.protocol == bpftest.UDP {
			diffEntries(t, f, s.both(state, true)...)
			return
		}
		request.Flags, back.Flags = "FA", "FA"
		run(t, f, request.Bytes(), sent(forwarded(request, s.server)), nil)
		diffEntries(t, f, s.both(uint8(bpf.KernelConnStateSTATE_CLOSE_WAIT), true)...)
		run(t, f, back.Bytes(), sent(returned(back, s.virtual)), nil)
		diffEntries(t, f, s.both(uint8(bpf.KernelConnStateSTATE_TIME_WAIT), true)...)
		diffLoads(t, f, server)
	})
	t.Run("dr", func(t *testing.T) {
		for _, a := range families {
			for _, protocol := range protocols {
				s := newScene(t, f, a, protocol.number, dr)
				state, server := settledState(s.protocol), s.service.Servers[0]
				s.load(t, []bpf.KernelLoadEntry{s.loaded(s.request(), server, state, time.Minute)}, loadDone)
				diffEntries(t, f, s.entry(state, false))
				request, _ := s.later()
				run(t, f, request.Bytes(), sent(routed(request)), nil)
				diffLoads(t, f, server)
			}
		}
	})
	t.Run("wide", func(t *testing.T) {
		eachWide(t, f, func(t *testing.T, s *scene) {
			state := settledState(s.protocol)
			e := s.loaded(s.request(), s.service.Servers[0], state, time.Minute)
			e.Flags = uint8(bpf.KernelLoadFlagsLOAD_PROVEN)
			s.load(t, []bpf.KernelLoadEntry{e}, loadDone)
			diffEntries(t, f, s.wideBoth(state, true)...)
			request, back := s.later()
			run(t, f, request.Bytes(), sent(forwarded(request, s.server)), one("hop-changed"))
			run(t, f, back.Bytes(), sent(returned(back, s.virtual)), nil)
		})
	})
}

// The reply may come first: its client's next hop is not known, and it goes by the route.
func TestLoadedReplyGoesByTheRoute(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	var err error
	f.Do(func() { err = addRoutes() })
	if err != nil {
		t.Fatal(err)
	}
	eachScene(t, f, func(t *testing.T, s *scene) {
		e := s.loaded(s.request(), s.service.Servers[0], settledState(s.protocol), time.Minute)
		e.Flags = uint8(bpf.KernelLoadFlagsLOAD_PROVEN)
		s.load(t, []bpf.KernelLoadEntry{e}, loadDone)
		request, back := s.later()
		want := returned(back, s.virtual)
		want.Source, want.Destination = bpftest.DirectorInside, bpftest.OtherRouterMAC
		run(t, f, back.Bytes(), bpftest.Result{Action: bpftest.Redirect, Packet: want.Bytes()}, one("by-route"))
		run(t, f, request.Bytes(), sent(forwarded(request, s.server)), one("hop-changed"))
		run(t, f, back.Bytes(), sent(returned(back, s.virtual)), nil)
	})
}

// Every state counts as it does elsewhere, and has the time left that it is loaded with,
// but for the second after which a packet is looked at.
func TestLoadedExpiry(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 16}) // small: it is aged and cleared often
	for _, a := range families {
		for state, timeout := range bpftest.Timeouts {
			t.Run(fmt.Sprint(a.name, "/", state), func(t *testing.T) {
				protocol := bpftest.TCP
				if state == bpf.KernelConnStateSTATE_UDP {
					protocol = bpftest.UDP
				}
				for _, left := range []time.Duration{0, timeout / 2, timeout, 10 * timeout} {
					s := newScene(t, f, a, protocol, nat)
					begin := now(t, f)
					s.load(t, []bpf.KernelLoadEntry{s.loaded(s.request(), s.service.Servers[0], uint8(state), left)}, loadDone)
					end := now(t, f)
					idle := f.Plane.Clock.Ticks(timeout) - f.Plane.Clock.Ticks(min(left, timeout))
					if second := f.Plane.Clock.Ticks(time.Second); f.Plane.Clock.Ticks(timeout) > 2*second {
						idle = max(idle, second)
					}
					diffEntries(t, f, s.both(uint8(state), false)...)
					for _, e := range f.Entries() {
						if seen := e.Seen + idle; int32(seen-begin) < 0 || int32(end-seen) < 0 {
							t.Errorf("%s left: last seen at tick %d, %d idle ticks before %d to %d", left, e.Seen, idle, begin, end)
						}
					}
					diffLoads(t, f, s.service.Servers...)
					f.Age(f.Plane.Clock.Ticks(left) + 1)
					if f.Sweep(); left <= timeout && len(f.Entries()) != 0 {
						t.Errorf("%s left: still there after that", left)
					}
					diffLoads(t, f, s.service.Servers...)
				}
			})
		}
	}
}

// More than one run of the program takes.
func TestLoadMany(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		s := newScene(t, f, a, bpftest.TCP, nat, dr)
		var entries []bpf.KernelLoadEntry
		var want, again []bpf.KernelLoadResult
		for i := range 3*bpf.LoadBatch + 7 {
			entries = append(entries, s.loaded(s.requestOf(i), s.service.Servers[i%2], established, time.Minute))
			want, again = append(want, loadDone), append(again, loadKnown)
		}
		s.load(t, entries, want...)
		diffPairs(t, f)
		diffLoads(t, f, s.service.Servers...)
		s.load(t, entries, again...)
		diffLoads(t, f, s.service.Servers...)
	}
}

// A loaded template leads new connections, and counts those that are loaded under
// it, without more time for their sake.
func TestLoadTemplate(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	eachPersistent(t, f, func(t *testing.T, s *scene) {
		first, second := s.service.Servers[0], s.service.Servers[1]
		const left = persistence / 2
		old := s.requestFrom(1, 1)
		state := settledState(s.protocol)
		under := s.loaded(old, second, state, time.Minute)
		under.Flags = uint8(bpf.KernelLoadFlagsLOAD_CONTROLLED | bpf.KernelLoadFlagsLOAD_PROVEN)
		elsewhere := s.loaded(s.requestFrom(1, 2), first, state, time.Minute)
		elsewhere.Flags = uint8(bpf.KernelLoadFlagsLOAD_CONTROLLED)
		s.load(t, []bpf.KernelLoadEntry{s.loadedTemplate(old, second, left)}, loadDone)
		template := s.templates()[s.network(old)]
		if template.Proven || template.Controlled != 0 || template.Server != second.Index {
			t.Errorf("loaded: %+v", template)
		}
		s.load(t, []bpf.KernelLoadEntry{s.loadedTemplate(old, first, left), under, elsewhere}, loadKnown, loadDone, loadDone)
		after := s.templates()[s.network(old)]
		if !after.Proven || after.Controlled != 1 || after.Seen != template.Seen || after.Server != second.Index {
			t.Errorf("with a connection: %+v, before %+v", after, template)
		}
		s.diffTemplates(t)
		diffLoads(t, f, s.service.Servers...)
		diffPairs(t, f)
		for host := 3; host < 6; host++ {
			if got := s.connectionOf(t, s.requestFrom(1, host)); got != second {
				t.Errorf("host %d is on server %d, want the template's %d", host, got.Index, second.Index)
			}
		}
		if got := s.connectionOf(t, s.requestFrom(2, 1)); got != first {
			t.Errorf("a client of another network is on server %d, want rr's first, %d", got.Index, first.Index)
		}
		s.diffTemplates(t)
		s.SweepTemplates(bpf.KernelSweepTemplatesTEMPLATES_BEGUN)
		s.SweepTemplates(bpf.KernelSweepTemplatesTEMPLATES_COUNTED)
		s.SweepTemplates(bpf.KernelSweepTemplatesTEMPLATES_COUNTED)
		if healed := f.Events()["template-healed"]; healed != 0 {
			t.Errorf("%d templates had a wrong count", healed)
		}
		s.diffTemplates(t)
	})
	t.Run("expiry", func(t *testing.T) {
		s := newPersistentScene(t, f, families[0], bpftest.TCP, dr, dr)
		p := s.requestFrom(1, 1)
		s.load(t, []bpf.KernelLoadEntry{s.loadedTemplate(p, s.service.Servers[1], time.Minute)}, loadDone)
		f.AgeBy(30 * time.Second)
		if f.Sweep(); len(s.templates()) != 1 {
			t.Error("gone before its time")
		}
		f.AgeBy(31 * time.Second)
		if f.Sweep(); len(s.templates()) != 0 {
			t.Error("there after its time")
		}
		s.diffTemplates(t)
	})
	t.Run("refused connection", func(t *testing.T) {
		s := newPersistentScene(t, f, families[0], bpftest.TCP, dr, dr)
		p := s.requestFrom(1, 1)
		s.connectionOf(t, p)
		known := s.loaded(p, s.service.Servers[0], established, time.Minute)
		known.Flags = uint8(bpf.KernelLoadFlagsLOAD_CONTROLLED | bpf.KernelLoadFlagsLOAD_PROVEN)
		s.load(t, []bpf.KernelLoadEntry{known}, loadKnown)
		s.diffTemplates(t)
		if s.templates()[s.network(p)].Proven {
			t.Error("a connection that was not loaded proved its template")
		}
	})
}

// Packets of the connections that are being loaded, on another CPU: whoever makes
// one, it is one, and counted once.
func TestLoadBesidePackets(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, a := range families {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(t, f, a, bpftest.TCP, nat)
			server := s.service.Servers[0]
			n := bpftest.Rounds(2000)
			entries := make([]bpf.KernelLoadEntry, n)
			frames := make([][]byte, n)
			for i := range n {
				p := s.requestOf(i)
				frames[i] = p.Bytes()
				entries[i] = s.loaded(p, server, established, time.Minute)
			}
			var wait sync.WaitGroup
			wait.Go(func() {
				for i := range frames { // towards one another: they meet in the middle
					if _, err := bpftest.Run(f.Plane.ShuntRoot, loopback, frames[n-1-i]); err != nil {
						t.Error(err)
						return
					}
				}
			})
			if err := f.Plane.Load(a.isV6(), entries); err != nil {
				t.Error(err)
			}
			wait.Wait()
			results := map[uint32]int{}
			for _, e := range entries {
				results[e.Result]++
			}
			if results[uint32(loadDone)]+results[uint32(loadKnown)] != n {
				t.Errorf("results: %v, want %d loaded or known", results, n)
			}
			if got := len(f.Entries()); got != 2*n {
				t.Errorf("%d keys, want %d", got, 2*n)
			}
			diffPairs(t, f)
			diffLoads(t, f, server)
			diffStrays(t, f)
		})
	}
}
