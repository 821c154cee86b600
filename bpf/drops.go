package bpf

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
)

// Drop is how many packets ended for one reason, of one service and one interface.
type Drop struct {
	Event     KernelEvent // a drop, an answer or a fault
	Service   uint32      // index; 0: none is known
	Interface uint32      // index of the interface that they came by
	Packets   uint64
	Bytes     uint64 // of the frames, without their checksums
}

// Drops reads the drops that have not been cleared, of all CPUs together, in no order.
func (p *Plane) Drops() ([]Drop, error) {
	at := map[uint64]int{}
	var drops []Drop
	err := eachDropRow(p.KernelMaps.Drops, func(_ uint32, r *KernelDropRow) {
		i, ok := at[r.Key]
		if !ok {
			if r.Packets == r.ClearedPackets {
				return
			}
			i, at[r.Key] = len(drops), len(drops)
			drops = append(drops, DecodeDrop(r.Key))
		}
		drops[i].Packets += r.Packets - r.ClearedPackets
		drops[i].Bytes += r.Bytes - r.ClearedBytes
	})
	return drops, err
}

// DecodeDrop reads the key of a row, or of a note, of drops.
func DecodeDrop(key uint64) Drop {
	return Drop{
		Event:     KernelEvent(uint8(key >> KernelDropLayoutDROP_EVENT)),
		Service:   uint32(key) >> KernelDropLayoutDROP_SERVICE,
		Interface: uint32(key >> KernelDropLayoutDROP_INTERFACE),
	}
}

// ClearDrops has what was counted of the services so far not be shown any more, as of
// those whose indices others are to get. The events' counts stay.
func (p *Plane) ClearDrops(of func(service uint32) bool) error {
	m := p.KernelMaps.Drops
	memory, err := m.Memory()
	if err != nil {
		return fmt.Errorf("share the memory of map %s: %w", m, err)
	}
	var failed error
	err = eachDropRow(m, func(i uint32, r *KernelDropRow) {
		if !of(DecodeDrop(r.Key).Service) || r.Packets == r.ClearedPackets || failed != nil {
			return
		}
		// The CPU goes on writing the rest of its row.
		var cleared [16]byte
		binary.NativeEndian.PutUint64(cleared[:], r.Packets)
		binary.NativeEndian.PutUint64(cleared[8:], r.Bytes)
		if _, err := memory.WriteAt(cleared[:], int64(i)*stride[KernelDropRow]()+int64(unsafe.Offsetof(r.ClearedPackets))); err != nil {
			failed = fmt.Errorf("clear the drops of service %d: %w", DecodeDrop(r.Key).Service, err)
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// eachDropRow calls each with the rows in use and their indices.
func eachDropRow(m *ebpf.Map, each func(index uint32, r *KernelDropRow)) error {
	var rows [256]KernelDropRow
	for first := uint32(0); first < m.MaxEntries(); first += uint32(len(rows)) {
		some := rows[:min(uint32(len(rows)), m.MaxEntries()-first)]
		if err := ReadRange(m, first, some); err != nil {
			return err
		}
		for i := range some {
			if some[i].Key != 0 {
				each(first+uint32(i), &some[i])
			}
		}
	}
	return nil
}
