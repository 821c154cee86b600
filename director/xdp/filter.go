package xdp

import (
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
)

// filter is the address filter for all that has an index: removed services and
// servers too, whose packets are dropped by name.
type filter struct {
	words           *bpf.KernelFilter
	virtual, server bitmap
}

// bitmap is one half of it. Addresses share bits, so that they are counted.
type bitmap struct {
	words *[bpf.KernelFilterShapeFILTER_WORDS]uint32
	uses  map[uint32]int // by bit
}

func newFilter() filter {
	words := new(bpf.KernelFilter)
	return filter{
		words:   words,
		virtual: bitmap{&words.VirtualAddress, map[uint32]int{}},
		server:  bitmap{&words.ServerAddress, map[uint32]int{}},
	}
}

func (b bitmap) add(a netip.Addr) {
	bit := bpf.FilterBit(a)
	b.uses[bit]++
	b.words[bit>>5] |= 1 << (bit & 31)
}

func (b bitmap) drop(a netip.Addr) {
	bit := bpf.FilterBit(a)
	if b.uses[bit]--; b.uses[bit] > 0 {
		return
	}
	delete(b.uses, bit)
	b.words[bit>>5] &^= 1 << (bit & 31)
}

// has says whether the words have the address's bit.
func has(words *[bpf.KernelFilterShapeFILTER_WORDS]uint32, a netip.Addr) bool {
	bit := bpf.FilterBit(a)
	return words[bit>>5]>>(bit&31)&1 != 0
}

// writeFilter writes all of it, whatever the kernel has.
func (d *Dataplane) writeFilter() error { return d.plane.SetFilter(d.model.filter.words) }
