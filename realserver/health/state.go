package health

import "math"

// State is what the results so far make of a server. It is a value: After and Suspect
// return the next one.
type State struct {
	Up bool
	// Known is whether Up is more than an assumption: a result said so, or it is known
	// from before.
	Known bool
	// Suspected is whether something else than a check found it dead, and no check has
	// confirmed or contradicted that yet.
	Suspected bool
	// Passes and Fails are how many of the last results in a row passed, or failed; one
	// of them is 0.
	Passes, Fails uint32
}

// After returns the state after one more result. Fall failures in a row make a server
// down, rise passes up. Of one that is not known yet, the first pass makes it up; the
// first failure makes it known to be down only if it was assumed to be.
func (s State) After(passed bool, rise, fall uint16) State {
	if passed {
		s.Passes, s.Fails = oneMore(s.Passes), 0
		if s.Passes >= uint32(rise) {
			s.Suspected = false
		}
		if !s.Known || s.Passes >= uint32(rise) {
			s.Up, s.Known = true, true
		}
		return s
	}
	s.Passes, s.Fails = 0, oneMore(s.Fails)
	if s.Fails >= uint32(fall) || !s.Known && !s.Up {
		s.Up, s.Known, s.Suspected = false, true, false
	}
	return s
}

// Suspect returns the state after evidence that the server is dead: the passes so far
// do not speak against it. What is down is not suspected.
func (s State) Suspect() State {
	if s.Up && !s.Suspected {
		s.Suspected, s.Passes = true, 0
	}
	return s
}

// Settled reports whether the next probe may take its time: the state is known, the
// last result confirms it, and nothing else speaks against it.
func (s State) Settled() bool {
	contradicted := s.Up && s.Fails > 0 || !s.Up && s.Passes > 0
	return s.Known && !s.Suspected && !contradicted
}

func oneMore(n uint32) uint32 {
	if n == math.MaxUint32 {
		return n
	}
	return n + 1
}
