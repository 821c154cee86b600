package record

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
)

// Reader reads a stream, and nothing behind its end. It is not safe for concurrent
// use. It keeps no more than one frame, whatever the stream says.
type Reader struct {
	header  Header
	r       io.Reader
	buffer  []byte // of the frame
	left    []byte // records of the frame that are not read yet
	n       uint32 // how many they are to be
	total   uint64 // records in all frames so far
	read    uint64 // records handed out
	sum     uint32 // of what has been read
	traffic conntrack.Traffic
	err     error // what ended it
}

// NewReader reads the beginning of a stream.
func NewReader(r io.Reader) (*Reader, error) {
	rd := &Reader{r: r}
	if err := rd.readPreamble(); err != nil {
		return nil, err
	}
	return rd, nil
}

// Header returns what the stream says of itself.
func (r *Reader) Header() Header { return r.header }

// Next reads a record; io.EOF after the last one of a whole stream. What the record
// points to is overwritten by the next one.
func (r *Reader) Next(record *Record) error {
	for len(r.left) == 0 && r.err == nil {
		r.err = r.readFrame()
	}
	if r.err != nil {
		return r.err
	}
	left, err := parseRecord(r.left, record, &r.traffic)
	if err == nil {
		if r.n--; (r.n == 0) != (len(left) == 0) {
			err = damaged("a frame has not as many records as it says")
		}
	}
	if err != nil {
		r.err = fmt.Errorf("record %d: %w", r.read+1, err)
		return r.err
	}
	r.left = left
	r.read++
	return nil
}

// All iterates over the records. What one points to is overwritten by the next one;
// an error is the last that it yields.
func (r *Reader) All() iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		var record Record
		for {
			err := r.Next(&record)
			if errors.Is(err, io.EOF) || !yield(&record, err) || err != nil {
				return
			}
		}
	}
}

func (r *Reader) readPreamble() error {
	head, err := r.take(preambleHead)
	if err != nil {
		return err
	}
	if string(head[:len(magic)]) != magic {
		return damaged("it does not begin as one")
	}
	version := head[len(magic):]
	if major := order.Uint16(version); major != Major {
		return &VersionError{Major: major, Minor: order.Uint16(version[2:])}
	}
	text, err := r.take(int(order.Uint16(version[4:])))
	if err != nil {
		return err
	}
	header, ok := parseHeader(text)
	if err := r.check(); err != nil {
		return err
	}
	if !ok {
		return damaged("its header")
	}
	r.header = header
	return nil
}

func parseHeader(b []byte) (Header, bool) {
	if len(b) < 8 {
		return Header{}, false
	}
	created := time.Unix(0, int64(order.Uint64(b)))
	director, b, ok := cutText(b[8:])
	version, _, all := cutText(b)
	return Header{Created: created, Director: director, Version: version}, ok && all
}

// readFrame reads the next frame; io.EOF if it is the end's.
func (r *Reader) readFrame() error {
	head, err := r.take(frameHead)
	if err != nil {
		return err
	}
	length, n := order.Uint32(head), order.Uint32(head[4:])
	if length == 0 || length > maxFrame || n == 0 && length != 8 {
		return damaged("a frame of %d records in %d bytes", n, length)
	}
	records, err := r.take(int(length))
	if err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	if n > 0 {
		r.left, r.n = records, n
		r.total += uint64(n)
		return nil
	}
	if said := order.Uint64(records); said != r.total {
		return damaged("it has %d records and says %d", r.total, said)
	}
	return io.EOF
}

// take reads n bytes, which the next call overwrites.
func (r *Reader) take(n int) ([]byte, error) {
	if cap(r.buffer) < n+checkSize {
		r.buffer = make([]byte, n+checkSize)
	}
	b := r.buffer[:n]
	if _, err := io.ReadFull(r.r, b); err != nil {
		return nil, readError(err)
	}
	r.sum = crc32.Update(r.sum, checksums, b)
	return b, nil
}

// check compares the checksum that comes now with that of all before it.
func (r *Reader) check() error {
	var b [checkSize]byte
	if _, err := io.ReadFull(r.r, b[:]); err != nil {
		return readError(err)
	}
	if order.Uint32(b[:]) != r.sum {
		return damaged("a checksum is wrong")
	}
	r.sum = crc32.Update(r.sum, checksums, b[:])
	return nil
}

// readError is ErrTruncated where the stream ended.
func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return fmt.Errorf("read a stream of connections: %w", err)
}
