package ipvsadm

import (
	"fmt"
	"strconv"
)

// number writes a count as --stats and --rate show it (ipvsadm.c,
// print_largenum): in nine columns, with a unit from 10⁸ on, or with all its
// digits (--exact) and then wider if it must be.
func number(n uint64, exact bool) string {
	if exact {
		digits := strconv.FormatUint(n, 10)
		width := 9
		if len(digits) > 8 {
			width = len(digits) + 1
		}
		return fmt.Sprintf("%*s", width, digits)
	}
	for _, unit := range [...]struct {
		below, divisor uint64
		letter         string
	}{{1e8, 1, ""}, {1e9, 1e3, "K"}, {1e11, 1e6, "M"}, {1e14, 1e9, "G"}} {
		if n < unit.below {
			return fmt.Sprintf("%*d%s", 9-len(unit.letter), n/unit.divisor, unit.letter)
		}
	}
	return fmt.Sprintf("%8dT", n/1e12)
}
