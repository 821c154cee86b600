package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// MaxAccessSet is the greatest number of a set of prefixes; 0 is none.
const MaxAccessSet = uint32(KernelAccessLayoutACCESS_SET_MASK)

// AccessKey is the key of a prefix in a set.
func AccessKey(set uint32, p netip.Prefix) KernelAccessKey {
	return KernelAccessKey{
		Bits: uint32(KernelAccessLayoutACCESS_SET_BITS) + uint32(p.Bits()), Set: set, Address: Address(p.Masked().Addr()),
	}
}

// Prefix is the inverse of AccessKey; false if the key's length is none of the
// family's.
func (k KernelAccessKey) Prefix(v6 bool) (netip.Prefix, bool) {
	addr := ParseAddress(k.Address, v6)
	p := netip.PrefixFrom(addr, int(k.Bits)-int(KernelAccessLayoutACCESS_SET_BITS))
	return p, p.IsValid()
}

// AccessWord is a service's member access: the set, and whether a client that is
// in none of its prefixes is refused.
func AccessWord(set uint32, denyRest bool) uint32 {
	if denyRest {
		return set | 1<<KernelAccessLayoutACCESS_DENY_REST
	}
	return set
}

// ParseAccessWord is the inverse of AccessWord.
func ParseAccessWord(word uint32) (set uint32, denyRest bool) {
	return word & MaxAccessSet, word>>KernelAccessLayoutACCESS_DENY_REST != 0
}

// accessBatch is how many keys one system call reads.
const accessBatch = 4096

// AccessEntry is a key of the trie with its verdict.
type AccessEntry struct {
	Key     KernelAccessKey
	Verdict uint32 // enum access_verdict
}

// AccessEntries reads all prefixes of all sets. Nobody may change them
// meanwhile, or some may be missing or there twice.
func (p *Plane) AccessEntries() ([]AccessEntry, error) {
	var cursor ebpf.MapBatchCursor
	var all []AccessEntry
	keys, verdicts := make([]KernelAccessKey, accessBatch), make([]uint32, accessBatch)
	for len(all) <= int(p.Access.MaxEntries()) {
		n, err := p.Access.BatchLookup(&cursor, keys, verdicts, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read access lists: %w", err)
		}
		for i := range n {
			all = append(all, AccessEntry{keys[i], verdicts[i]})
		}
		if err != nil || n == 0 {
			break
		}
	}
	return all, nil
}
