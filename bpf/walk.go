package bpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// Slot is a live entry as it lies in a connection table: what walks over millions of
// them judge by, before they decode any.
type Slot struct {
	Source, Destination [4]uint32 // in the ABI's form
	ID, Recipe          uint64    // enum id_layout, enum recipe_layout
	Seen, Hop           uint32
	Group, Index        uint32 // where it lies
	V6                  bool
}

// Server returns the index of its server.
func (s *Slot) Server() uint32 {
	return uint32(s.Recipe >> KernelRecipeLayoutRECIPE_SERVER & uint64(KernelMasksSERVER_MASK))
}

// State returns its state, enum conn_state.
func (s *Slot) State() uint8 {
	return uint8(s.Recipe >> KernelRecipeLayoutRECIPE_STATE & uint64(KernelMasksSTATE_MASK))
}

// Protocol returns its protocol; PROTOCOL_TEMPLATE of a template.
func (s *Slot) Protocol() uint8 { return uint8(s.ID >> KernelIdLayoutID_PROTOCOL) }

// Method returns how its packets are forwarded, enum method; METHOD_NAT of full NAT, see IsFullNAT.
func (s *Slot) Method() uint8 {
	return uint8(s.Recipe >> KernelRecipeLayoutRECIPE_METHOD & uint64(KernelMasksMETHOD_MASK))
}

// IsFullNAT reports whether the client's address is replaced too.
func (s *Slot) IsFullNAT() bool { return IsFullNAT(s.Recipe) }

// Ports returns the ports of its key.
func (s *Slot) Ports() (source, destination uint16) { return ports(s.ID) }

// Is reports whether the bit of the recipe is set.
func (s *Slot) Is(bit KernelRecipeLayout) bool { return s.Recipe>>bit&1 != 0 }

// IsTemplate reports whether it is a persistence template.
func (s *Slot) IsTemplate() bool {
	return s.Protocol() == uint8(KernelTemplateLayoutPROTOCOL_TEMPLATE)
}

// RecipeBits returns the mask of bits of a recipe.
func RecipeBits(bits ...KernelRecipeLayout) (mask uint64) {
	for _, b := range bits {
		mask |= 1 << b
	}
	return mask
}

// Key returns what identifies the entry while it is live, wherever it lies: the id
// without its generation and birth.
func (s *Slot) Key() Key {
	return Key{s.Source, s.Destination, s.ID & idKeyMask}
}

// idKeyMask is of the id's ports and protocol.
const idKeyMask = 1<<KernelIdLayoutID_KEY_BITS - 1

// Key is the key of an entry of a connection table.
type Key struct {
	Source, Destination [4]uint32
	ID                  uint64 // ports and protocol, as ID_PORTS and ID_PROTOCOL
}

// MakeKey makes a key of ports as on the wire.
func MakeKey(source, destination [4]uint32, sourcePort, destinationPort uint16, protocol uint8) Key {
	return Key{source, destination, uint64(protocol)<<KernelIdLayoutID_PROTOCOL | uint64(destinationPort)<<16 | uint64(sourcePort)}
}

// PortsBE returns the key's ports as on the wire.
func (k *Key) PortsBE() (source, destination uint16) { return uint16(k.ID), uint16(k.ID >> 16) }

// Born returns when it began, as born_layout has it.
func (s *Slot) Born() uint16 { return bornOf(s.ID, s.Recipe) }

func bornOf(id, recipe uint64) uint16 {
	return uint16(recipe>>KernelRecipeLayoutRECIPE_BORN&0xff<<KernelBornLayoutBORN_HALF_BITS | id>>KernelIdLayoutID_BORN&0xff)
}

// Age returns how long ago, at the tick now, an entry born then began: to two seconds,
// and at most what its layout can tell (entry.h, enum born_layout).
func (c Clock) Age(born uint16, now uint32) time.Duration {
	units := (now>>KernelBornLayoutBORN_SHIFT - uint32(born)) & uint32(KernelBornLayoutBORN_MASK)
	if units >= bornLater {
		return 0 // it began after now was read
	}
	return time.Duration(units<<KernelBornLayoutBORN_SHIFT) * c.Tick()
}

// bornLater is an age that no entry comes to: the sweep keeps them below BORN_OLDEST,
// and there are hours between the two.
const bornLater = 0xf000

// BornTicks returns the age as ticks, at most as many as an entry can tell.
func (c Clock) BornTicks(age time.Duration) uint32 {
	return min(c.Ticks(max(0, age)), uint32(KernelBornLayoutBORN_OLDEST<<KernelBornLayoutBORN_SHIFT))
}

// Idle returns how long ago, at the tick now, an entry had seen its last packet.
func (c Clock) Idle(seen, now uint32) time.Duration {
	return time.Duration(max(0, int32(now-seen))) * c.Tick()
}

// walkBatch is how many groups one system call reads: a part of the processor's
// cache.
const walkBatch = 32

// Walk is a walk over a connection table, in the order of its groups. It takes no
// lock: entries that come or go meanwhile may be met or not, no other is missed or
// met twice.
type Walk struct {
	table   *ebpf.Map
	v6      bool
	cursor  ebpf.MapBatchCursor
	numbers []uint32
	groups4 []KernelGroup4
	groups6 []KernelGroup6
	n       int
	ended   bool
}

