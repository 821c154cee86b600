package bpftest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/cilium/ebpf"
)

// content is what one map held when it was looked at. restore gives it back.
type content struct {
	of *ebpf.Map
	// memory is of a map shared with user space, by chunks; nil: zeros.
	memory [][]byte
	// rows are of another array, an element or a CPU's part of one each.
	rows reflect.Value
	// pairs are of what is no array: values by keys, of programs their numbers.
	pairs map[string][]byte
}

// chunk divides the size of every mapped memory, which is whole pages.
const chunk = 4096

// isShared is whether user space maps the memory: BPF_F_MMAPABLE (kernel:
// include/uapi/linux/bpf.h).
func isShared(m *ebpf.Map) bool { return m.Flags()&(1<<10) != 0 }

// contentOf looks at a map, which nobody must change meanwhile.
func contentOf(m *ebpf.Map) (c *content, err error) {
	c = &content{of: m}
	switch m.Type() {
	case ebpf.Array, ebpf.PerCPUArray:
		if isShared(m) {
			err = eachChunk(m, func(now []byte, _ func([]byte) error) error {
				if isZero(now) {
					now = nil
				}
				c.memory = append(c.memory, bytes.Clone(now))
				return nil
			})
		} else {
			c.rows, err = readRows(m)
		}
	case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie, ebpf.DevMapHash, ebpf.ProgramArray:
		c.pairs, err = readPairs(m)
	case ebpf.RingBuf: // see loaded.restore
	default:
		err = errors.New("this package does not know how to bring maps of this type back: teach it")
	}
	if err != nil {
		return nil, fmt.Errorf("look at map %s: %w", m, err)
	}
	return c, nil
}

// restore makes the map hold that again, and nothing else.
func (c *content) restore() error {
	var err error
	switch {
	case c.memory != nil:
		at := 0
		err = eachChunk(c.of, func(now []byte, write func([]byte) error) error {
			want := c.memory[at]
			at++
			if want == nil {
				want = zeros[:len(now)]
			}
			if bytes.Equal(now, want) {
				return nil
			}
			return write(want)
		})
	case c.rows.IsValid():
		err = c.restoreRows()
	case c.pairs != nil:
		err = c.restorePairs()
	}
	if err != nil {
		return fmt.Errorf("bring map %s back: %w", c.of, err)
	}
	return nil
}

var zeros [chunk]byte

func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// eachChunk shows the map's memory, and how to overwrite what is shown.
func eachChunk(m *ebpf.Map, do func(now []byte, write func([]byte) error) error) error {
	memory, err := m.Memory()
	if err != nil {
		return err
	}
	var now [chunk]byte
	for at := int64(0); at < int64(memory.Size()); at += chunk {
		n, err := memory.ReadAt(now[:], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := do(now[:n], func(b []byte) error { _, err := memory.WriteAt(b, at); return err }); err != nil {
			return err
		}
	}
	return nil
}

// readRows reads an array: elements in their order, each with all CPUs' parts of it.
func readRows(m *ebpf.Map) (reflect.Value, error) {
	entries, rows := int(m.MaxEntries()), int(m.MaxEntries())
	if m.Type() == ebpf.PerCPUArray {
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return reflect.Value{}, err
		}
		rows *= cpus
	}
	values := rowsOf(m, rows)
	var cursor ebpf.MapBatchCursor
	n, err := m.BatchLookup(&cursor, make([]uint32, entries), values.Interface(), nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return reflect.Value{}, err
	}
	if n != entries {
		return reflect.Value{}, fmt.Errorf("%d elements of %d read", n, entries)
	}
	return values, nil
}

// rowsOf makes a slice of the map's values: calls for many elements want to know
// the size of one.
func rowsOf(m *ebpf.Map, n int) reflect.Value {
	value := reflect.ArrayOf(int(m.ValueSize()), reflect.TypeFor[byte]())
	return reflect.MakeSlice(reflect.SliceOf(value), n, n)
}

func (c *content) restoreRows() error {
	now, err := readRows(c.of)
	if err != nil {
		return err
	}
	each := now.Len() / int(c.of.MaxEntries())
	var keys []uint32
	values := rowsOf(c.of, 0)
	for i := range c.of.MaxEntries() {
		first, end := int(i)*each, (int(i)+1)*each
		want := c.rows.Slice(first, end)
		if !equalRows(now.Slice(first, end), want) {
			keys, values = append(keys, i), reflect.AppendSlice(values, want)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	_, err = c.of.BatchUpdate(keys, values.Interface(), nil)
	return err
}

func equalRows(a, b reflect.Value) bool {
	for i := range a.Len() {
		if !bytes.Equal(a.Index(i).Bytes(), b.Index(i).Bytes()) {
			return false
		}
	}
	return true
}

// readPairs reads all keys that there are, and their values.
func readPairs(m *ebpf.Map) (map[string][]byte, error) {
	pairs := map[string][]byte{}
	var key, next []byte
	var err error
	for next, err = m.NextKeyBytes(nil); err == nil && next != nil; next, err = m.NextKeyBytes(key) {
		key = next
		value, err := m.LookupBytes(key) // of a slot without a program none
		if err != nil {
			return nil, err
		}
		if value != nil {
			pairs[string(key)] = value
		}
	}
	return pairs, err
}

func (c *content) restorePairs() error {
	now, err := readPairs(c.of)
	if err != nil {
		return err
	}
	for key := range now {
		if _, wanted := c.pairs[key]; !wanted {
			if err := c.of.Delete([]byte(key)); err != nil {
				return err
			}
		}
	}
	for key, want := range c.pairs {
		if !bytes.Equal(now[key], want) {
			if err := c.put([]byte(key), want); err != nil {
				return err
			}
		}
	}
	return nil
}

// put writes a pair. User space reads a program's number where it writes a handle.
func (c *content) put(key, value []byte) error {
	if c.of.Type() != ebpf.ProgramArray {
		return c.of.Put(key, value)
	}
	var id uint32
	if _, err := binary.Decode(value, binary.NativeEndian, &id); err != nil {
		return err
	}
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return err
	}
	defer program.Close()
	return c.of.Put(key, program)
}
