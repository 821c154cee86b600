package bench

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// Memory is how many bytes of the tables a connection takes, by the memory that the
// kernel accounts for a table of the rated size.
type Memory struct {
	NAT4 float64 `json:"nat4"`
	DR4  float64 `json:"dr4"`
	NAT6 float64 `json:"nat6"`
	DR6  float64 `json:"dr6"`
}

// MeasureMemory makes tables for so many connections, each with the two keys of NAT.
func MeasureMemory(connections uint32) (m Memory, err error) {
	spec, err := bpf.LoadKernel()
	if err != nil {
		return m, err
	}
	for name, of := range map[string]struct{ nat, dr *float64 }{
		bpf.KernelMapConnections4: {&m.NAT4, &m.DR4},
		bpf.KernelMapConnections6: {&m.NAT6, &m.DR6},
	} {
		bytes, err := tableBytes(spec.Maps[name], groups(connections))
		if err != nil {
			return m, err
		}
		*of.nat = float64(bytes) / float64(connections)
		*of.dr = *of.nat / 2 // one key
	}
	return m, nil
}

func tableBytes(spec *ebpf.MapSpec, groups uint32) (uint64, error) {
	spec.MaxEntries = groups
	table, err := ebpf.NewMap(spec)
	if err != nil {
		return 0, fmt.Errorf("make a table of %d groups: %w", groups, err)
	}
	defer table.Close()
	info, err := table.Info()
	if err != nil {
		return 0, fmt.Errorf("read the table's memory: %w", err)
	}
	bytes, ok := info.Memlock()
	if !ok {
		return 0, fmt.Errorf("read the table's memory: the kernel does not tell it: %w", ebpf.ErrNotSupported)
	}
	return bytes, nil
}
