package decap_test

import (
	"testing"

	"github.com/shunt-lb/shunt/bpf/decap"
)

// walked is how many instructions the verifier may walk, as of the data plane's programs.
const walked = 80_000

func TestVerifierBudget(t *testing.T) {
	info, err := load(t, config()).Entry.Info()
	if err != nil {
		t.Fatal(err)
	}
	n, ok := info.VerifiedInstructions()
	if t.Logf("walked: %d", n); !ok || n > walked {
		t.Errorf("the verifier walked %d instructions (known: %v), at most %d", n, ok, walked)
	}
}

// TestEvents: every counter has a name of its own, a kind and a text.
func TestEvents(t *testing.T) {
	seen := map[string]bool{"": true}
	for _, e := range decap.Events[1:] {
		if seen[e.Name] || e.Help == "" || e.Kind == "" {
			t.Errorf("event %+v is not named, or its name is not its own", e)
		}
		seen[e.Name] = true
	}
}
