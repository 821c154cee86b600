package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/fnv"
	"io"
	"slices"
)

// The layout of a bbolt file (go.etcd.io/bbolt v1.5.0: internal/common/page.go,
// meta.go, bucket.go), in the byte order of the machine:
//
//	page:    id 8 | flags 2 | count 2 | pages that follow and belong to it 4 | content
//	meta:    magic 4 | version 4 | page size 4 | flags 4 | root page 8 | sequence 8 |
//	         free list's page 8 | number of pages 8 | transaction 8 | FNV-1a of these 8
//	branch:  elements: offset of the key from the element 4 | its size 4 | page 8
//	leaf:    elements: flags 4 | offset of the key 4 | its size 4 | size of the value,
//	         which follows the key, 4
//	bucket:  a leaf's value: root page 8 | sequence 8 | with root page 0 a page of its own
const (
	pageHead    = 16
	elementSize = 16
	bucketHead  = 16
	metaSize    = 64

	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageMeta     = 0x04
	pageFreelist = 0x10

	leafBucket = 0x01 // flag of an element: the value is a bucket

	metaMagic   = 0xED0CDAED
	metaVersion = 2

	minPageSize, maxPageSize = 1 << 10, 1 << 16

	// maxDepth is far more levels than a tree has: each has two entries at least.
	maxDepth = 48
)

var order = binary.NativeEndian

// image is a bbolt file that is read with nothing taken for granted: every
// offset is checked, and no page is visited twice. What it accepts, bbolt can map
// and change without running into a fault.
type image struct {
	ctx      context.Context
	file     io.ReaderAt
	pageSize int64
	root     uint64
	freelist uint64
	seen     []bool // by page
}

// newImage reads the newer of the two meta pages, as bbolt does: the one being
// written when the host failed is void, and the other counts.
func newImage(ctx context.Context, file io.ReaderAt, size int64) (*image, error) {
	m := &image{ctx: ctx, file: file}
	var newest []byte
	if meta := m.meta(0, 0); meta != nil {
		newest, m.pageSize = meta, int64(order.Uint32(meta[8:]))
	}
	for pageSize := int64(minPageSize); pageSize <= maxPageSize; pageSize *= 2 {
		meta := m.meta(1, pageSize)
		if meta == nil || int64(order.Uint32(meta[8:])) != pageSize || newest != nil && pageSize != m.pageSize {
			continue
		}
		if newest == nil || order.Uint64(meta[48:]) > order.Uint64(newest[48:]) {
			newest, m.pageSize = meta, pageSize
		}
		break
	}
	if newest == nil {
		return nil, damaged("no bbolt file: neither meta page is valid (%d bytes)", size)
	}
	if m.pageSize < minPageSize || m.pageSize > maxPageSize || m.pageSize&(m.pageSize-1) != 0 {
		return nil, damaged("pages of %d bytes", m.pageSize)
	}
	m.root, m.freelist = order.Uint64(newest[16:]), order.Uint64(newest[32:])
	pages := order.Uint64(newest[40:])
	if have := uint64(size / m.pageSize); pages > have {
		return nil, damaged("cut: %d of %d pages are there", have, pages)
	}
	if pages < 4 {
		return nil, damaged("%d pages", pages)
	}
	m.seen = make([]bool, pages)
	return m, nil
}

// meta returns the meta page at the offset, or nil if it is void.
func (m *image) meta(id uint64, offset int64) []byte {
	data := make([]byte, pageHead+metaSize)
	if _, err := m.file.ReadAt(data, offset); err != nil {
		return nil
	}
	meta := data[pageHead:]
	h := fnv.New64a()
	h.Write(meta[:metaSize-8])
	if order.Uint32(meta) != metaMagic || order.Uint32(meta[4:]) != metaVersion || order.Uint64(meta[metaSize-8:]) != h.Sum64() {
		return nil
	}
	if order.Uint64(data) != id || order.Uint16(data[8:]) != pageMeta {
		return nil
	}
	return meta
}

// walk visits all keys of all buckets in order, and checks that every page is
// either used once or free. Key and value are valid during the visit.
func (m *image) walk(visit func(bucket, key, value []byte) error) error {
	err := m.tree(m.root, 0, nil, nil, func(flags uint32, name, value []byte) error {
		if flags != leafBucket || len(value) < bucketHead {
			return damaged("%q is no bucket", name)
		}
		entry := func(flags uint32, key, value []byte) error {
			if flags != 0 {
				return damaged("%q in %q is no value", key, name)
			}
			return visit(name, key, value)
		}
		if root := order.Uint64(value); root != 0 {
			return m.tree(root, 0, nil, nil, entry)
		}
		if len(value) < bucketHead+pageHead {
			return damaged("bucket %q is cut", name)
		}
		if flags := order.Uint16(value[bucketHead+8:]); flags != pageLeaf {
			return damaged("bucket %q has a page with flags %#x", name, flags)
		}
		return m.node(value[bucketHead:], 0, nil, nil, entry)
	})
	if err != nil {
		return err
	}
	if err := m.free(); err != nil {
		return err
	}
	if lost := slices.Index(m.seen[2:], false); lost >= 0 {
		return damaged("page %d is neither used nor free", lost+2)
	}
	return nil
}

