package differential

import "slices"

// Shrink returns the smallest case it finds that still fails: with fewer events,
// then with plainer settings. failing runs a case, budget times at most.
func Shrink(c Case, budget int, failing func(Case) bool) Case {
	try := func(smaller Case) bool {
		if budget--; budget < 0 || !failing(smaller) {
			return false
		}
		c = smaller
		return true
	}
	for size := len(c.Events) / 2; size > 0; size /= 2 {
		for at := 0; at < len(c.Events); {
			smaller := c
			smaller.Events = slices.Concat(c.Events[:at], c.Events[min(at+size, len(c.Events)):])
			if !isPossible(smaller) || !try(smaller) {
				at += size
			}
		}
	}
	for _, plain := range []func(*Case){
		func(c *Case) { c.IPv6, c.PersistPrefix = false, min(c.PersistPrefix, 32) },
		func(c *Case) { c.DR = false },
		func(c *Case) { c.Many, c.Events = false, oneAddress(c.Events) },
		func(c *Case) { c.Port = false },
		func(c *Case) { c.Fallback = false },
		func(c *Case) { c.PersistSeconds, c.PersistPrefix = 0, 0 },
		func(c *Case) { c.OnePacket = false },
		func(c *Case) { c.SloppyTCP = false },
		func(c *Case) { c.ExpireNoDest = false },
		func(c *Case) { c.ExpireQuiescent = false },
		func(c *Case) { c.ReuseMode = 1 },
	} {
		smaller := c
		if plain(&smaller); !isSame(smaller, c) {
			try(smaller)
		}
	}
	for i := range c.Events {
		for _, plain := range []func(*Event){
			func(e *Event) { e.Weight = min(e.Weight, 1) },
			func(e *Event) { e.Upper, e.Lower = 0, 0 },
			func(e *Event) { e.Virtual = 0 },
		} {
			smaller := c
			smaller.Events = slices.Clone(c.Events)
			if plain(&smaller.Events[i]); smaller.Events[i] != c.Events[i] {
				try(smaller)
			}
		}
	}
	return c
}

// oneAddress returns the events with all packets for the first virtual address.
func oneAddress(events []Event) []Event {
	events = slices.Clone(events)
	for i := range events {
		events[i].Virtual = 0
	}
	return events
}

// isSame reports whether the settings of two cases are equal.
func isSame(a, b Case) bool {
	a.Events, b.Events = nil, nil
	return a.Name == b.Name && a.Service().Identical(b.Service()) && a.IPv6 == b.IPv6 && a.DR == b.DR && a.Many == b.Many
}

// isPossible reports whether the kernel would take the script: no server is
// added twice, none edited or removed that is not there.
func isPossible(c Case) bool {
	present := map[int]bool{}
	for _, e := range c.Events {
		switch e.Verb {
		case Add:
			if present[e.Server] {
				return false
			}
			present[e.Server] = true
		case Edit, Remove:
			if !present[e.Server] {
				return false
			}
			present[e.Server] = e.Verb == Edit
		}
	}
	return true
}
