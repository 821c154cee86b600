package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// ReadSources reads what is remembered of source networks.
func (p *Plane) ReadSources() (map[KernelSourceKey]KernelSource, error) {
	const batch = 4096 // more than a bucket ever has
	keys, values := make([]KernelSourceKey, batch), make([]KernelSource, batch)
	all := map[KernelSourceKey]KernelSource{}
	var cursor ebpf.MapBatchCursor
	for {
		n, err := p.Sources.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read source networks: %w", err)
		}
		for i := range n {
			all[keys[i]] = values[i]
		}
		if err != nil || n == 0 {
			return all, nil
		}
	}
}

// ForgetSources forgets the source networks of the services, by index, that forget
// selects. Those that packets add meanwhile may stay.
func (p *Plane) ForgetSources(forget func(service uint32) bool) error {
	all, err := p.ReadSources()
	if err != nil {
		return err
	}
	for key := range all {
		if !forget(key.Service) {
			continue
		}
		if err := p.Sources.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget a source network: %w", err)
		}
	}
	return nil
}
