package bpf

import "github.com/cilium/ebpf"

// LoadBatch is how many connections the program takes in one run.
const LoadBatch = int(KernelLoadShapeLOAD_BATCH)

// Load inserts connections and templates that exist elsewhere, of one family, and
// writes into each what became of it (arguments.h, enum load_result). One that is
// there stays as it is.
func (p *Plane) Load(v6 bool, entries []KernelLoadEntry) error {
	prog := p.ShuntLoad4
	if v6 {
		prog = p.ShuntLoad6
	}
	for len(entries) > 0 {
		var args KernelLoadArgs
		n := copy(args.Entries[:], entries)
		args.Count = uint32(n)
		if err := p.run(prog, func(prog *ebpf.Program) (int32, error) { return 0, runOnTable(prog, &args) }); err != nil {
			return err
		}
		copy(entries, args.Entries[:n])
		entries = entries[n:]
	}
	return nil
}
