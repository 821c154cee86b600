package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// DestinationEntry is what lblc or lblcr remembers of one virtual address.
type DestinationEntry struct {
	Key   KernelDestinationKey
	Value KernelDestination
}

// Servers are the indices that the entry names, newest first.
func (e *DestinationEntry) Servers() []uint32 {
	return e.Value.Servers[:min(int(e.Value.Count), len(e.Value.Servers))]
}

// destinationBatch is how many entries one system call reads: a third of a MiB.
const destinationBatch = 2048

// DestinationEntries reads all that lblc and lblcr remember. The fast path goes on
// meanwhile: an entry that comes or goes may be missing or there twice.
func (p *Plane) DestinationEntries() ([]DestinationEntry, error) {
	var cursor ebpf.MapBatchCursor
	var all []DestinationEntry
	size := min(destinationBatch, int(p.Destinations.MaxEntries()))
	keys, values := make([]KernelDestinationKey, size), make([]KernelDestination, size)
	for len(all) <= int(p.Destinations.MaxEntries()) {
		n, err := p.Destinations.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read the destinations of lblc and lblcr: %w", err)
		}
		for i := range n {
			all = append(all, DestinationEntry{keys[i], values[i]})
		}
		if err != nil || n == 0 {
			break
		}
	}
	return all, nil
}
