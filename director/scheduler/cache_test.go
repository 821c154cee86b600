package scheduler_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// equal compares the choices of a run.
func equal(t *testing.T, run int, want, got []int) {
	t.Helper()
	if !slices.Equal(want, got) {
		t.Errorf("run %d: chose %v, want %v", run, got, want)
	}
}

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) options(limit int) scheduler.Options {
	return scheduler.Options{Now: func() time.Time { return c.now }, SetLimit: limit}
}

func (c *clock) advance(d time.Duration) { c.now = c.now.Add(d) }

// lblc follows its last choice for the destination until that is gone, quiet or
// too busy while another is not; its overload flag does not matter.
func TestLocality(t *testing.T) {
	list := entries(2, 2, 2) // .3 .2 .1
	third, second := list[0].Address, list[1].Address
	for name, tt := range map[string]struct {
		change func(m scheduler.Model)
		loads  scheduler.Loads
		want   []int
	}{
		"busier_than_others": {loads: scheduler.Loads{third: {Active: 2}}, want: []int{3, 3}},
		"more_than_its_weight_and_another_is_idle": {
			loads: scheduler.Loads{third: {Active: 3}}, want: []int{2, 2},
		},
		"more_than_its_weight_and_so_are_all": {
			loads: scheduler.Loads{third: {Active: 3}, second: {Active: 1}, list[2].Address: {Active: 1}}, want: []int{3, 3},
		},
		"more_than_its_weight_and_another_is_less_than_half_full": {
			change: func(m scheduler.Model) { m.Edit(second, 3) },
			loads:  scheduler.Loads{third: {Active: 3}, second: {Active: 1}, list[2].Address: {Active: 1}}, want: []int{2, 2},
		},
		"overloaded": {loads: scheduler.Loads{third: {Overloaded: true}}, want: []int{3, 3}},
		"weight_0":   {change: func(m scheduler.Model) { m.Edit(third, 0) }, want: []int{2, 2}},
		"removed":    {change: func(m scheduler.Model) { m.Remove(third) }, want: []int{2, 2}},
		"back_before_it_was_missed": {
			change: func(m scheduler.Model) { m.Remove(third); m.Add(third, 1) }, want: []int{3, 3},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModel(t, director.LocalityLC, scheduler.Options{}, list)
			equal(t, 0, []int{3}, picks(m, nil, 1))
			if tt.change != nil {
				tt.change(m)
			}
			equal(t, 1, tt.want, picks(m, tt.loads, 2))
		})
	}
}

// A destination unused for a day is forgotten at the next full collection, each
// half an hour.
func TestLocalityForgets(t *testing.T) {
	list := entries(1, 1)
	for name, tt := range map[string]struct {
		idle time.Duration
		want int
	}{
		"a_day_less_a_minute": {24*time.Hour - time.Minute, 2},
		"a_day_and_an_hour":   {25 * time.Hour, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := &clock{now: time.Unix(0, 0)}
			m := newModel(t, director.LocalityLC, c.options(0), list)
			equal(t, 0, []int{2}, picks(m, nil, 1))
			c.advance(tt.idle)
			equal(t, 1, []int{tt.want}, picks(m, scheduler.Loads{list[0].Address: {Active: 1}}, 1))
		})
	}
}

// Above 16384 destinations those idle for six minutes are collected, some at a
// time; above half as many again none is remembered.
func TestLocalityIsBounded(t *testing.T) {
	list := entries(1, 1)
	first := list[0].Address
	destination := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 80)
	}
	remembered := func(m scheduler.Model, n int) int {
		known := 0
		for i := range n {
			// Who is remembered goes to the first server although it is busier.
			if got, _ := m.Pick(client("192.0.2.1"), destination(i), scheduler.Loads{first: {Active: 1}}); got == first {
				known++
			}
		}
		return known
	}
	fill := func(c *clock, n int) scheduler.Model {
		m := newModel(t, director.LocalityLC, c.options(0), list)
		for i := range n {
			m.Pick(client("192.0.2.1"), destination(i), nil)
		}
		return m
	}
	c := &clock{now: time.Unix(0, 0)}
	if got := remembered(fill(c, 30000), 30000); got != 16384*3/2 {
		t.Errorf("%d of 30000 are remembered, want %d", got, 16384*3/2)
	}
	m := fill(c, 20000)
	c.advance(6 * time.Minute)
	// (20000 - 16384)·4/3 = 4821, and the rest of the bucket they end in.
	if got := remembered(m, 20000); got > 20000-4821 || got < 20000-4821-64 {
		t.Errorf("%d of 20000 are remembered after six minutes, want about %d", got, 20000-4821)
	}
	m = fill(c, 16384)
	c.advance(6 * time.Minute)
	if got := remembered(m, 16384); got != 16384 {
		t.Errorf("%d of 16384 are remembered after six minutes, want all", got)
	}
}

