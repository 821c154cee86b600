package health

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// judge is the model: what the whole list of results means, each time from its start.
func judge(up, known bool, rise, fall int, results []bool) (bool, bool) {
	same := func(end, n int, passed bool) bool {
		for i := end - n; i < end; i++ {
			if i < 0 || results[i] != passed {
				return false
			}
		}
		return true
	}
	for i, passed := range results {
		switch {
		case same(i+1, rise, true), passed && !known:
			up, known = true, true
		case same(i+1, fall, false), !passed && !known && !up:
			up, known = false, true
		}
	}
	return up, known
}

func TestStateFollowsTheLastResultsInARow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := State{Up: rapid.Bool().Draw(t, "up"), Known: rapid.Bool().Draw(t, "known")}
		rise := rapid.Uint16Range(1, 5).Draw(t, "rise")
		fall := rapid.Uint16Range(1, 5).Draw(t, "fall")
		results := rapid.SliceOfN(rapid.Bool(), 0, 40).Draw(t, "results")
		s := start
		for i, passed := range results {
			before := s
			s = s.After(passed, rise, fall)
			up, known := judge(start.Up, start.Known, int(rise), int(fall), results[:i+1])
			if s.Up != up || s.Known != known {
				t.Fatalf("after %v: %+v, want up %v, known %v", results[:i+1], s, up, known)
			}
			if s.Passes > 0 && s.Fails > 0 {
				t.Fatalf("results in a row of both kinds: %+v", s)
			}
			if s.Settled() != (s.Known && passed == s.Up) {
				t.Fatalf("settled is %v after %v made %+v of %+v", s.Settled(), passed, s, before)
			}
		}
	})
}

func TestStateSuspicion(t *testing.T) {
	up := State{Up: true, Known: true, Passes: 9}
	for _, c := range []struct {
		name    string
		from    State
		results []bool
		want    State
		settled bool
	}{
		{"passes before do not absolve", up, nil, State{Up: true, Known: true, Suspected: true}, false},
		{"one pass is not enough", up, []bool{true}, State{Up: true, Known: true, Suspected: true, Passes: 1}, false},
		{"as many as make it up absolve", up, []bool{true, true}, State{Up: true, Known: true, Passes: 2}, true},
		{"in a row", up, []bool{true, false, true}, State{Up: true, Known: true, Suspected: true, Passes: 1}, false},
		{"failures confirm", up, []bool{false, false, false}, State{Known: true, Fails: 3}, true},
		{"failures before count", State{Up: true, Known: true, Fails: 2}, []bool{false}, State{Known: true, Fails: 3}, true},
		{"what is down is not suspected", State{Known: true, Fails: 7}, nil, State{Known: true, Fails: 7}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.from.Suspect()
			for _, passed := range c.results {
				got = got.After(passed, 2, 3)
			}
			if got != c.want || got.Settled() != c.settled {
				t.Errorf("got %+v, settled %v, want %+v, %v", got, got.Settled(), c.want, c.settled)
			}
		})
	}
}

func TestStateCountsNoFurtherThanItCan(t *testing.T) {
	for _, passed := range []bool{true, false} {
		s := State{Up: passed, Known: true}
		if passed {
			s.Passes = math.MaxUint32
		} else {
			s.Fails = math.MaxUint32
		}
		if got := s.After(passed, 2, 3); got != s {
			t.Errorf("got %+v, want %+v", got, s)
		}
	}
}
