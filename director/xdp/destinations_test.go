package xdp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

// What goes at a review, by the kernel's rules.
func TestForgotten(t *testing.T) {
	clock := newRig(t, Options{}).plane.Clock
	const tick = 5 // so that older entries are from before the ticks' zero
	entries := func(groups map[time.Duration]int) (all []bpf.DestinationEntry) {
		for idle, n := range groups {
			for range n {
				all = append(all, bpf.DestinationEntry{
					Key: bpf.KernelDestinationKey{Service: 1, Address: [4]uint32{uint32(len(all))}}, Value: bpf.KernelDestination{Used: tick - clock.Ticks(idle)},
				})
			}
		}
		return all
	}
	for _, test := range []struct {
		name      string
		groups    map[time.Duration]int // how many by how long they are idle
		quiet     int
		want      map[time.Duration]int
		wantQuiet int
	}{
		{"few_stay", map[time.Duration]int{0: 10, 25 * time.Hour: 5}, 3, nil, 4},
		{"once_in_thirty_the_expired_go", map[time.Duration]int{0: 10, 23 * time.Hour: 7, 25 * time.Hour: 5}, 29, map[time.Duration]int{25 * time.Hour: 5}, 0},
		{"not_before", map[time.Duration]int{25 * time.Hour: 5}, 28, nil, 29},
		{"at_the_limit", map[time.Duration]int{time.Hour: 16384}, 3, nil, 4},
		{
			"beyond_it_four_thirds_of_the_rest",
			map[time.Duration]int{0: 10000, time.Hour: 6684, 2 * time.Hour: 100},
			3,
			map[time.Duration]int{2 * time.Hour: 100, time.Hour: 433},
			3, // (16784 - 16384) * 4 / 3 = 533
		},
		{"but_none_that_is_in_use", map[time.Duration]int{5 * time.Minute: 17000, 7 * time.Minute: 3}, 3, map[time.Duration]int{7 * time.Minute: 3}, 3},
		{"half_of_the_limit_at_most", map[time.Duration]int{time.Hour: 24000}, 3, map[time.Duration]int{time.Hour: 8192}, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			gone, quiet := forgotten(entries(test.groups), tick, clock, test.quiet)
			if quiet != test.wantQuiet {
				t.Errorf("%d quiet reviews, want %d", quiet, test.wantQuiet)
			}
			got := map[uint32]int{}
			for i := range gone {
				got[gone[i].Value.Used]++
			}
			for idle, want := range test.want {
				used := tick - clock.Ticks(idle)
				if got[used] != want {
					t.Errorf("%d that are idle for %v go, want %d", got[used], idle, want)
				}
				delete(got, used)
			}
			if len(got) > 0 {
				t.Errorf("others go: %v", got)
			}
		})
	}
}

// All entries are read, however many system calls that takes.
func TestDestinationEntries(t *testing.T) {
	r := newRig(t, Options{})
	const count = 5000
	keys, values := make([]bpf.KernelDestinationKey, count), make([]bpf.KernelDestination, count)
	for i := range keys {
		keys[i] = bpf.KernelDestinationKey{Service: 3, Address: [4]uint32{uint32(i)}}
		values[i].Count, values[i].Servers = 2, [32]uint32{uint32(i), 9, 7}
	}
	if _, err := r.plane.Destinations.BatchUpdate(keys, values, nil); err != nil {
		t.Fatal(err)
	}
	entries, err := r.plane.DestinationEntries()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]bool{}
	for i := range entries {
		address := entries[i].Key.Address[0]
		if got := entries[i].Servers(); len(got) != 2 || got[0] != address || got[1] != 9 {
			t.Fatalf("entry of %d names %v", address, got)
		}
		seen[address] = true
	}
	if len(entries) != count || len(seen) != count {
		t.Errorf("%d entries of %d addresses, want %d", len(entries), len(seen), count)
	}
}

// lblc's memory of a service ends with the service and with the scheduler; a server
// that it names keeps its index.
func TestDestinations(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.LocalityLC, director.SchedulerFlags{})
	other := testService(director.LocalityLCReplicated, director.SchedulerFlags{})
	other.Key.Address, other.Name = netip.MustParseAddrPort("192.0.2.2:80"), "other"
	all := []director.Operation{
		director.AddService{Service: service},
		director.AddServer{Key: service.Key, Server: local(1, 1)},
		director.AddServer{Key: service.Key, Server: local(2, 1)},
		director.AddService{Service: other},
		director.AddServer{Key: other.Key, Server: local(1, 1)},
	}
	r.must(all...)
	client := netip.MustParseAddrPort("198.51.100.9:4000")
	remembered := func() map[uint32]int {
		t.Helper()
		entries, err := r.plane.DestinationEntries()
		if err != nil {
			t.Fatal(err)
		}
		of := map[uint32]int{}
		for i := range entries {
			of[entries[i].Key.Service]++
		}
		return of
	}
	expect := func(when string, first, second int) {
		t.Helper()
		if got := remembered(); got[1] != first || got[2] != second {
			t.Errorf("%s: remembered by service %v, want %d and %d", when, got, first, second)
		}
	}
	named, _ := r.syn(client, service.Key.Address)
	r.syn(client, other.Key.Address)
	expect("picked", 1, 1)
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
		t.Fatal(err)
	}
	review := func() {
		t.Helper()
		r.destinations.reviewed = time.Time{}
		r.sweepNow()
	}
	r.must(director.RemoveServer{Key: service.Key, Address: named})
	review()
	if r.model.byKey[service.Key].members[named] == nil {
		t.Error("the index of a server that lblc remembers was freed")
	}
	service.Scheduler = director.RoundRobin
	r.must(director.EditService{Service: service})
	expect("another scheduler", 0, 1)
	review()
	if r.model.byKey[service.Key].members[named] != nil {
		t.Error("the index of a server that nothing remembers is kept")
	}
	stray := bpf.KernelDestinationKey{Service: 7, Address: [4]uint32{1}}
	if err := r.plane.Destinations.Put(stray, &bpf.KernelDestination{}); err != nil {
		t.Fatal(err)
	}
	review()
	if got := remembered(); got[7] != 0 || got[2] != 1 {
		t.Errorf("after a review: %v, want nothing of a service that is not there", got)
	}
	r.must(director.RemoveService{Key: other.Key})
	expect("removed", 0, 0)
	r.sweepNow()
	if len(r.model.servers) != 1 {
		t.Errorf("%d servers have an index, want 1", len(r.model.servers))
	}
}