// lblcr adds a server to the set when all of it is busy, uses the least loaded
// member and drops the most loaded one when the set has not changed for a day.
func TestReplicatedLocality(t *testing.T) {
	list := entries(2, 2, 2)
	third, second, first := list[0].Address, list[1].Address, list[2].Address
	busy := scheduler.Load{Active: 3}
	grown := func(t *testing.T, c *clock, limit int) scheduler.Model {
		m := newModel(t, director.LocalityLCReplicated, c.options(limit), list)
		equal(t, 0, []int{3}, picks(m, nil, 1))
		equal(t, 1, []int{2}, picks(m, scheduler.Loads{third: busy}, 1))
		equal(t, 2, []int{1}, picks(m, scheduler.Loads{third: busy, second: busy}, 1))
		return m
	}
	t.Run("equals_are_used_newest_first", func(t *testing.T) {
		equal(t, 3, []int{1}, picks(grown(t, &clock{}, 0), nil, 1))
	})
	t.Run("the_least_loaded_member_that_is_available", func(t *testing.T) {
		m := grown(t, &clock{}, 0)
		equal(t, 3, []int{3}, picks(m, scheduler.Loads{first: {Active: 1}, second: {Overloaded: true}}, 1))
		m.Remove(third)
		equal(t, 4, []int{1}, picks(m, scheduler.Loads{first: {Active: 1}, second: {Overloaded: true}}, 1))
	})
	t.Run("a_set_that_did_not_change_for_a_day_loses_its_most_loaded", func(t *testing.T) {
		c := &clock{}
		m := grown(t, c, 0)
		loads := scheduler.Loads{third: {Active: 1}, second: {Active: 2}}
		for range 24 * 60 { // used all the time, or it would be forgotten
			c.advance(time.Minute)
			picks(m, loads, 1)
		}
		equal(t, 3, []int{1}, picks(m, loads, 1))
		c.advance(time.Minute)
		equal(t, 4, []int{1}, picks(m, loads, 1)) // .2 leaves
		// .2 would be the least loaded now, but is not in the set.
		equal(t, 5, []int{3}, picks(m, scheduler.Loads{third: {Active: 1}, first: {Active: 2}}, 1))
	})
	t.Run("a_removed_member_counts_until_it_leaves", func(t *testing.T) {
		c := &clock{}
		m := grown(t, c, 0)
		m.Remove(second)
		c.advance(24*time.Hour - 10*time.Minute)
		picks(m, nil, 1)
		c.advance(11 * time.Minute)
		loads := scheduler.Loads{second: {Active: 9}, third: {Active: 1}, first: {Active: 2}}
		equal(t, 3, []int{3}, picks(m, loads, 1)) // .2 leaves, gone as it is
		m.Add(second, 2)
		equal(t, 4, []int{3}, picks(m, scheduler.Loads{third: {Active: 1}, first: {Active: 2}}, 1))
	})
	t.Run("a_bounded_set_loses_who_was_in_it_longest", func(t *testing.T) {
		m := grown(t, &clock{}, 2) // .1 .2: .3 has left
		equal(t, 3, []int{2}, picks(m, scheduler.Loads{first: {Active: 1}, second: {Active: 1, Inactive: -1}}, 1))
		equal(t, 4, []int{1}, picks(m, scheduler.Loads{first: {Active: 1}, second: {Active: 2}}, 1))
	})
}
