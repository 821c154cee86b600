package director

import (
	"fmt"
	"slices"
)

// DefaultScheduler is used where none is given: ipvsadm's.
const DefaultScheduler = WeightedLeastConnection

// Schedulers returns all schedulers, in the order of ipvsadm's help.
func Schedulers() []Scheduler {
	return []Scheduler{
		RoundRobin, WeightedRoundRobin, LeastConnection, WeightedLeastConnection, LocalityLC, LocalityLCReplicated, DestinationHash, SourceHash,
		ShortestExpectedDelay, NeverQueue, Failover, Overflow, Maglev, TwoRandomChoices,
	}
}

// Number returns the value of the sysctl conn_reuse_mode that the mode stands for.
func (m ReuseMode) Number() int {
	switch m {
	case ReuseNever:
		return 0
	case ReuseFinWait:
		return 3
	default:
		return 1
	}
}

// ParseReuseMode is the inverse of Number; 2, which the kernel takes as 3, is not
// read.
func ParseReuseMode(number int) (ReuseMode, error) {
	for _, m := range []ReuseMode{ReuseClosed, ReuseNever, ReuseFinWait} {
		if m.Number() == number {
			return m, nil
		}
	}
	return 0, fmt.Errorf("conn-reuse-mode %d: want 0, 1 or 3: %w", number, ErrInvalid)
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
