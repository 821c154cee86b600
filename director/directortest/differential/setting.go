package differential

import (
	"os"
	"strconv"
	"testing"
)

// What is drawn can be set: the first seed, and the number of cases.
const (
	SeedEnv  = "SHUNT_SEED"
	DrawnEnv = "SHUNT_DRAWN"
)

// Setting returns the number that the environment variable has, or the other one
// if it has none.
func Setting(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q: want a number", name, text)
	}
	return n
}
