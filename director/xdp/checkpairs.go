package xdp

import (
	"hash/maphash"

	"github.com/shunt-lb/shunt/bpf"
)

// judge suspects an entry of what can be told by itself, and pairs it with its other
// half.
func (c *checker) judge(s *bpf.Slot, halves *pairing) {
	const generationMask = uint64(bpf.KernelMasksGENERATION_MASK)
	isReply, isNAT := s.Is(bpf.KernelRecipeLayoutRECIPE_REPLY), s.Method() == uint8(bpf.KernelMethodMETHOD_NAT)
	switch {
	case s.Recipe&generationMask == 0:
		c.suspectSlot(faultGeneration, s)
	case s.Is(bpf.KernelRecipeLayoutRECIPE_BUSY):
		c.suspectSlot(faultBusy, s)
	case c.view.server(s.Server()) == nil:
		c.suspectSlot(faultServer, s)
	case !c.isPlaced(s):
		c.suspectSlot(faultPlace, s)
	case s.IsTemplate():
		if kind, _ := c.examineTemplate(s); kind != "" {
			c.suspectSlot(kind, s)
		}
	case c.oddEntry(s) != "":
		c.suspectSlot(faultEntry, s)
	case isReply:
		c.meet(halves, s.Key(), s)
	case isNAT:
		if s.Is(bpf.KernelRecipeLayoutRECIPE_PROVEN) {
			c.proven++
		}
		c.meet(halves, c.view.replyKey(s), s)
	}
}

// judgeSlots suspects slots that are not entries, and groups, of what the walk has read.
func (c *checker) judgeSlots(walk *bpf.Walk, v6 bool) {
	walk.Odd(func(s *bpf.Slot) { c.suspectSlot(faultGeneration, s) })
	walk.Overflow(func(group, said, found uint32) {
		if said != found {
			c.add(faultOverflow, suspectKey{v6, group, wholeGroup})
		}
	})
}

// pairing brings the halves of NAT connections together, by the reply key.
type pairing struct {
	seed    maphash.Seed
	waiting map[uint64]half // by its hash: those whose other half is not met yet
}

func newPairing() *pairing { return &pairing{seed: maphash.MakeSeed(), waiting: map[uint64]half{}} }

// half is what of an entry tells whether another may be its other half.
type half struct {
	recipe uint64
	place  uint32 // the forward one's
	where  suspectKey
}

// meet pairs the entry, or has it wait for its other half; both are suspects if they
// differ.
func (c *checker) meet(p *pairing, replyKey bpf.Key, s *bpf.Slot) {
	hash := maphash.Comparable(p.seed, replyKey)
	other, met := p.waiting[hash]
	mine := half{s.Recipe, widePlace(s), suspectKey{s.V6, s.Group, s.Index}}
	if s.Is(bpf.KernelRecipeLayoutRECIPE_REPLY) {
		mine.place = s.Hop
	}
	if !met {
		p.waiting[hash] = mine
		return
	}
	delete(p.waiting, hash)
	forward, reply := mine, other
	if s.Is(bpf.KernelRecipeLayoutRECIPE_REPLY) {
		forward, reply = other, mine
	}
	f, r := bpf.Slot{Recipe: forward.recipe}, bpf.Slot{Recipe: reply.recipe}
	isWide := r.Is(bpf.KernelRecipeLayoutRECIPE_WIDE)
	kind, _ := differing(&f, &r)
	if f.Is(bpf.KernelRecipeLayoutRECIPE_REPLY) || !r.Is(bpf.KernelRecipeLayoutRECIPE_REPLY) || f.Server() != r.Server() ||
		isWide && forward.place != reply.place {
		kind = faultHalves
	}
	if kind != "" {
		c.add(kind, forward.where)
		c.add(kind, reply.where)
	}
}
