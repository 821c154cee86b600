package realserver

import (
	"fmt"
	"math"
	"strconv"
)

// MaxWeight is the largest weight a server can have: the kernel has it in an int,
// and Debian's ipvsadm takes all of those. A data plane may have less.
const MaxWeight = math.MaxInt32

// DefaultWeight is a server's weight where none is given, as ipvsadm's.
const DefaultWeight = 1

// ParseWeight reads a weight as it is configured.
func ParseWeight(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > MaxWeight {
		return 0, fmt.Errorf("%.80q is not a weight: want 0 to %d", s, MaxWeight)
	}
	return uint32(n), nil
}

// MaxThreshold is the largest threshold, the kernel's (__u32); ipvsadm takes half of
// that.
const MaxThreshold = math.MaxUint32

// ParseThreshold reads a threshold: a number of connections, 0 for none.
func ParseThreshold(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%.80q is not a threshold: want a number of connections, 0 to %d", s, uint32(MaxThreshold))
	}
	return uint32(n), nil
}
