package differential_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/directortest/differential"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// TestKernel draws cases, runs each on the kernel and on the models, and leaves
// what the kernel answered to be replayed by the XDP program.
func TestKernel(t *testing.T) {
	ipvs.Guest(t)
	first := differential.Setting(t, differential.SeedEnv, rand.IntN(1_000_000_000))
	count := differential.Setting(t, differential.DrawnEnv, 300)
	t.Logf("cases of the seeds %d to %d: %s=%d %s=1 draws the first alone", first, first+count-1, differential.SeedEnv, first, differential.DrawnEnv)
	var mu sync.Mutex
	var cases []differential.Case
	t.Run("cases", func(t *testing.T) {
		for seed := first; seed < first+count; seed++ {
			drawn := differential.Drawn(seed)
			t.Run(drawn.Name, func(t *testing.T) {
				t.Parallel()
				c := differential.Kernel(t, drawn)
				mu.Lock()
				cases = append(cases, c)
				mu.Unlock()
				compareModel(t, c)
			})
		}
	})
	if out := os.Getenv(differential.OutEnv); out != "" {
		if err := differential.Save(out, fmt.Sprintf("drawn-%d", first), cases); err != nil {
			t.Fatal(err)
		}
	}
}

// compareModel fails the test if the models answer otherwise than the kernel did,
// and says of the smallest case it finds where.
func compareModel(t *testing.T, c differential.Case) {
	t.Helper()
	if differential.Difference(c, differential.Model(t, c)) == "" {
		return
	}
	start := time.Now()
	shrunk := differential.Shrink(c, 150, func(smaller differential.Case) bool {
		if time.Since(start) > time.Minute { // a case that waits takes as long as it says
			return false
		}
		kernel := differential.Kernel(t, smaller)
		return differential.Difference(kernel, differential.Model(t, kernel)) != ""
	})
	shrunk = differential.Kernel(t, shrunk)
	shrunk.Name += "-shrunk"
	t.Errorf("model %s\nof:\n%s", differential.Difference(shrunk, differential.Model(t, shrunk)), differential.Script(shrunk))
	if out := os.Getenv(differential.OutEnv); out != "" {
		if err := differential.Save(out, "failed-"+shrunk.Name, []differential.Case{shrunk}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestModel replays what the kernel was seen to do.
func TestModel(t *testing.T) {
	for _, c := range differential.Recorded(t) {
		t.Run(c.Name, func(t *testing.T) {
			if d := differential.Difference(c, differential.Model(t, c)); d != "" {
				t.Errorf("model %s\nof:\n%s", d, differential.Script(c))
			}
		})
	}
}

func TestDrawnCasesArePossibleAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for seed := range 200 {
		c := differential.Drawn(seed)
		if diff := cmp.Diff(c, differential.Drawn(seed)); diff != "" {
			t.Fatalf("seed %d drawn twice:\n%s", seed, diff)
		}
		seen[differential.Script(c)] = true
	}
	if len(seen) != 200 {
		t.Errorf("%d cases of 200 seeds", len(seen))
	}
}

func TestEventText(t *testing.T) {
	for _, text := range []string{
		"add 3 weight 2 upper 5 lower 1", "edit 3 weight 0", "remove 3", "send 257:1024 v1 SA = 3",
		"send 0:1 v0 - = refused", "reply 257:1024 v0 -", "wait 12s", "count = 3:1/0/0 0:2/1/0",
	} {
		var e differential.Event
		if err := e.UnmarshalText([]byte(text)); err != nil || e.String() != text {
			t.Errorf("%q read as %q, %v", text, e, err)
		}
	}
	for text, want := range map[string]string{
		"":                    "no verb",
		"jump 3":              `unknown verb "jump"`,
		"add":                 "no server",
		"add 3 width 2":       `unknown word "width"`,
		"add 3 weight -2":     "invalid syntax",
		"send 1:2 v0":         "2 words behind the verb",
		"send 1:99999 v0 S":   "integer overflow",
		"add 3 weight 2 more": "understood as",
		"wait long":           "invalid duration",
	} {
		var e differential.Event
		if err := e.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", text, err, want)
		}
	}
}

func TestFastPathMayHaveFewerTemplates(t *testing.T) {
	counted := func(answer string) differential.Case {
		return differential.Case{Events: []differential.Event{{Verb: differential.Count, Answer: answer}}}
	}
	kernel := counted("1:2/0/3 0:1/1/0")
	for got, alike := range map[string]bool{
		"1:2/0/3 0:1/1/0": true, "1:2/0/1 0:1/1/0": true, "1:2/0/3 0:1/1/1": false,
		"1:2/0/3": false, "0:1/1/0 1:2/0/3": false, "1:1/1/3 0:1/1/0": false, "": false,
	} {
		if d := differential.FastPathDifference(kernel, counted(got)); (d == "") != alike {
			t.Errorf("%q: %q, want alike %v", got, d, alike)
		}
	}
	if differential.Difference(kernel, counted("1:2/0/1 0:1/1/0")) == "" {
		t.Error("the models may not")
	}
}

// TestShrink makes a case smaller that fails as long as server 1 is there and a
// packet is sent.
func TestShrink(t *testing.T) {
	c := differential.Drawn(7)
	c.Events = append([]differential.Event{{Verb: differential.Add, Server: 31, Weight: 7}}, c.Events...)
	got := differential.Shrink(c, 1000, func(c differential.Case) bool {
		added, sent := false, false
		for _, e := range c.Events {
			added = added || e.Verb == differential.Add && e.Server == 31
			sent = sent || added && e.Verb == differential.Send
		}
		return sent
	})
	var events []string
	for _, e := range got.Events {
		events = append(events, string(e.Verb))
	}
	if diff := cmp.Diff([]string{"add", "send"}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if got.Events[0].Weight != 1 || got.Many || got.IPv6 || got.PersistSeconds != 0 {
		t.Errorf("not shrunk: %s", differential.Script(got))
	}
}
