package bpftest

import "os"

// isEmulated is whether this runs in a guest, whose CPU is emulated: tests do less
// of the same there.
func isEmulated() bool { return os.Getenv("SHUNT_GUEST") != "" }

// Rounds returns how often a test repeats what it draws: n times, a quarter of that
// where the CPU is emulated.
func Rounds(n int) int {
	if isEmulated() {
		return max(1, n/4)
	}
	return n
}

// Sample returns the cases of a test: all, or every fourth where the CPU is emulated.
func Sample[T any](all []T) []T {
	if !isEmulated() {
		return all
	}
	var some []T
	for i := 0; i < len(all); i += 4 {
		some = append(some, all[i])
	}
	return some
}
