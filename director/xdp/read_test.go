package xdp

import (
	"testing"

	"github.com/cilium/ebpf"
)

// A map that cannot be read is an error: what it held would look like somebody
// else's doing, and be repaired.
func TestReadErrors(t *testing.T) {
	r := newRepairRig(t)
	for name, of := range map[string]**ebpf.Map{
		"servers": &r.plane.Servers, "loads": &r.plane.Loads, "timeouts": &r.plane.Timeouts, "words": &r.plane.Words,
	} {
		t.Run(name, func(t *testing.T) {
			kept := *of
			defer func() { *of = kept }()
			closed, err := kept.Clone()
			if err != nil {
				t.Fatal(err)
			}
			if err := closed.Close(); err != nil {
				t.Fatal(err)
			}
			*of = closed
			if state, err := r.Found(t.Context()); err == nil {
				t.Errorf("found %d services", len(state.Services))
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if reading, err := read(r.plane); err == nil {
				if reading.model(newArena(r.plane.Limits.Words)); reading.failed == nil {
					t.Error("a model was made of it")
				}
			}
		})
	}
	if _, err := r.Found(t.Context()); err != nil {
		t.Error(err)
	}
}
