package health

import (
	"cmp"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// timingBounds are the upper bounds of a Timing's counts: from a server in the same rack
// to the longest timeouts in use.
var timingBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Timing is how long probes took, of all servers together.
type Timing struct {
	Kind   realserver.CheckKind
	Passed bool
	Count  uint64
	Sum    time.Duration
	// AtMost are how many took at most so long as TimingBounds says, each with those of the
	// bounds below.
	AtMost []uint64
}

// TimingBounds returns the bounds of Timing.AtMost, rising.
func TimingBounds() []time.Duration { return slices.Clone(timingBounds[:]) }

// timed is what a Timing is of.
type timed struct {
	kind   realserver.CheckKind
	passed bool
}

// measure counts a result's duration.
func (m *Monitor) measure(kind realserver.CheckKind, result Result) {
	key := timed{kind, result.Err == nil}
	t := m.timings[key]
	if t == nil {
		t = &Timing{Kind: kind, Passed: key.passed, AtMost: make([]uint64, len(timingBounds))}
		m.timings[key] = t
	}
	t.Count++
	t.Sum += result.Took
	for i, bound := range timingBounds {
		if result.Took <= bound {
			t.AtMost[i]++
		}
	}
}

// timingsNow returns them by kind, failures first.
func (m *Monitor) timingsNow() []Timing {
	all := make([]Timing, 0, len(m.timings))
	for _, t := range m.timings {
		now := *t
		now.AtMost = slices.Clone(t.AtMost)
		all = append(all, now)
	}
	slices.SortFunc(all, func(a, b Timing) int {
		if c := cmp.Compare(a.Kind, b.Kind); c != 0 || a.Passed == b.Passed {
			return c
		} else if b.Passed {
			return -1
		}
		return 1
	})
	return all
}