type visitor func(flags uint32, key, value []byte) error

// tree visits the subtree of a page; its keys are from low on and below high,
// which are nil where there is no limit.
func (m *image) tree(id uint64, depth int, low, high []byte, visit visitor) error {
	data, err := m.page(id)
	if err != nil {
		return err
	}
	return m.node(data, depth, low, high, visit)
}

// node visits what a page holds.
func (m *image) node(data []byte, depth int, low, high []byte, visit visitor) error {
	id, flags, count := order.Uint64(data), order.Uint16(data[8:]), int(order.Uint16(data[10:]))
	if flags != pageBranch && flags != pageLeaf || depth > maxDepth {
		return damaged("page %d: flags %#x at depth %d", id, flags, depth)
	}
	if flags == pageBranch && count == 0 || pageHead+count*elementSize > len(data) {
		return damaged("page %d: %d entries", id, count)
	}
	var before []byte
	for i := range count {
		key, value, ok := element(data, flags, i)
		switch {
		case !ok, len(key) == 0:
			return damaged("page %d: entry %d lies outside of it, or has no key", id, i)
		case i > 0 && bytes.Compare(before, key) >= 0, bytes.Compare(key, low) < 0, high != nil && bytes.Compare(key, high) >= 0:
			return damaged("page %d: entry %d is out of order", id, i)
		}
		before = key
		at := data[pageHead+i*elementSize:]
		if flags == pageLeaf {
			if err := visit(order.Uint32(at), key, value); err != nil {
				return err
			}
			continue
		}
		next := high
		if i+1 < count {
			if next, _, ok = element(data, flags, i+1); !ok {
				return damaged("page %d: entry %d lies outside of it", id, i+1)
			}
		}
		if err := m.tree(order.Uint64(at[8:]), depth+1, key, next, visit); err != nil {
			return err
		}
	}
	return nil
}

// element returns key and value of a page's entry, and whether they lie in it.
func element(data []byte, flags uint16, i int) (key, value []byte, ok bool) {
	offset := uint64(pageHead + i*elementSize)
	at := data[offset:]
	var pos, keySize, valueSize uint64
	if flags == pageBranch {
		pos, keySize = uint64(order.Uint32(at)), uint64(order.Uint32(at[4:]))
	} else {
		pos, keySize, valueSize = uint64(order.Uint32(at[4:])), uint64(order.Uint32(at[8:])), uint64(order.Uint32(at[12:]))
	}
	start := offset + pos
	if start+keySize+valueSize > uint64(len(data)) {
		return nil, nil, false
	}
	return data[start : start+keySize], data[start+keySize : start+keySize+valueSize], true
}

// page reads a page with those that belong to it, and marks them as seen.
func (m *image) page(id uint64) ([]byte, error) {
	if err := m.ctx.Err(); err != nil {
		return nil, err
	}
	pages := uint64(len(m.seen))
	if id < 2 || id >= pages {
		return nil, damaged("page %d of %d is referred to", id, pages)
	}
	head := make([]byte, pageHead)
	offset := int64(id) * m.pageSize
	if _, err := m.file.ReadAt(head, offset); err != nil {
		return nil, damaged("page %d: %v", id, err)
	}
	more := uint64(order.Uint32(head[12:]))
	if own := order.Uint64(head); own != id || id+more >= pages {
		return nil, damaged("page %d: says that it is page %d and %d more", id, own, more)
	}
	for i := id; i <= id+more; i++ {
		if err := m.mark(i); err != nil {
			return nil, err
		}
	}
	data := make([]byte, int64(more+1)*m.pageSize)
	if _, err := m.file.ReadAt(data, offset); err != nil {
		return nil, damaged("page %d: %v", id, err)
	}
	return data, nil
}

func (m *image) mark(id uint64) error {
	if id < 2 || id >= uint64(len(m.seen)) || m.seen[id] {
		return damaged("page %d is used twice, or not there", id)
	}
	m.seen[id] = true
	return nil
}

// free marks the pages of the free list. A count of 0xffff stands for the true
// one, which is then the first entry.
func (m *image) free() error {
	data, err := m.page(m.freelist)
	if err != nil {
		return err
	}
	if flags := order.Uint16(data[8:]); flags != pageFreelist {
		return damaged("page %d: flags %#x are not the free list's", m.freelist, flags)
	}
	count, list := uint64(order.Uint16(data[10:])), data[pageHead:]
	if count == 0xffff {
		count, list = order.Uint64(list), list[8:]
	}
	if count > uint64(len(list)/8) {
		return damaged("page %d: a free list of %d entries", m.freelist, count)
	}
	for i := range count {
		if err := m.mark(order.Uint64(list[8*i:])); err != nil {
			return err
		}
	}
	return nil
}
