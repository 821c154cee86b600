package config

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// sizeUnits are the units of ParseSize, greatest first.
var sizeUnits = []struct {
	suffix string
	factor uint64
}{{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}, {"", 1}}

// ParseSize reads a count with an optional binary unit: 4096, 64Ki, 1Mi, 1Gi.
func ParseSize(s string) (uint64, error) {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(s, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if errors.Is(err, strconv.ErrSyntax) {
			break
		}
		high, size := bits.Mul64(n, unit.factor)
		if err != nil || high != 0 {
			return 0, fmt.Errorf("%q is too large", s)
		}
		return size, nil
	}
	return 0, fmt.Errorf("%q is not a number: want digits and, if need be, Ki, Mi or Gi, such as 64Ki", s)
}

// FormatSize writes a count with the greatest unit that divides it.
func FormatSize(n uint64) string {
	for _, unit := range sizeUnits {
		if n >= unit.factor && n%unit.factor == 0 {
			return strconv.FormatUint(n/unit.factor, 10) + unit.suffix
		}
	}
	return strconv.FormatUint(n, 10)
}

// sizeBetween returns a reader of sizes in a range.
func sizeBetween(least, most uint64) func(string) (uint64, error) {
	return func(s string) (uint64, error) {
		n, err := ParseSize(s)
		if err == nil && (n < least || n > most) {
			err = fmt.Errorf("%s is out of range: want %s to %s", s, FormatSize(least), FormatSize(most))
		}
		return n, err
	}
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: want a number with a unit, such as 90s, 15m or 1h30m", s)
	}
	return d, nil
}

// formatDuration writes a duration without the units that are zero: 15m, 1h30m,
// 744h.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
