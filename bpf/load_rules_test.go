package bpf_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// What is there stays as it is, unless it has expired; what cannot be is refused and
// leaves nothing.
func TestLoadRefusals(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	eachScene(t, f, func(t *testing.T, s *scene) {
		server, state := s.service.Servers[0], settledState(s.protocol)
		s.establish(t)
		before := f.Entries()
		again := s.loaded(s.request(), server, uint8(bpf.KernelConnStateSTATE_TIME_WAIT), time.Second)
		s.load(t, []bpf.KernelLoadEntry{again, again}, loadKnown, loadKnown)
		if diff := cmp.Diff(before, f.Entries(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("what was there (-before +after):\n%s", diff)
		}
		f.AgeBy(time.Hour)
		s.load(t, []bpf.KernelLoadEntry{s.loaded(s.request(), server, state, time.Minute)}, loadDone)
		diffEntries(t, f, s.both(state, false)...)
		diffLoads(t, f, server)

		// Another service's connection has the reply key.
		second := f.Apply(&bpftest.Service{Listen: s.secondVirtual, Protocol: s.protocol, Servers: []*bpftest.Server{
			{Address: s.server, Weight: 1, Hop: server.Hop},
		}})
		p := s.request()
		p.To = s.secondVirtual
		colliding := s.loaded(p, second.Servers[0], state, time.Minute)
		s.load(t, []bpf.KernelLoadEntry{colliding}, bpf.KernelLoadResultLOAD_COLLISION)
		diffEntries(t, f, s.both(state, false)...)
		f.AgeBy(time.Hour) // an expired one has it no more
		s.load(t, []bpf.KernelLoadEntry{colliding}, loadDone)
		diffPairs(t, f)
		diffLoads(t, f, server, second.Servers[0])

		f.RemoveService(second)
		p.From = s.other
		gone := s.loaded(p, second.Servers[0], state, time.Minute)
		none := gone
		none.Server = 4000 // an index that nobody has
		s.load(t, []bpf.KernelLoadEntry{gone, none}, bpf.KernelLoadResultLOAD_NO_SERVER, bpf.KernelLoadResultLOAD_NO_SERVER)
		diffPairs(t, f)
	})
	t.Run("no room", func(t *testing.T) {
		s := newScene(t, f, families[0], bpftest.TCP, dr)
		server := s.service.Servers[0]
		var entries []bpf.KernelLoadEntry
		var want []bpf.KernelLoadResult
		for i, p := range s.crowd(t, places+1) {
			e := s.loaded(p, server, established, time.Minute)
			e.Flags = uint8(bpf.KernelLoadFlagsLOAD_PROVEN)
			entries = append(entries, e)
			if want = append(want, loadDone); i == places {
				want[i] = bpf.KernelLoadResultLOAD_NO_ROOM
			}
		}
		s.load(t, entries, want...)
		diffLoads(t, f, server)
		// What is loaded is not given up for what is loaded with it, proven or not.
		f.Clear()
		s = newScene(t, f, families[0], bpftest.TCP, dr)
		server = s.service.Servers[0]
		for i := range entries {
			entries[i].Server, entries[i].Flags = server.Index, 0
			entries[i].VirtualAddress = bpf.Address(s.virtual.Addr())
		}
		entries[places].Flags = uint8(bpf.KernelLoadFlagsLOAD_PROVEN)
		f.Events()
		s.load(t, entries, want...)
		if diff := cmp.Diff(one(), f.Events()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if got := len(f.Entries()); got != places {
			t.Errorf("%d connections are there, want the %d loaded", got, places)
		}
		// But an unproven one of packets' own making is, for the load, and one that was
		// loaded for a packet, as ever.
		diffLoads(t, f, server)
		diffStrays(t, f)
		s = newScene(t, f, families[0], bpftest.TCP, dr)
		server = s.service.Servers[0]
		crowd := s.crowd(t, places+2)
		run(t, f, crowd[0].Bytes(), sent(routed(crowd[0])), nil)
		entries = nil
		for _, p := range crowd[1 : places+1] {
			entries = append(entries, s.loaded(p, server, established, time.Minute))
		}
		f.Events()
		want[places] = loadDone
		s.load(t, entries, want[1:]...)
		if diff := cmp.Diff(one("evicted"), f.Events()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		run(t, f, crowd[places+1].Bytes(), sent(routed(crowd[places+1])), one("evicted"))
		diffLoads(t, f, server)
		diffStrays(t, f)
	})
}

// A connection that has ended makes way for one of the same server and client port
// that has not, and is not missed where it comes second; of two that live, the first
// one stays, and so does one of packets' own making.
func TestLoadCollisions(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	const timeWait, closed = uint8(bpf.KernelConnStateSTATE_TIME_WAIT), uint8(bpf.KernelConnStateSTATE_CLOSE)
	const collision, over = bpf.KernelLoadResultLOAD_COLLISION, bpf.KernelLoadResultLOAD_OVER
	for _, a := range families {
		for _, test := range []struct {
			name          string
			first, second uint8
			want          bpf.KernelLoadResult
			stays         bool
		}{
			{"living", established, established, collision, true},
			{"closing", uint8(bpf.KernelConnStateSTATE_LAST_ACK), established, collision, true},
			{"over", timeWait, established, loadDone, false},
			{"closed", closed, uint8(bpf.KernelConnStateSTATE_SYN_RECV), loadDone, false},
			{"over second", established, timeWait, over, true},
			{"both over", timeWait, closed, over, true},
		} {
			t.Run(a.name+"/"+test.name, func(t *testing.T) {
				s := newScene(t, f, a, bpftest.TCP, nat)
				server := s.service.Servers[0]
				second := f.Apply(&bpftest.Service{Listen: s.secondVirtual, Protocol: s.protocol, Servers: []*bpftest.Server{
					{Address: s.server, Weight: 1, Hop: server.Hop},
				}})
				p := s.request()
				p.To = s.secondVirtual
				s.load(t, []bpf.KernelLoadEntry{
					s.loaded(s.request(), server, test.first, time.Second), s.loaded(p, second.Servers[0], test.second, time.Second),
				}, loadDone, test.want)
				diffPairs(t, f)
				diffLoads(t, f, server, second.Servers[0])
				for _, e := range f.Entries() {
					if (e.Server == server.Index) != test.stays {
						t.Errorf("there is %+v, the first one is to stay: %t", e, test.stays)
					}
				}
				f.RemoveService(second)
			})
		}
	}
}

// What is loaded again has the state of then, until packets have moved it on.
func TestLoadCatchesUp(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	const finWait, timeWait = uint8(bpf.KernelConnStateSTATE_FIN_WAIT), uint8(bpf.KernelConnStateSTATE_TIME_WAIT)
	eachScene(t, f, func(t *testing.T, s *scene) {
		if s.protocol != bpftest.TCP {
			return
		}
		server := s.service.Servers[0]
		again := func(state uint8, left time.Duration) {
			t.Helper()
			s.load(t, []bpf.KernelLoadEntry{s.loaded(s.request(), server, state, left)}, loadKnown)
		}
		s.load(t, []bpf.KernelLoadEntry{s.loaded(s.request(), server, uint8(bpf.KernelConnStateSTATE_SYN_RECV), time.Second)}, loadDone)
		proven := s.loaded(s.request(), server, established, bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED]-30*time.Second)
		proven.Flags = uint8(bpf.KernelLoadFlagsLOAD_PROVEN)
		s.load(t, []bpf.KernelLoadEntry{proven}, loadKnown)
		diffEntries(t, f, s.both(established, true)...)
		diffLoads(t, f, server)
		again(finWait, bpftest.Timeouts[bpf.KernelConnStateSTATE_FIN_WAIT]-10*time.Second)
		diffEntries(t, f, s.both(finWait, true)...)
		diffLoads(t, f, server)
		f.AgeBy(100 * time.Second)
		if f.Sweep(); len(f.Entries()) != 2 {
			t.Error("gone before its time")
		}
		f.AgeBy(20 * time.Second)
		if f.Sweep(); len(f.Entries()) != 0 {
			t.Error("still there after the time of its new state")
		}

		s.load(t, []bpf.KernelLoadEntry{proven}, loadDone)
		request, back := s.later()
		request.Flags = "FA"
		run(t, f, request.Bytes(), sent(forwarded(request, s.server)), one("hop-changed"))
		back.Flags = "FA"
		run(t, f, back.Bytes(), sent(returned(back, s.virtual)), nil)
		again(established, time.Minute)
		diffEntries(t, f, s.both(timeWait, true)...)
		diffLoads(t, f, server)

		s = newScene(t, f, s.family, s.protocol, nat)
		server = s.service.Servers[0]
		s.establish(t) // here
		again(finWait, time.Minute)
		diffEntries(t, f, s.both(established, true)...)
		diffLoads(t, f, server)
	})
}
