package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Place is where entries with a key can be: in the set of slots that begins with
// First, or in the overflow slots of the group.
type Place struct {
	Group, First uint32
}

// Has reports whether the group's slot is one of them.
func (p Place) Has(slot uint32) bool {
	const sets = uint32(KernelTableShapeSETS * KernelTableShapeWAYS)
	return slot-p.First < uint32(KernelTableShapeWAYS) || slot >= sets && slot < uint32(KernelTableShapeSLOTS)
}

// Place returns where entries with the key can be in the table (table.h, hash_key and
// locate).
func (p *Plane) Place(v6 bool, key *Key) Place {
	const finisher = 0xbf58476d1ce4e5b9 // of SplitMix64
	s, d, seed := &key.Source, &key.Destination, &p.kept.Seed
	pair := func(i int, a, b uint64) uint64 { return (seed[i] + a) * (seed[i+1] + b) }
	hash := seed[10] + pair(0, uint64(s[0]), uint64(d[0])) + pair(2, uint64(uint32(key.ID)), key.ID>>KernelIdLayoutID_PROTOCOL)
	groups := p.Connections4.MaxEntries()
	if v6 {
		groups = p.Connections6.MaxEntries()
		hash += pair(4, uint64(s[1]), uint64(d[1])) + pair(6, uint64(s[2]), uint64(d[2])) + pair(8, uint64(s[3]), uint64(d[3]))
	}
	hash = (hash ^ hash>>29) * finisher
	product := hash >> 32 * uint64(groups)
	set := uint64(uint32(product)) * uint64(KernelTableShapeSETS) >> 32
	return Place{Group: uint32(product >> 32), First: uint32(set) * uint32(KernelTableShapeWAYS)}
}

// Find looks the key up as a packet would; false if it has no live entry.
func (p *Plane) Find(v6 bool, key *Key) (Slot, bool, error) {
	place := p.Place(v6, key)
	group, err := p.readGroup(v6, place.Group)
	if err != nil {
		return Slot{}, false, err
	}
	for i := range uint32(KernelTableShapeSLOTS) {
		if !place.Has(i) {
			continue
		}
		if s := group.slot(i); s.IsLive() && s.Key() == *key {
			return s, true, nil
		}
	}
	return Slot{}, false, nil
}

// SlotAt reads a slot as it is now, whether or not there is an entry.
func (p *Plane) SlotAt(v6 bool, group, index uint32) (Slot, error) {
	g, err := p.readGroup(v6, group)
	if err != nil || index >= uint32(KernelTableShapeSLOTS) {
		return Slot{V6: v6, Group: group, Index: index}, err
	}
	return g.slot(index), nil
}

// oneGroup is a group as it was read.
type oneGroup struct {
	number uint32
	v4     *KernelGroup4
	v6     *KernelGroup6 // nil: it is of the IPv4 table
}

func (p *Plane) readGroup(v6 bool, number uint32) (g oneGroup, err error) {
	g.number = number
	if v6 {
		g.v6 = new(KernelGroup6)
		err = p.Connections6.Lookup(number, g.v6)
	} else {
		g.v4 = new(KernelGroup4)
		err = p.Connections4.Lookup(number, g.v4)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // none of that number: it is as if empty
		return g, fmt.Errorf("read connection table: %w", err)
	}
	return g, nil
}

// overflow returns what the group says of its overflow slots, and how many have an
// entry.
func (g *oneGroup) overflow() (said, found uint32) {
	for i := uint32(KernelTableShapeSETS * KernelTableShapeWAYS); i < uint32(KernelTableShapeSLOTS); i++ {
		if _, recipe := g.words(i); recipe != 0 {
			found++
		}
	}
	if g.v6 != nil {
		return g.v6.Strays, found
	}
	return g.v4.Strays, found
}

// words returns the slot's id and recipe.
func (g *oneGroup) words(index uint32) (id, recipe uint64) {
	if g.v6 != nil {
		return g.v6.Slots[index].Id, g.v6.Slots[index].Recipe
	}
	return g.v4.Slots[index].Id, g.v4.Slots[index].Recipe
}

func (g *oneGroup) slot(index uint32) Slot {
	s := Slot{V6: g.v6 != nil, Group: g.number}
	if s.V6 {
		s.fill6(&g.v6.Slots[index], int(index))
	} else {
		s.fill4(&g.v4.Slots[index], int(index))
	}
	return s
}

// Overflow reads what the group says of its overflow slots, and how many of them
// have an entry.
func (p *Plane) Overflow(v6 bool, group uint32) (said, found uint32, err error) {
	g, err := p.readGroup(v6, group)
	if err != nil {
		return 0, 0, err
	}
	said, found = g.overflow()
	return said, found, nil
}
