package bpf_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// remembered is what the cache has for a virtual address, newest first.
func (s *selection) remembered(virtual netip.AddrPort) []*bpftest.Server {
	s.t.Helper()
	entries, err := s.Plane.DestinationEntries()
	if err != nil {
		s.t.Fatal(err)
	}
	var found []*bpftest.Server
	for _, e := range entries {
		if e.Key.Service != s.service.Index || e.Key.Address != bpf.Address(virtual.Addr()) {
			continue
		}
		for _, index := range e.Servers() {
			found = append(found, s.Server(index))
		}
	}
	return found
}

// eachLocality runs a test for lblc and lblcr, with one service of three servers of
// which the last has been chosen for virtual address 1.
func eachLocality(t *testing.T, f *bpftest.Fixture, test func(t *testing.T, s *selection, scheduler director.Scheduler)) {
	t.Helper()
	var hops []uint32
	for _, scheduler := range []director.Scheduler{director.LocalityLC, director.LocalityLCReplicated} {
		t.Run(string(scheduler), func(t *testing.T) {
			s := newSelection(t, f, &hops, scheduler, false, 0).with(10, 10, 10)
			for i, server := range s.service.Servers {
				s.SetLoad(server, int64(2-i), 0, false)
			}
			if got := s.open(s.client(900), s.virtual(1)); got != s.service.Servers[2] {
				t.Fatalf("%s was chosen first", name(got))
			}
			test(t, s, scheduler)
		})
	}
}

// A virtual address keeps its server until that has more active connections than its
// weight while another has fewer than half of its own.
func TestLocality(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachLocality(t, f, func(t *testing.T, s *selection, scheduler director.Scheduler) {
		first, second, last := s.service.Servers[0], s.service.Servers[1], s.service.Servers[2]
		for n, c := range []struct {
			rule    string
			active  [3]int64 // of first, second, last
			isOver  bool     // last is overloaded by its thresholds
			want    *bpftest.Server
			members []*bpftest.Server // lblcr's
		}{
			{"not the least loaded, but not busy", [3]int64{0, 0, 10}, false, last, []*bpftest.Server{last}},
			{"busy, and nobody idle", [3]int64{5, 5, 11}, false, last, []*bpftest.Server{last}},
			{"busy, and one half idle", [3]int64{5, 4, 11}, false, second, []*bpftest.Server{second, last}},
			{"lblcr goes back to the less loaded member", [3]int64{5, 9, 6}, false, last, []*bpftest.Server{second, last}},
			// lblc has forgotten it by now: its server is the second still.
			{"overload counts for members only", [3]int64{5, 9, 0}, true, second, []*bpftest.Server{second, last}},
			{"the one that is not busy joins", [3]int64{4, 11, 0}, true, first, []*bpftest.Server{first, second, last}},
		} {
			for i, server := range s.service.Servers {
				s.SetLoad(server, c.active[i], 0, c.isOver && server == last)
			}
			want, members := c.want, c.members
			if scheduler == director.LocalityLC {
				if n == 3 {
					want = second
				}
				members = []*bpftest.Server{want}
			}
			if got := s.open(s.client(n), s.virtual(1)); got != want {
				t.Errorf("%s: %s was chosen, want %s", c.rule, name(got), name(want))
			}
			if got := s.remembered(s.virtual(1)); !slices.Equal(got, members) {
				t.Errorf("%s: %d members, want %d", c.rule, len(got), len(members))
			}
		}
	})
}

// lblc looks at weight and presence of the server it remembers, not at its overload.
func TestLocalityOfAServerThatChanges(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachLocality(t, f, func(t *testing.T, s *selection, scheduler director.Scheduler) {
		last := s.service.Servers[2]
		s.SetLoad(last, 0, 0, true)
		if got := s.open(s.client(1), s.virtual(1)); (got == last) != (scheduler == director.LocalityLC) {
			t.Errorf("overloaded: %s was chosen", name(got))
		}
		last.Weight = 0
		s.Apply(s.service)
		if got := s.open(s.client(2), s.virtual(1)); got == last || got == nil {
			t.Errorf("of weight 0: %s was chosen", name(got))
		}
		gone := s.remembered(s.virtual(1))[0]
		s.service.Servers = slices.DeleteFunc(s.service.Servers, func(server *bpftest.Server) bool { return server == gone })
		s.Apply(s.service)
		if got := s.open(s.client(3), s.virtual(1)); got == nil {
			t.Error("removed: none was chosen") // open fails where it is the removed one
		}
	})
}

// A server whose index another service has by now is not what is remembered.
func TestLocalityIsOfOneService(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachLocality(t, f, func(t *testing.T, s *selection, _ director.Scheduler) {
		last := s.service.Servers[2]
		s.service.Servers = s.service.Servers[:2]
		s.Apply(s.service)
		var k bpf.KernelServer
		if err := f.Plane.Servers.Lookup(last.Index, &k); err != nil {
			t.Fatal(err)
		}
		k.Service, k.Life = s.service.Index+1, uint8(bpf.KernelLifecycleLIFE_LIVE)
		if err := f.Plane.Servers.Put(last.Index, &k); err != nil {
			t.Fatal(err)
		}
		if got := s.open(s.client(1), s.virtual(1)); got == nil || got == last {
			t.Errorf("%s was chosen", name(got))
		}
	})
}

// A pick that cannot be remembered stands, and is counted.
func TestLocalityWithoutRoom(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	eachLocality(t, f, func(t *testing.T, s *selection, _ director.Scheduler) {
		var key bpf.KernelDestinationKey
		for full := false; !full; {
			key.Address[3]++
			full = f.Plane.Destinations.Put(&key, &bpf.KernelDestination{Count: 1}) != nil
		}
		f.Events()
		if got := s.open(s.client(1), s.virtual(2)); got != s.service.Servers[1] { // by its load
			t.Errorf("%s was chosen", name(got))
		}
		if diff := cmp.Diff(uint64(1), f.Events()["destinations-full"]); diff != "" {
			t.Errorf("destinations-full (-want +got):\n%s", diff)
		}
		if got := s.open(s.client(2), s.virtual(1)); got != s.service.Servers[2] {
			t.Errorf("%s was chosen for what was remembered before", name(got))
		}
		s.ForgetDestinations()
	})
}

// The oldest member leaves a full set for another.
func TestSetIsBounded(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	var hops []uint32
	weights := make([]uint32, scheduler.FastPathSetLimit+3)
	for i := range weights {
		weights[i] = 4
	}
	s := newSelection(t, f, &hops, director.LocalityLCReplicated, false, 0).with(weights...)
	var want []*bpftest.Server
	for n := range weights {
		server := s.open(s.client(n), s.virtual(1))
		if server == nil || slices.Contains(want, server) {
			t.Fatalf("pick %d: %s", n, name(server))
		}
		want = slices.Insert(want, 0, server)
		s.SetLoad(server, 5, 0, false) // busy, while others are idle
	}
	want = want[:scheduler.FastPathSetLimit]
	if got := s.remembered(s.virtual(1)); !slices.Equal(got, want) {
		t.Errorf("%d members, want the %d newest", len(got), len(want))
	}
}
