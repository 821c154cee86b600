package ipvsadm

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// seed draws a test's randomness, or takes it from SHUNT_SEED.
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("SHUNT_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SHUNT_SEED: %v", err)
		}
	}
	t.Logf("SHUNT_SEED=%d draws the same again", n)
	return rand.New(rand.NewPCG(n, 0))
}

// Mangled save files, and words in any order, crash nothing and change all that
// they say or nothing.
func TestMangled(t *testing.T) {
	d, _ := fake(t, director.PlaneIPVS)
	mangle(t, d, 400, d.saved)
}

// mangle hands inputs to the daemon; holds is what its data plane holds.
func mangle(t *testing.T, d *daemon, inputs int, holds func() string) {
	t.Helper()
	random := seed(t)
	good := every(director.IPVSFeatures())
	groups := strings.Split(strings.TrimPrefix(good, "-A"), "\n-A")
	for i := range groups {
		groups[i] = strings.TrimSuffix(groups[i], "\n") + "\n"
	}
	words := strings.Fields(good + " -A -E -D -C -R -S -L -Z -a -e -d -n -c --set --start-daemon --stop-daemon master backup --syncid 7 -x -y 5 --nope -h -v \x00 - -- -at -Ln --stats= http :: [] [::]:0 999999999999999999999 -1 0x10")
	changed := 0
	for range inputs {
		var input string
		switch random.IntN(2) {
		case 0: // a file with wounds, or none
			var text []byte
			for range 1 + random.IntN(3) {
				text = append(text, "-A"+groups[random.IntN(len(groups))]...)
			}
			for range random.IntN(3) {
				at := random.IntN(len(text))
				switch random.IntN(3) {
				case 0:
					text[at] = byte(random.IntN(256))
				case 1:
					text = append(text[:at:at], text[min(len(text), at+random.IntN(40)):]...)
				default:
					text = append(text[:at:at], append([]byte(words[random.IntN(len(words))]+" "), text[at:]...)...)
				}
			}
			input = string(text)
		default:
			for range 1 + random.IntN(4) {
				for range 1 + random.IntN(8) {
					input += words[random.IntN(len(words))] + " "
				}
				input += "\n"
			}
		}
		before, revision := holds(), d.director.Head().Number
		got := d.run([]string{program, restoreProgram}[random.IntN(2)], input, "-R")
		switch now := d.director.Head().Number; {
		case got.Status != 0 && got.Err == "":
			t.Fatalf("%q: status %d without a word", input, got.Status)
		case now == revision && holds() != before, now > revision+1:
			t.Fatalf("%q: half applied: revision %d, was %d: %+v", input, now, revision, got)
		case now > revision:
			changed++
		case got.Status == 0 && strings.Contains(got.Err, "nothing was changed"):
			t.Fatalf("%q: succeeded, and did not: %+v", input, got)
		}
		line := strings.Fields(input)[:min(6, len(strings.Fields(input)))]
		if got := d.run(program, input, line...); got.Status != 0 && got.Err == "" {
			t.Fatalf("%q: status %d without a word", line, got.Status)
		}
	}
	t.Logf("%d of %d inputs changed something", changed, inputs)
	if changed == 0 {
		t.Error("no input changed anything: the draws are bad")
	}
}
