package xdp

import (
	"iter"
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
)

// filter is the address filter for all that has an index: removed services and
// servers too, whose packets are dropped by name.
type filter struct {
	words           *bpf.KernelFilter
	virtual, server bitmap
}

// listed is of how many addresses a prefix at most has the bits of each set. A
// larger one sets all bits, as its addresses would most of them: then each packet
// that is nobody's is looked up in the connection table and among the services
// before it is passed, some 300 to 500 instructions instead of 100.
const listed = 4096

// filterBits is one half of the filter.
type filterBits = [bpf.KernelFilterShapeFILTER_WORDS]uint32

// bitmap is the half with its uses. Addresses share bits, so that they are counted.
type bitmap struct {
	words *filterBits
	uses  map[uint32]int // by bit
	large *int           // prefixes that set all bits
}

func newFilter() filter {
	words := new(bpf.KernelFilter)
	return filter{
		words:   words,
		virtual: bitmap{&words.VirtualAddress, map[uint32]int{}, new(int)},
		server:  bitmap{&words.ServerAddress, map[uint32]int{}, new(int)},
	}
}

func (b bitmap) add(p netip.Prefix) {
	if isLarge(p) {
		*b.large++
		b.write()
		return
	}
	for bit := range bitsOf(p) {
		b.uses[bit]++
		b.words[bit>>5] |= 1 << (bit & 31)
	}
}

func (b bitmap) drop(p netip.Prefix) {
	if isLarge(p) {
		*b.large--
		b.write()
		return
	}
	for bit := range bitsOf(p) {
		if b.uses[bit]--; b.uses[bit] > 0 {
			continue
		}
		delete(b.uses, bit)
		if *b.large == 0 {
			b.words[bit>>5] &^= 1 << (bit & 31)
		}
	}
}

// write sets all bits, or those in use.
func (b bitmap) write() {
	*b.words = filterBits{}
	if *b.large > 0 {
		for i := range b.words {
			b.words[i] = ^uint32(0)
		}
		return
	}
	for bit := range b.uses {
		b.words[bit>>5] |= 1 << (bit & 31)
	}
}

// isLarge says whether the prefix has too many addresses to set the bits of each.
func isLarge(p netip.Prefix) bool {
	free := p.Addr().BitLen() - p.Bits()
	return free > 31 || 1<<free > listed
}

// bitsOf returns the bits of the addresses of a prefix that is not large.
func bitsOf(p netip.Prefix) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for a := p.Masked().Addr(); p.Contains(a); a = a.Next() {
			if !yield(bpf.FilterBit(a)) {
				return
			}
		}
	}
}

// has says whether the words let the prefix's addresses through.
func has(words *filterBits, p netip.Prefix) bool {
	if isLarge(p) {
		for _, word := range words {
			if word != ^uint32(0) {
				return false
			}
		}
		return true
	}
	for bit := range bitsOf(p) {
		if words[bit>>5]>>(bit&31)&1 == 0 {
			return false
		}
	}
	return true
}

// host is the prefix of one address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// writeFilter writes all of it, whatever the kernel has.
func (d *Dataplane) writeFilter() error { return d.plane.SetFilter(d.model.filter.words) }
