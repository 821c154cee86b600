package main

import (
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/bpf/bpftest/bench"
)

func TestSlabsAreRead(t *testing.T) {
	got, err := parseSlabs("6.1.176\n320\n256\n")
	if want := (peersMemory{Kernel: "6.1.176", IPVS: 320, Conntrack: 256}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, text := range []string{"", "6.1.176\n320\n", "6.1.176\ncat: no such file\n"} {
		if got, err := parseSlabs(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

// What is asked of issue 6's rows is printed beside them, met or not.
func TestGoalsAreJudged(t *testing.T) {
	n := func(v float64) *float64 { return &v }
	r := result{
		Rows: []bench.Row{
			{Name: "dr-hit/tcp4/1", Instructions: n(200)},
			{Name: "proof-dr/tcp4", Instructions: n(350)},
			{Name: "dr-hit/tcp6/1", Instructions: n(220)},
			{Name: "proof-dr/tcp6", Instructions: n(371)},
			{Name: "guard-syn/tcp4", Instructions: n(500)},
			{Name: "refused-syn/tcp6", Instructions: n(501)},
		},
		Floods: []bench.FloodRow{{Name: "dr-hit/tcp4/65536", Ratio: 1.05}, {Name: "nat-hit/tcp4/1", Ratio: 1.11}},
		Memory: &memory{Memory: bench.Memory{NAT4: 162.5, DR4: 97}},
	}
	var out strings.Builder
	r.print(&out)
	for name, verdict := range map[string]string{
		"proof-dr/tcp4": "met", "proof-dr/tcp6": "MISSED", "guard-syn/tcp4": "met", "refused-syn/tcp6": "MISSED",
		"dr-hit/tcp4/65536": "met", "nat-hit/tcp4/1": "MISSED", "nat, two keys": "met", "dr and local, one key": "MISSED",
	} {
		found := false
		for line := range strings.Lines(out.String()) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, name+" ") {
				found = strings.HasSuffix(line, verdict)
			}
		}
		if !found {
			t.Errorf("%s is not said to be %s:\n%s", name, verdict, &out)
		}
	}
}
