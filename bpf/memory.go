package bpf

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/cilium/ebpf"
)

// stride is how far apart an array map's elements lie in its memory (kernel:
// kernel/bpf/arraymap.c, array_map_alloc: elem_size is rounded up to 8).
func stride[T any]() int64 {
	var element T
	return int64(unsafe.Sizeof(element)+7) &^ 7
}

// ReadArray reads all elements of an array map, by no system call if its memory
// is shared with user space (maps.h, SHARED_MAP).
func ReadArray[T any](m *ebpf.Map) ([]T, error) {
	if m.Flags()&sharedFlag != 0 {
		all := make([]T, m.MaxEntries())
		return all, ReadRange(m, 0, all)
	}
	var cursor ebpf.MapBatchCursor
	all := make([]T, m.MaxEntries())
	keys := make([]uint32, m.MaxEntries())
	n, err := m.BatchLookup(&cursor, keys, all, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("read map %s: %w", m, err)
	}
	return all[:n], nil
}

// sharedFlag is BPF_F_MMAPABLE, kernel: include/uapi/linux/bpf.h.
const sharedFlag = 1 << 10

// ReadRange fills elements from those of a shared array map, from first on. An
// element that is written meanwhile may be read by halves.
func ReadRange[T any](m *ebpf.Map, first uint32, elements []T) error {
	if len(elements) == 0 {
		return nil
	}
	if uint64(first)+uint64(len(elements)) > uint64(m.MaxEntries()) {
		return fmt.Errorf("read %d elements of map %s from %d on: it has %d", len(elements), m, first, m.MaxEntries())
	}
	memory, err := m.Memory()
	if err != nil {
		return fmt.Errorf("share the memory of map %s: %w", m, err)
	}
	step, size := stride[T](), int(unsafe.Sizeof(elements[0]))
	whole := unsafe.Slice((*byte)(unsafe.Pointer(&elements[0])), size*len(elements))
	if int64(size) == step {
		_, err = memory.ReadAt(whole, int64(first)*step)
		return wrapRead(m, err)
	}
	var buffer [4096]byte
	perRead := len(buffer) / int(step)
	for done := 0; done < len(elements); done += perRead {
		n := min(perRead, len(elements)-done)
		if _, err := memory.ReadAt(buffer[:n*int(step)], (int64(first)+int64(done))*step); err != nil {
			return wrapRead(m, err)
		}
		for i := range n {
			copy(whole[(done+i)*size:], buffer[i*int(step):i*int(step)+size])
		}
	}
	return nil
}

func wrapRead(m *ebpf.Map, err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the memory of map %s: %w", m, err)
	}
	return nil
}

// WriteRange writes elements of a shared array map, from first on. It is for
// elements that nobody reads meanwhile: they are not written at once.
func WriteRange[T any](m *ebpf.Map, first uint32, elements []T) error {
	if uint64(first)+uint64(len(elements)) > uint64(m.MaxEntries()) {
		return fmt.Errorf("write %d elements of map %s from %d on: it has %d", len(elements), m, first, m.MaxEntries())
	}
	memory, err := m.Memory()
	if err != nil {
		return fmt.Errorf("share the memory of map %s: %w", m, err)
	}
	step, size := int(stride[T]()), int(unsafe.Sizeof(*new(T)))
	if len(elements) == 0 {
		return nil
	}
	spaced := make([]byte, step*len(elements))
	for i := range elements {
		copy(spaced[i*step:], unsafe.Slice((*byte)(unsafe.Pointer(&elements[i])), size))
	}
	if _, err := memory.WriteAt(spaced, int64(first)*int64(step)); err != nil {
		return fmt.Errorf("write the memory of map %s: %w", m, err)
	}
	return nil
}

// ClearArray writes zeros over all elements of a shared array map.
func ClearArray[T any](m *ebpf.Map) error {
	memory, err := m.Memory()
	if err != nil {
		return fmt.Errorf("share the memory of map %s: %w", m, err)
	}
	var zeros [4096]byte
	for at, size := int64(0), int64(m.MaxEntries())*stride[T](); at < size; at += int64(len(zeros)) {
		if _, err := memory.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return fmt.Errorf("clear map %s: %w", m, err)
		}
	}
	return nil
}

// readPerCPU reads the first count elements of a per-CPU array map, one call of
// each for every element and CPU.
func readPerCPU[T any](m *ebpf.Map, count uint32, each func(index uint32, value *T)) error {
	const batch = 1024
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	var cursor ebpf.MapBatchCursor
	keys, values := make([]uint32, batch), make([]T, batch*cpus)
	for done := uint32(0); done < count; {
		want := int(min(batch, count-done))
		n, err := m.BatchLookup(&cursor, keys[:want], values[:want*cpus], nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read map %s: %w", m, err)
		}
		for i := range n {
			for cpu := range cpus {
				each(keys[i], &values[i*cpus+cpu])
			}
		}
		if done += uint32(n); err != nil {
			break
		}
	}
	return nil
}

// ReadServiceIndex reads which service has which key.
func (p *Plane) ReadServiceIndex() (map[KernelServiceKey]uint32, error) {
	size := int(p.ServiceIndex.MaxEntries())
	index := make(map[KernelServiceKey]uint32, size)
	keys, values := make([]KernelServiceKey, size), make([]uint32, size)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := p.ServiceIndex.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read the index of services: %w", err)
		}
		for i := range n {
			index[keys[i]] = values[i]
		}
		if err != nil || n == 0 {
			return index, nil
		}
	}
}

// Filter reads the address filter.
func (p *Plane) Filter() (*KernelFilter, error) {
	f := new(KernelFilter)
	if err := p.filter.Lookup(uint32(0), f); err != nil {
		return nil, fmt.Errorf("read address filter: %w", err)
	}
	return f, nil
}
