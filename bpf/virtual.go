package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// VirtualKey is the key of a prefix of virtual addresses in the trie that says what
// becomes of echo requests to them.
func VirtualKey(p netip.Prefix) KernelVirtualKey {
	family := uint32(4)
	if p.Addr().Is6() {
		family = 6
	}
	return KernelVirtualKey{
		Bits: uint32(KernelVirtualLayoutVIRTUAL_HEAD_BITS) + uint32(p.Bits()), Family: family,
		Address: Address(p.Masked().Addr()),
	}
}

// Prefix is the inverse of VirtualKey; false if VirtualKey makes no such key.
func (k KernelVirtualKey) Prefix() (p netip.Prefix, ok bool) {
	p = netip.PrefixFrom(ParseAddress(k.Address, k.Family == 6), int(k.Bits)-int(KernelVirtualLayoutVIRTUAL_HEAD_BITS))
	return p, p.IsValid() && VirtualKey(p) == k
}

// SetEcho says what becomes of echo requests to the prefix's addresses that no longer
// prefix has.
func (p *Plane) SetEcho(prefix netip.Prefix, echo KernelEcho) error {
	key := VirtualKey(prefix)
	if err := p.VirtualAddresses.Put(key, uint32(echo)); err != nil {
		return fmt.Errorf("write what becomes of echo requests to %s: %w", prefix, err)
	}
	return nil
}

// ClearEcho takes the prefix out of the trie; that it is not there is no error.
func (p *Plane) ClearEcho(key KernelVirtualKey) error {
	if err := p.VirtualAddresses.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete a prefix of virtual addresses: %w", err)
	}
	return nil
}

// EchoEntry is a key of the trie with its value.
type EchoEntry struct {
	Key  KernelVirtualKey
	Echo KernelEcho
}

// EchoEntries reads all prefixes of virtual addresses. Nobody may change them
// meanwhile, or some may be missing or there twice.
func (p *Plane) EchoEntries() ([]EchoEntry, error) {
	var cursor ebpf.MapBatchCursor
	var all []EchoEntry
	keys, values := make([]KernelVirtualKey, matchBatch), make([]uint32, matchBatch)
	for len(all) <= int(p.VirtualAddresses.MaxEntries()) {
		n, err := p.VirtualAddresses.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read the prefixes of virtual addresses: %w", err)
		}
		for i := range n {
			all = append(all, EchoEntry{keys[i], KernelEcho(values[i])})
		}
		if err != nil || n == 0 {
			break
		}
	}
	return all, nil
}
