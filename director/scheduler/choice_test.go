package scheduler_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// picks asks a model n times and returns the last byte of the chosen servers'
// addresses, 0 where there is none.
func picks(m scheduler.Model, loads scheduler.Loads, n int) []int {
	var got []int
	for range n {
		server, ok := m.Pick(client("192.0.2.1"), vip4, loads)
		if !ok {
			got = append(got, 0)
			continue
		}
		got = append(got, int(server.Addr().AsSlice()[3]))
	}
	return got
}

// What wrr's cursor does around overloaded servers, worked out by hand from the
// kernel's loop. The list is .2 of weight 4, then .1 of weight 1.
func TestWeightedRoundRobinOverload(t *testing.T) {
	list := entries(1, 4)
	heavy, light := list[0].Address, list[1].Address
	overloaded := func(servers ...netip.AddrPort) scheduler.Loads {
		loads := make(scheduler.Loads)
		for _, s := range servers {
			loads[s] = scheduler.Load{Overloaded: true}
		}
		return loads
	}
	type run struct {
		loads scheduler.Loads
		want  []int
	}
	for name, runs := range map[string][]run{
		"the_light_one_alone_then_the_heavy_from_its_greatest_weight": {
			{overloaded(heavy), []int{1, 1, 1}},
			{nil, []int{2, 2, 2, 2, 1, 2, 2, 2, 2, 1}},
		},
		"refused_after_the_light_one_stays_there_at_the_lowest_weight": {
			{overloaded(heavy), []int{1}},
			{overloaded(heavy, light), []int{0, 0}},
			{overloaded(heavy), []int{1}},
			{nil, []int{2, 2, 2, 2, 1}},
		},
		"and_goes_on_behind_it": {
			{overloaded(heavy), []int{1}},
			{overloaded(heavy, light), []int{0}},
			{nil, []int{2, 2, 2, 2, 1}},
		},
		"refused_from_the_head_begins_anew": {
			{overloaded(heavy, light), []int{0}},
			{nil, []int{2, 2, 2, 2, 1, 2}},
		},
		"refused_within_the_round_begins_anew": {
			{nil, []int{2, 1, 2, 2}},
			{overloaded(heavy, light), []int{0}},
			{nil, []int{2, 2, 2, 2, 1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModel(t, director.WeightedRoundRobin, scheduler.Options{}, list)
			for i, run := range runs {
				equal(t, i, run.want, picks(m, run.loads, len(run.want)))
			}
		})
	}
}

// Every algorithm of the least-connection family on one set of loads: the list
// is .4 .3 .2 .1 with weights 1 2 3 6.
func TestChoices(t *testing.T) {
	list := entries(6, 3, 2, 1)
	loadsOf := func(loads ...scheduler.Load) scheduler.Loads {
		all := make(scheduler.Loads)
		for i, l := range loads {
			all[list[len(list)-1-i].Address] = l
		}
		return all
	}
	tests := map[string]struct {
		loads scheduler.Loads // of .1 .2 .3 .4
		want  map[director.Scheduler]int
	}{
		"idle": {
			want: map[director.Scheduler]int{"lc": 4, "wlc": 4, "sed": 1, "nq": 4, "fo": 1, "ovf": 1, "rr": 4, "wrr": 4},
		},
		"one_each": {
			loads: loadsOf(scheduler.Load{Active: 1}, scheduler.Load{Active: 1}, scheduler.Load{Active: 1}, scheduler.Load{Active: 1}),
			want:  map[director.Scheduler]int{"lc": 4, "wlc": 1, "sed": 1, "nq": 1, "fo": 1, "ovf": 1},
		},
		"inactive_weigh_little": {
			loads: loadsOf(scheduler.Load{Active: 7}, scheduler.Load{Active: 3, Inactive: 255}, scheduler.Load{Inactive: 900}, scheduler.Load{Active: 1}),
			want:  map[director.Scheduler]int{"lc": 4, "wlc": 4, "sed": 3, "nq": 3, "fo": 1, "ovf": 2},
		},
		"equal_for_their_weights": {
			loads: loadsOf(scheduler.Load{Active: 6}, scheduler.Load{Active: 3}, scheduler.Load{Active: 2}, scheduler.Load{Active: 1}),
			want:  map[director.Scheduler]int{"lc": 4, "wlc": 4, "sed": 1, "nq": 1, "ovf": 1},
		},
		"the_best_are_overloaded": {
			loads: loadsOf(scheduler.Load{Overloaded: true}, scheduler.Load{Active: 2}, scheduler.Load{Active: 1}, scheduler.Load{Overloaded: true}),
			want:  map[director.Scheduler]int{"lc": 3, "wlc": 3, "sed": 3, "nq": 3, "fo": 2, "ovf": 2, "rr": 3},
		},
		"all_are_full": {
			loads: loadsOf(scheduler.Load{Active: 7}, scheduler.Load{Active: 4}, scheduler.Load{Active: 3}, scheduler.Load{Active: 2}),
			want:  map[director.Scheduler]int{"ovf": 0, "fo": 1, "lc": 4, "wlc": 1},
		},
	}
	for name, tt := range tests {
		for scheduled, want := range tt.want {
			t.Run(name+"/"+string(scheduled), func(t *testing.T) {
				equal(t, 0, []int{want}, picks(newModel(t, scheduled, scheduler.Options{}, list), tt.loads, 1))
			})
		}
	}
}

// twos draws from 0 to the sum of the weights, both ends included: the first of
// the list gets one chance more. Of two the less loaded for its weight wins.
func TestTwoRandomChoices(t *testing.T) {
	list := entries(1, 2, 3) // .3 .2 .1 with weights 3 2 1
	var numbers []uint32
	next := func(n uint32) uint32 {
		if n != 7 {
			t.Errorf("drawn from %d, want 7", n)
		}
		number := numbers[0]
		numbers = numbers[1:]
		return number
	}
	m := newModel(t, director.TwoRandomChoices, scheduler.Options{Random: next}, list)
	for number, want := range []int{3, 3, 3, 3, 2, 2, 1} {
		numbers = []uint32{uint32(number), uint32(number)}
		equal(t, number, []int{want}, picks(m, nil, 1))
	}
	busy := scheduler.Loads{list[0].Address: {Active: 4}, list[1].Address: {Active: 2}, list[2].Address: {Active: 1}}
	for _, tt := range []struct {
		numbers []uint32
		want    int
	}{{[]uint32{0, 4}, 2}, {[]uint32{4, 0}, 2}, {[]uint32{4, 6}, 2}, {[]uint32{6, 4}, 1}} {
		numbers = tt.numbers
		equal(t, 0, []int{tt.want}, picks(m, busy, 1))
	}
	// With a generator of chance, idle servers get 4/7, 2/7 and 1/7. The seed is
	// fixed; 5 standard deviations of 70000 draws are below 700.
	m = newModel(t, director.TwoRandomChoices, scheduler.Options{Random: rand.New(rand.NewPCG(4, 2)).Uint32N}, list)
	count := make([]int, 4)
	for _, server := range picks(m, nil, 70000) {
		count[server]++
	}
	for server, want := range []int{0, 10000, 20000, 40000} {
		if d := count[server] - want; d < -700 || d > 700 {
			t.Errorf("server %d: %d of 70000, want about %d", server, count[server], want)
		}
	}
}

// dh looks at the virtual address alone, and an edit moves nothing.
func TestDestinationHash(t *testing.T) {
	list := entries(1, 1, 1)
	m := newModel(t, director.DestinationHash, scheduler.Options{}, list)
	table := scheduler.DestinationHashTable(list)
	virtual := netip.MustParseAddrPort("192.0.2.1:80")
	server, _ := m.Pick(client("198.51.100.7"), virtual, nil)
	if want := list[table[50]].Address; server != want { // bucket 50: ipvs.md §4.1
		t.Fatalf("%v, want %v", server, want)
	}
	m.Edit(server, 7)
	if again, _ := m.Pick(client("203.0.113.1"), virtual, nil); again != server {
		t.Errorf("after an edit %v, want %v", again, server)
	}
	if got, ok := m.Pick(client("203.0.113.1"), virtual, scheduler.Loads{server: {Overloaded: true}}); ok {
		t.Errorf("overloaded, yet %v", got)
	}
	m.Edit(server, 0)
	if got, ok := m.Pick(client("203.0.113.1"), virtual, nil); ok {
		t.Errorf("of weight 0, yet %v", got)
	}
	if empty := scheduler.DestinationHashTable(nil); empty[0] != -1 || len(empty) != scheduler.DestinationHashSize {
		t.Errorf("table without servers: %d slots, the first %d", len(empty), empty[0])
	}
}
