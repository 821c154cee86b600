package xdp

import (
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director/xdp/nexthop"
)

// hopTable hands out the static next hops. A hop never changes while a server
// names it: another one gets another index, so that no packet sees half of two.
type hopTable struct {
	index map[nexthop.Hop]uint32
	uses  map[uint32]int // servers that name it
	hop   map[uint32]nexthop.Hop
	freed map[uint32]time.Time
	next  uint32
	now   func() time.Time
}

func newHopTable() *hopTable {
	return &hopTable{
		index: map[nexthop.Hop]uint32{},
		uses:  map[uint32]int{},
		hop:   map[uint32]nexthop.Hop{},
		freed: map[uint32]time.Time{},
		next:  1, // 0 is no hop
		now:   time.Now,
	}
}

// adopt reads the hops that servers name.
func (t *hopTable) adopt(plane *bpf.Plane, m *model) error {
	for _, s := range m.servers {
		if s.hop == 0 {
			continue
		}
		var k bpf.KernelHop
		if err := plane.Hops.Lookup(s.hop, &k); err != nil {
			return fmt.Errorf("read next hop %d: %w", s.hop, err)
		}
		h := nexthop.Hop{Interface: int(k.Ifindex), Source: k.SourceMac, Destination: k.DestinationMac, MTU: int(k.Mtu)}
		if _, ok := t.index[h]; !ok {
			t.index[h] = s.hop
		}
		t.hop[s.hop] = h
		t.uses[s.hop]++
		t.next = max(t.next, s.hop+1)
	}
	return nil
}

// acquire returns the index of the hop, written to the map if it is new.
func (t *hopTable) acquire(plane *bpf.Plane, h nexthop.Hop) (uint32, error) {
	if i, ok := t.index[h]; ok {
		if err := t.repair(plane, i); err != nil {
			return 0, err
		}
		t.uses[i]++
		delete(t.freed, i)
		return i, nil
	}
	i, err := t.unused()
	if err != nil {
		return 0, err
	}
	k := kernelHop(h)
	if err := plane.Hops.Put(i, &k); err != nil {
		return 0, fmt.Errorf("write next hop %d: %w", i, err)
	}
	t.index[h], t.hop[i] = i, h
	t.uses[i] = 1
	return i, nil
}

// isIntact says whether the map holds the hop with the index as it was written.
func (t *hopTable) isIntact(plane *bpf.Plane, i uint32) bool {
	if i == 0 {
		return true
	}
	var k [1]bpf.KernelHop
	return bpf.ReadRange(plane.Hops, i, k[:]) == nil && k[0] == kernelHop(t.hop[i])
}

// repair writes the hop with the index again if it is another in the map.
func (t *hopTable) repair(plane *bpf.Plane, i uint32) error {
	if t.isIntact(plane, i) {
		return nil
	}
	k := kernelHop(t.hop[i])
	if err := plane.Hops.Put(i, &k); err != nil {
		return fmt.Errorf("write next hop %d: %w", i, err)
	}
	return nil
}

func kernelHop(h nexthop.Hop) bpf.KernelHop {
	return bpf.KernelHop{
		Ifindex: uint32(h.Interface), SourceMac: h.Source, DestinationMac: h.Destination,
		Mtu: uint16(min(h.MTU, 0xffff)),
	}
}

// unused returns an index that no packet can be following any more.
func (t *hopTable) unused() (uint32, error) {
	for i, at := range t.freed {
		if t.now().Sub(at) >= quarantine {
			delete(t.freed, i)
			delete(t.index, t.hop[i])
			delete(t.hop, i)
			return i, nil
		}
	}
	if t.next >= uint32(bpf.KernelHopLayoutSTATIC_HOPS) {
		return 0, fmt.Errorf("all %d next hops are in use", bpf.KernelHopLayoutSTATIC_HOPS)
	}
	t.next++
	return t.next - 1, nil
}

// release says that one server less names the hop.
func (t *hopTable) release(i uint32) {
	if i == 0 {
		return
	}
	if t.uses[i]--; t.uses[i] <= 0 {
		delete(t.uses, i)
		t.freed[i] = t.now()
	}
}
