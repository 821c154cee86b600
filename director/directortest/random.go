package directortest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Random returns a source for what a test draws: another one each time, and that of
// the environment variable SHUNT_SEED, which is in the test's log, again.
func Random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SHUNT_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SHUNT_SEED=%q: want a number", text)
		}
	}
	t.Logf("SHUNT_SEED=%d draws the same again", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
