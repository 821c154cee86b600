package bpf_test

import (
	"testing"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

// What every scheduler keeps to.
func TestEveryScheduler(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	var hops []uint32
	eachScheduler(t, func(t *testing.T, scheduler director.Scheduler) {
		for _, v6 := range []bool{false, true} {
			fresh := func(t *testing.T, flags bpf.KernelServiceFlags) *selection {
				return newSelection(t, f, &hops, scheduler, v6, flags)
			}
			prefix := families[flag(v6)].name + "_"
			t.Run(prefix+"no_servers_are_no_server", func(t *testing.T) {
				s := fresh(t, 0).with()
				if server := s.open(s.client(1), s.virtual(1)); server != nil {
					t.Errorf("got %s", name(server))
				}
			})
			t.Run(prefix+"one_server_gets_all", func(t *testing.T) {
				s := fresh(t, 0).with(7)
				if _, refused := s.spread(20, 5); refused != 0 {
					t.Errorf("%d of 20 were refused", refused)
				}
			})
			t.Run(prefix+"weight_0_is_never_chosen", func(t *testing.T) {
				s := fresh(t, 0).with(0, 3, 0, 2)
				s.neverChosen(60, 10, func(server *bpftest.Server) bool { return server.Weight == 0 }, namesByHash(scheduler, 0))
			})
			t.Run(prefix+"all_of_weight_0_are_no_server", func(t *testing.T) {
				s := fresh(t, bpf.KernelServiceFlagsSERVICE_FALLBACK).with(0, 0, 0)
				if got, _ := s.spread(20, 5); len(got) != 0 {
					t.Errorf("chosen: %v", got)
				}
			})
			t.Run(prefix+"overloaded_is_not_chosen", func(t *testing.T) {
				s := fresh(t, 0).with(9, 1, 2)
				overloaded := s.service.Servers[2] // the heaviest, too
				s.SetLoad(overloaded, 0, 0, true)
				s.neverChosen(60, 10, func(server *bpftest.Server) bool { return server == overloaded }, namesByHash(scheduler, 0))
			})
			t.Run(prefix+"all_overloaded_are_no_server", func(t *testing.T) {
				s := fresh(t, bpf.KernelServiceFlagsSERVICE_FALLBACK).with(1, 2)
				for _, server := range s.service.Servers {
					s.SetLoad(server, 0, 0, true)
				}
				if got, _ := s.spread(20, 5); len(got) != 0 {
					t.Errorf("chosen: %v", got)
				}
				for _, server := range s.service.Servers {
					s.SetLoad(server, 0, 0, false)
				}
				if got, _ := s.spread(20, 5); len(got) == 0 {
					t.Error("none is chosen when they are not overloaded any more")
				}
			})
			t.Run(prefix+"edits_count_from_the_next_on", func(t *testing.T) {
				s := fresh(t, bpf.KernelServiceFlagsSERVICE_FALLBACK).with(1, 0)
				for _, only := range []int{1, 0, 1} { // positions: the last one added stands first
					for i, server := range s.service.Servers {
						server.Weight = uint32(flag(i == only))
					}
					s.Apply(s.service)
					// dh has no fallback: the addresses that the other one has are refused.
					for virtual := range 8 {
						got := s.visit(s.virtual(virtual))
						if got != s.service.Servers[only] && (got != nil || scheduler != director.DestinationHash) {
							t.Fatalf("%s was chosen, want %s", name(got), name(s.service.Servers[only]))
						}
					}
				}
			})
			t.Run(prefix+"a_removed_server_is_not_chosen", func(t *testing.T) {
				s := fresh(t, 0).with(1, 1, 1)
				s.spread(12, 6)
				s.service.Servers = s.service.Servers[1:]
				s.Apply(s.service)
				if _, refused := s.spread(24, 6); refused != 0 { // open fails where one is sent there
					t.Errorf("%d of 24 were refused", refused)
				}
			})
		}
	})
}

// neverChosen fails if one that must not is chosen, if the others are not, or if
// clients are refused by a scheduler that does not name a server by hash.
func (s *selection) neverChosen(visits, virtuals int, mustNot func(*bpftest.Server) bool, mayRefuse bool) {
	s.t.Helper()
	got, refused := s.spread(visits, virtuals)
	for server, n := range got {
		if mustNot(server) {
			s.t.Errorf("%s was chosen %d times", name(server), n)
		}
	}
	if len(got) == 0 {
		s.t.Error("none was chosen")
	}
	if refused != 0 && !mayRefuse {
		s.t.Errorf("%d of %d were refused", refused, visits)
	}
}

// A list may have director.MaxServers, which is the programs' MAX_SERVICE_SERVERS:
// the last one of it is found, and none of another service.
func TestEverySchedulerHasRoomForAllServers(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	var hops []uint32
	eachScheduler(t, func(t *testing.T, scheduler director.Scheduler) {
		s := newSelection(t, f, &hops, scheduler, false, bpf.KernelServiceFlagsSERVICE_FALLBACK)
		if inGuest && scheduler != director.WeightedLeastConnection && scheduler != director.WeightedRoundRobin {
			return // adding so many takes long there
		}
		weights := make([]uint32, director.MaxServers)
		for i := range weights {
			weights[i] = 1 + uint32(i)%7
		}
		s.with(weights...)
		if got, refused := s.spread(64, 64); len(got) == 0 || refused != 0 {
			t.Errorf("%d servers were chosen for 64 clients, %d clients refused", len(got), refused)
		}
		if namesByHash(scheduler, s.service.Flags) || scheduler == director.SourceHash {
			return // 256 buckets have no room for the last one
		}
		s = newSelection(t, f, &hops, scheduler, false, bpf.KernelServiceFlagsSERVICE_FALLBACK)
		clear(weights)
		weights[0] = 65535
		s.with(weights...)
		if got, refused := s.spread(8, 8); len(got) != 1 || refused != 0 {
			t.Errorf("%d servers were chosen, %d clients refused, want the last of the list for all 8", len(got), refused)
		}
	})
}

// wrr's state is where the kernel leaves it when every server is overloaded: in
// the middle of the list if it began in the middle of the last pass.
func TestWrrInVain(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	var hops []uint32
	for _, c := range []struct {
		name                     string
		position, weight         uint64
		wantPosition, wantWeight uint64
	}{
		{"at the head", 0, 65533, 0, 65533},
		{"in the middle, another pass to come", 2, 7, 0, 65533},
		{"in the middle of the last pass", 2, 1, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSelection(t, f, &hops, director.WeightedRoundRobin, false, 0).with(3, 65535, 6)
			for _, server := range s.service.Servers {
				s.SetLoad(server, 0, 0, true)
			}
			var k bpf.KernelService
			cursor := func() uint64 {
				t.Helper()
				if err := f.Plane.Services.Lookup(s.service.Index, &k); err != nil {
					t.Fatal(err)
				}
				return k.Cursor
			}
			half := cursor() & (1 << bpf.KernelCursorLayoutCURSOR_HALF)
			k.Cursor = half | c.position<<bpf.KernelCursorLayoutCURSOR_POSITION | c.weight
			if err := f.Plane.Services.Put(s.service.Index, &k); err != nil {
				t.Fatal(err)
			}
			if server := s.open(s.client(1), s.virtual(1)); server != nil {
				t.Errorf("%s was chosen", name(server))
			}
			if got, want := cursor(), half|c.wantPosition<<bpf.KernelCursorLayoutCURSOR_POSITION|c.wantWeight; got != want {
				t.Errorf("cursor %#x, want %#x", got, want)
			}
		})
	}
}
