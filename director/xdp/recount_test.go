package xdp

import "testing"

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
