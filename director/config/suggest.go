package config

import "strings"

// didYouMean returns "; did you mean x?" for the nearest of the words, or
// nothing if none is near enough to be meant.
func didYouMean(s string, words []string) string {
	best, least := "", (len(s)+1)/3
	if len(s) < 2 || len(s) > 40 {
		return ""
	}
	for _, w := range words {
		if n := distance(strings.ToLower(s), w); n <= least && n < len(w) && (best == "" || n < least) {
			best, least = w, n
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance counts the letters to insert, remove, replace or swap with their
// neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	var before, last, row []int
	for j := range len(b) + 1 {
		last = append(last, j)
	}
	for i := range len(a) {
		row = append(make([]int, 0, len(b)+1), i+1)
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			n := min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				n = min(n, before[j-1]+1)
			}
			row = append(row, n)
		}
		before, last = last, row
	}
	return last[len(b)]
}
