package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// MaxRanges is the most ranges of ports that the services of one prefix and of
// those around it may have.
const MaxRanges = int(KernelMatchLayoutMATCH_RANGES)

// MatchKey is the key of a prefix of virtual addresses.
func MatchKey(protocol uint8, p netip.Prefix) KernelMatchKey {
	family := uint32(4)
	if p.Addr().Is6() {
		family = 6
	}
	return KernelMatchKey{
		Bits: uint32(KernelMatchLayoutMATCH_HEAD_BITS) + uint32(p.Bits()), Head: uint32(protocol) | family<<8,
		Address: Address(p.Masked().Addr()),
	}
}

// Prefix is the inverse of MatchKey; false if MatchKey makes no such key.
func (k KernelMatchKey) Prefix() (protocol uint8, p netip.Prefix, ok bool) {
	protocol = uint8(k.Head)
	addr := ParseAddress(k.Address, k.Head>>8 == 6)
	p = netip.PrefixFrom(addr, int(k.Bits)-int(KernelMatchLayoutMATCH_HEAD_BITS))
	return protocol, p, p.IsValid() && MatchKey(protocol, p) == k
}

// PortsWord is how a range of ports, in host order, lies in the words that a match names;
// the service's index follows it.
func PortsWord(first, last uint16) uint32 { return uint32(first) | uint32(last)<<16 }

// MatchEntry is a key of the trie with what it names.
type MatchEntry struct {
	Key   KernelMatchKey
	Match KernelMatch
}

// matchBatch is how many keys one system call reads.
const matchBatch = 1024

// MatchEntries reads all prefixes. Nobody may change them meanwhile, or some may be
// missing or there twice.
func (p *Plane) MatchEntries() ([]MatchEntry, error) {
	var cursor ebpf.MapBatchCursor
	var all []MatchEntry
	keys, values := make([]KernelMatchKey, matchBatch), make([]KernelMatch, matchBatch)
	for len(all) <= int(p.Matches.MaxEntries()) {
		n, err := p.Matches.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read the prefixes of services: %w", err)
		}
		for i := range n {
			all = append(all, MatchEntry{keys[i], values[i]})
		}
		if err != nil || n == 0 {
			break
		}
	}
	return all, nil
}
