package bpf_test

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest/bench"
)

const baselineFile = "testdata/instructions.json"

// tolerance is what a row may cost more than its baseline.
const tolerance = 0.05

// The committed costs are held where the clock counts instructions, so that they
// are the same on every machine. SHUNT_BASELINE=print prints a new baseline.
func TestInstructionsStayWithinTheBaseline(t *testing.T) {
	if os.Getenv("SHUNT_GUEST") != "icount" {
		t.Skip("counts instructions by the clock of the 6.1 guest only: scripts/bench-gate.sh")
	}
	rows, err := bench.Rows(bench.Options{Rounds: 3, Packets: 2000, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, r := range rows {
		if r.NS == nil {
			t.Fatalf("%s was not measured", r.Name)
		}
		got[r.Name] = *r.NS // 1 ns of guest time is 1 instruction
	}
	if os.Getenv("SHUNT_BASELINE") == "print" {
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("\nbaseline " + string(text) + "\n")
		return
	}
	text, err := os.ReadFile(baselineFile)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]float64
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatalf("%s: %v", baselineFile, err)
	}
	const move = "if the change is worth it, move the baseline in a commit of its own that says why: scripts/bench-gate.sh update"
	for _, name := range slices.Sorted(maps.Keys(want)) {
		cost, measured := got[name]
		switch {
		case !measured:
			t.Errorf("%s is in %s, but was not measured; %s", name, baselineFile, move)
		case cost > want[name]*(1+tolerance):
			t.Errorf("%s costs %.0f instructions, %.1f %% more than the baseline's %.0f; %s",
				name, cost, 100*(cost/want[name]-1), want[name], move)
		case cost < want[name]*(1-tolerance):
			t.Logf("%s costs %.0f instructions, less than the baseline's %.0f: the baseline may be lowered", name, cost, want[name])
		}
		delete(got, name)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		t.Errorf("%s has no baseline in %s; %s", name, baselineFile, move)
	}
}
