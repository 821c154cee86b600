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

// HasFlags reports whether the scheduler takes flags: SourceHash has sh-port
// and sh-fallback, Maglev mh-port and mh-fallback.
func (s Scheduler) HasFlags() bool { return s == SourceHash || s == Maglev }

// FlagNames returns ipvsadm's names of the set flags, for a scheduler that has
// flags.
func (s Scheduler) FlagNames(flags SchedulerFlags) []string {
	var names []string
	if flags.Fallback {
		names = append(names, string(s)+"-fallback")
	}
	if flags.Port {
		names = append(names, string(s)+"-port")
	}
	return names
}
