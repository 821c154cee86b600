package bpf

// timeBits is how many bits of a limit's time are behind the point (limits.h, TIME_BITS).
const timeBits = 16

// Rate returns what a limit of so many new connections a second costs each of them,
// and how far ahead of now they may be: a second's worth at once. What does not come
// out even makes the limit lower, by 7 % at most up to a million a second; 0 and what
// is beyond the clock, some six millions and more, is no limit.
func (c Clock) Rate(perSecond uint32) (cost, burst uint64) {
	second := uint64(c.hz) << timeBits
	if perSecond == 0 || uint64(perSecond) > second {
		return 0, 0
	}
	cost = (second + uint64(perSecond) - 1) / uint64(perSecond)
	return cost, cost * uint64(perSecond)
}
