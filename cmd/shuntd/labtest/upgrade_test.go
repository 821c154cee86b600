package labtest

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// buildNewer builds the programs that a newer version would have: another layout of
// the tables' entries, and so other programs (bpf, build tag shunt_layout_next).
func buildNewer(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "shunt_layout_next", "-o", folder+string(filepath.Separator), "github.com/shunt-lb/shunt/cmd/shuntd")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the newer version: %v\n%s", err, out)
	}
	return folder
}

// A daemon of another version takes over under load: entries are converted, both
// halves of each connection go on at once, and the way back is refused by name.
func TestUpgradeUnderLoad(t *testing.T) {
	newer := buildNewer(t)
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			p := startPair(t, method)
			var held []*call
			for range 20 {
				held = append(held, mustOpen(t, p.lab.Client, p.vip))
			}
			before := p.d.pairings(t, held)
			counted, _ := p.d.counters(t, "web")
			l := p.startLoad(t)
			l.more(t, 50)
			p.d.kill()
			l.more(t, 20)
			p.d.program = filepath.Join(newer, "shuntd")
			p.d.start(t)
			l.more(t, 50)
			l.end()
			if after := p.d.pairings(t, held); !slices.Equal(before, after) {
				t.Errorf("pairings before %q, after %q", before, after)
			}
			askAll(t, held)
			if now, _ := p.d.counters(t, "web"); now.In.Packets < counted.In.Packets+l.done.Load() {
				t.Errorf("%d packets were counted before, %d are now, after %d requests", counted.In.Packets, now.In.Packets, l.done.Load())
			}
			if events := p.d.events(t); events["carried"] == 0 {
				t.Error("no connection came over")
			}
			p.d.noFaults(t)
			p.d.stop(t)
			p.d.program = ""
			r := p.d.offline(t, p.d.args...)
			if r.code != 1 || !strings.Contains(r.stderr, "newer") || !strings.Contains(r.stderr, "shuntd detach") {
				t.Errorf("the older version again: exit code %d: %s", r.code, r.stderr)
			}
			askAll(t, held)
			p.d.program = filepath.Join(newer, "shuntd")
			p.d.start(t) // the test's end looks at the table
		})
	}
}
