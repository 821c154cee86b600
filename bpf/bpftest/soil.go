package bpftest

import (
	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

//go:generate go tool -modfile=../../scripts/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -output-stem soil -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -I ../headers -I /usr/include/x86_64-linux-gnu" Soil src/soil.bpf.c

// soiled returns the program that stands in for shunt_root in test runs: it leaves no
// zeros in front of the frame, so that octets which are not written there show. A test
// may have put another plane in the fixture, and the plane another map of slots.
func (f *Fixture) soiled() *ebpf.Program {
	f.t.Helper()
	if f.soil.of == f.Plane.Slots {
		return f.soil.program
	}
	spec, err := LoadSoil()
	f.must(err)
	spec.Maps[SoilMapSlots].MaxEntries = f.Plane.Slots.MaxEntries()
	var programs SoilPrograms
	f.must(spec.LoadAndAssign(&programs, &ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{bpf.KernelMapSlots: f.Plane.Slots},
	}))
	f.must(f.soil.close())
	f.soil = soil{program: programs.Soiled, of: f.Plane.Slots}
	return f.soil.program
}
