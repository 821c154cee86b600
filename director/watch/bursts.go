package watch

import "time"

// burst is a time in which something was counted again and again.
type burst struct {
	count  uint64 // at the last reading
	before uint64 // when the burst began
	active bool
	moved  time.Time // the last reading that saw the count move
}

// burstStep is what a reading means to a burst.
type burstStep int

const (
	burstGoesOn burstStep = iota // or there still is none
	burstBegan
	burstEnded
)

// take takes the count of a reading, and ends a burst that has not moved for the time
// of quiet. It returns how many were counted: the first ones of a burst that begins,
// and all of one that has ended.
func (b *burst) take(count uint64, now time.Time, quiet time.Duration) (burstStep, uint64) {
	if count < b.count { // the data plane was loaded anew
		b.count, b.before = 0, 0
	}
	moved := count - b.count
	b.count = count
	switch {
	case moved > 0 && !b.active:
		b.active, b.before, b.moved = true, count-moved, now
		return burstBegan, moved
	case moved > 0:
		b.moved = now
	case b.active && now.Sub(b.moved) >= quiet:
		b.active = false
		return burstEnded, count - b.before
	}
	return burstGoesOn, 0
}
