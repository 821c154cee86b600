package xdp

import (
	"testing"

	"github.com/shunt-lb/shunt/bpf"
)

func TestSuspect(t *testing.T) {
	const steady, busy = true, false
	for _, test := range []struct {
		name   string
		diffs  []int64
		steady bool
		want   int64 // the correction after the last
	}{
		{"a_difference_once_is_none", []int64{3}, steady, 0},
		{"twice_the_same_while_nothing_moves_is_real", []int64{3, 3}, steady, 3},
		{"twice_the_same_on_a_busy_server_is_chance", []int64{-1, -1}, busy, 0},
		{"not_the_same_is_waited_for", []int64{3, 4}, steady, 0},
		{"the_smallest_of_many_on_a_busy_server", []int64{7, 6, 5, 9, 5, 8, 6, 7}, busy, 5},
		{"likewise_below_zero", []int64{-7, -6, -5, -9, -5, -8, -6, -7}, busy, -5},
		{"a_zero_begins_anew", []int64{1, 1, 1, 1, 0, 1, 1, 1}, busy, 0},
		{"another_sign_begins_anew", []int64{1, 1, 1, 1, -1, 1, 1, 1}, busy, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s suspect
			for i, diff := range test.diffs {
				var got, want int64
				if s, got = s.next(diff, test.steady); i == len(test.diffs)-1 {
					want = test.want
				}
				if got != want {
					t.Errorf("difference %d of %v: correction %d, want %d", i, test.diffs, got, want)
				}
			}
		})
	}
}

// On a busy server a sweep finds fewer than are counted whenever as many go as begin:
// of those that begin, it meets only the ones before it.
func TestDoubtOfBusyServers(t *testing.T) {
	for name, test := range map[string]struct {
		began uint64 // in each sweep
		swing int64  // of the active ones
		diff  int64
		want  int64 // the correction, after all sweeps
	}{
		"what_began_is_not_met":           {began: 40, diff: -20},
		"what_closed_is_met_before":       {swing: 30, diff: -20},
		"more_is_missing_than_moved":      {began: 40, swing: 10, diff: -70, want: -20},
		"there_are_more_than_could_come":  {began: 40, diff: 45, want: 5},
		"a_server_that_only_has_packets":  {diff: 3, want: 3},
		"a_server_that_only_lost_its_own": {diff: -3, want: -3},
	} {
		t.Run(name, func(t *testing.T) {
			var d doubt
			var all int64
			for n := range uint64(patience + 1) {
				load := bpf.KernelServerLoad{Inactive: int64(n)} // never steady
				var by [3]int64
				d, by = d.next(load, 1000+n*test.began, [3]int64{1: test.diff}, test.swing)
				all += by[1]
			}
			if all != test.want {
				t.Errorf("corrected by %d, want %d", all, test.want)
			}
		})
	}
}
