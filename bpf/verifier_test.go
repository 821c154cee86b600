package bpf_test

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// walked is how many instructions the verifier may walk for a program. Its limit
// is a million; what it walks is what a start takes, and how near the next
// feature is to that limit.
const walked = 80_000

func TestVerifierBudget(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	diffBudget(t, f.Plane)
	// The programs that look into the tables of before, too.
	change, err := f.Plane.PrepareResize(20000, 20000)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Plane.Commit(change); err != nil {
		t.Fatal(err)
	}
	diffBudget(t, f.Plane)
}

func diffBudget(t *testing.T, p *bpf.Plane) {
	t.Helper()
	for name, program := range map[string]*ebpf.Program{
		"shunt_root": p.ShuntRoot, "shunt_main": p.ShuntMain, "shunt_settle": p.ShuntSettle, "shunt_admit": p.ShuntAdmit, "shunt_create": p.ShuntCreate, "shunt_odd": p.ShuntOdd, "shunt_fragment": p.ShuntFragment,
		"shunt_icmp":   p.ShuntIcmp,
		"shunt_sweep4": p.ShuntSweep4, "shunt_sweep6": p.ShuntSweep6, "shunt_switch": p.ShuntSwitch,
		"shunt_load4": p.ShuntLoad4, "shunt_load6": p.ShuntLoad6,
		"shunt_explain4": p.ShuntExplain4, "shunt_explain6": p.ShuntExplain6,
		"shunt_set_server": p.ShuntSetServer, "shunt_remove4": p.ShuntRemove4, "shunt_remove6": p.ShuntRemove6,
		"shunt_carry": p.ShuntCarry, "shunt_bring4": p.ShuntBring4, "shunt_bring6": p.ShuntBring6, "shunt_add_event": p.ShuntAddEvent,
		"shunt_correct": p.ShuntCorrect, "shunt_absolve": p.ShuntAbsolve, "shunt_clock": p.ShuntClock,
	} {
		info, err := program.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := info.VerifiedInstructions()
		if !ok {
			t.Errorf("%s: the kernel does not say how many instructions it walked", name)
		}
		t.Logf("%s: %d", name, n)
		if n > walked {
			t.Errorf("%s: the verifier walked %d instructions, at most %d", name, n, walked)
		}
	}
}