// Walk begins a walk over the IPv4 or the IPv6 table.
func (p *Plane) Walk(v6 bool) *Walk {
	w := &Walk{table: p.Connections4, v6: v6, numbers: make([]uint32, walkBatch)}
	if v6 {
		w.table, w.groups6 = p.Connections6, make([]KernelGroup6, walkBatch)
	} else {
		w.groups4 = make([]KernelGroup4, walkBatch)
	}
	return w
}

// Has reports whether the walk is over a table that is the plane's now.
func (p *Plane) Has(w *Walk) bool { return w.table == p.Connections4 || w.table == p.Connections6 }

// Next reads some more groups, which the next call overwrites; false at the end.
func (w *Walk) Next() (bool, error) {
	if w.ended {
		return false, nil
	}
	var err error
	if w.v6 {
		w.n, err = w.table.BatchLookup(&w.cursor, w.numbers, w.groups6, nil)
	} else {
		w.n, err = w.table.BatchLookup(&w.cursor, w.numbers, w.groups4, nil)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, fmt.Errorf("read connection table: %w", err)
	}
	w.ended = err != nil
	return w.n > 0, nil
}

// Groups returns which groups Next has read.
func (w *Walk) Groups() (first, n uint32) { return w.numbers[0], uint32(w.n) }

// group returns the i-th group that Next has read.
func (w *Walk) group(i int) oneGroup {
	if w.v6 {
		return oneGroup{number: w.numbers[i], v6: &w.groups6[i]}
	}
	return oneGroup{number: w.numbers[i], v4: &w.groups4[i]}
}

// Overflow visits the groups that Next has read, with what they say of their overflow
// slots and how many of those have an entry.
func (w *Walk) Overflow(visit func(group, said, found uint32)) {
	for i := range w.n {
		g := w.group(i)
		said, found := g.overflow()
		visit(g.number, said, found)
	}
}

// Odd visits the slots of the groups that Next has read that neither are free nor
// have an entry: such as are changing, or were left so. What visit is given is
// overwritten by the next one.
func (w *Walk) Odd(visit func(*Slot)) {
	slot := new(Slot)
	for i := range w.n {
		g := w.group(i)
		for j := range uint32(KernelTableShapeSLOTS) {
			if isOdd(g.words(j)) {
				*slot = g.slot(j)
				visit(slot)
			}
		}
	}
}

// Slots visits the live entries of the groups that Next has read, but those with one
// of the bits of skip in their recipes; a slot that was changing while it was read is
// none. It ends early, and returns false, if visit does. What visit is given is
// overwritten by the next one.
func (w *Walk) Slots(skip uint64, visit func(*Slot) bool) bool {
	slot := &Slot{V6: w.v6}
	if w.v6 {
		return w.slots6(slot, skip, visit)
	}
	return w.slots4(slot, skip, visit)
}

func (w *Walk) slots4(slot *Slot, skip uint64, visit func(*Slot) bool) bool {
	for i := range w.groups4[:w.n] {
		slot.Group = w.numbers[i]
		slots := &w.groups4[i].Slots
		for j := range slots {
			e := &slots[j]
			if e.Recipe == 0 || e.Recipe&skip != 0 || isTorn(e.Id, e.Recipe) {
				continue
			}
			slot.fill4(e, j)
			if !visit(slot) {
				return false
			}
		}
	}
	return true
}

func (w *Walk) slots6(slot *Slot, skip uint64, visit func(*Slot) bool) bool {
	for i := range w.groups6[:w.n] {
		slot.Group = w.numbers[i]
		slots := &w.groups6[i].Slots
		for j := range slots {
			e := &slots[j]
			if e.Recipe == 0 || e.Recipe&skip != 0 || isTorn(e.Id, e.Recipe) {
				continue
			}
			slot.fill6(e, j)
			if !visit(slot) {
				return false
			}
		}
	}
	return true
}

func (s *Slot) fill4(e *KernelEntry4, index int) {
	s.Source[0], s.Destination[0] = e.Source, e.Destination
	s.ID, s.Recipe, s.Seen, s.Hop, s.Index = e.Id, e.Recipe, e.Seen, e.Hop, uint32(index)
}

func (s *Slot) fill6(e *KernelEntry6, index int) {
	s.Source, s.Destination = e.Source, e.Destination
	s.ID, s.Recipe, s.Seen, s.Hop, s.Index = e.Id, e.Recipe, e.Seen, e.Hop, uint32(index)
}

// IsLive reports whether the slot has an entry.
func (s *Slot) IsLive() bool { return s.Recipe != 0 && !isTorn(s.ID, s.Recipe) }

// IsFree reports whether an entry may be made in the slot, and nothing is left of
// another.
func (s *Slot) IsFree() bool { return s.Recipe == 0 && s.ID == 0 }

// isOdd says whether the slot is neither.
func isOdd(id, recipe uint64) bool {
	if recipe == 0 {
		return id != 0
	}
	return isTorn(id, recipe)
}

// isTorn says whether id and recipe are not of one entry: the slot was being reused.
func isTorn(id, recipe uint64) bool {
	return (id>>KernelIdLayoutID_GENERATION^recipe)&uint64(KernelMasksGENERATION_MASK) != 0
}
