package xdp

import (
	"fmt"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// region is a run of words.
type region struct{ first, count uint32 }

// quarantine is how long freed words rest before they are used again: far longer
// than a packet that still reads them takes.
const quarantine = 100 * time.Millisecond

// positionWords are the words at the start of the map for what shunt_switch reads
// and nobody else: a place for each server of a service.
const positionWords = director.MaxServers

// unit is what long regions are rounded up to, so that one service's holes fit
// another's schedule.
const unit = 256

// roundUp returns how many words a wish for count is given.
func roundUp(count uint32) uint32 {
	if count < unit {
		return (count + 15) &^ 15
	}
	return (count + unit - 1) &^ (unit - 1)
}

// arena hands out regions of the words map, first fit, beyond the positions.
type arena struct {
	free    []region // sorted, not adjacent
	resting []resting
	now     func() time.Time
	sleep   func(time.Duration)
}

type resting struct {
	region
	until time.Time
}

func newArena(words uint32) *arena {
	first := min(positionWords, words)
	return &arena{free: []region{{first, words - first}}, now: time.Now, sleep: time.Sleep}
}

// alloc returns a region of at least count words. Where only what rests has room, it
// waits for that.
func (a *arena) alloc(count uint32) (region, error) {
	count = roundUp(count)
	a.wake()
	r, err := a.fit(count)
	for err != nil && len(a.resting) > 0 {
		a.sleep(max(0, a.resting[0].until.Sub(a.now())))
		a.wake()
		r, err = a.fit(count)
	}
	return r, err
}

// fit returns the first free region that is long enough.
func (a *arena) fit(count uint32) (region, error) {
	for i := range a.free {
		f := &a.free[i]
		if f.count < count {
			continue
		}
		r := region{f.first, count}
		f.first += count
		f.count -= count
		if f.count == 0 {
			a.free = slices.Delete(a.free, i, i+1)
		}
		return r, nil
	}
	return region{}, fmt.Errorf("%w: no %d words left for the schedule: raise limits.scheduler-words", director.ErrFull, count)
}

// release gives a region back after its quarantine.
func (a *arena) release(r region) {
	if r.count > 0 {
		a.resting = append(a.resting, resting{r, a.now().Add(quarantine)})
	}
}

// wake moves the regions whose quarantine is over to the free ones.
func (a *arena) wake() {
	for len(a.resting) > 0 && !a.now().Before(a.resting[0].until) {
		a.insert(a.resting[0].region)
		a.resting = a.resting[1:]
	}
}

func (a *arena) insert(r region) {
	i, _ := slices.BinarySearchFunc(a.free, r.first, func(f region, first uint32) int { return int(int64(f.first) - int64(first)) })
	a.free = slices.Insert(a.free, i, r)
	if i+1 < len(a.free) && a.free[i].first+a.free[i].count == a.free[i+1].first {
		a.free[i].count += a.free[i+1].count
		a.free = slices.Delete(a.free, i+1, i+2)
	}
	if i > 0 && a.free[i-1].first+a.free[i-1].count == a.free[i].first {
		a.free[i-1].count += a.free[i].count
		a.free = slices.Delete(a.free, i, i+1)
	}
}

// take marks a region as used, when the maps are adopted; false if it is empty or
// not free as a whole.
func (a *arena) take(r region) bool {
	for i, f := range a.free {
		if r.count == 0 || r.first < f.first || uint64(r.first)+uint64(r.count) > uint64(f.first)+uint64(f.count) {
			continue
		}
		a.free = slices.Delete(a.free, i, i+1)
		if rest := (region{r.first + r.count, f.first + f.count - r.first - r.count}); rest.count > 0 {
			a.free = slices.Insert(a.free, i, rest)
		}
		if before := (region{f.first, r.first - f.first}); before.count > 0 {
			a.free = slices.Insert(a.free, i, before)
		}
		return true
	}
	return false
}
