package director

import "slices"

// DefaultScheduler is used where none is given: ipvsadm's.
const DefaultScheduler = WeightedLeastConnection

// Schedulers returns all schedulers, in the order of ipvsadm's help.
func Schedulers() []Scheduler {
	return []Scheduler{
		RoundRobin, WeightedRoundRobin, LeastConnection, WeightedLeastConnection, LocalityLC, LocalityLCReplicated, DestinationHash, SourceHash,
		ShortestExpectedDelay, NeverQueue, Failover, Overflow, Maglev, TwoRandomChoices,
	}
}

// Known reports whether this version has the scheduler.
func (s Scheduler) Known() bool { return slices.Contains(Schedulers(), s) }

// HasFlags reports whether flags mean something to the scheduler: SourceHash has
// sh-port and sh-fallback, Maglev mh-port and mh-fallback.
func (s Scheduler) HasFlags() bool { return s == SourceHash || s == Maglev }

// FlagNames returns ipvsadm's names of the set flags.
func (s Scheduler) FlagNames(flags SchedulerFlags) []string {
	fallback, port := "flag-1", "flag-2"
	if s.HasFlags() {
		fallback, port = string(s)+"-fallback", string(s)+"-port"
	}
	var names []string
	if flags.Fallback {
		names = append(names, fallback)
	}
	if flags.Port {
		names = append(names, port)
	}
	if flags.Third {
		names = append(names, "flag-3")
	}
	return names
}
