package record

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// checksums is of the checksums' polynomial.
var checksums = crc32.MakeTable(crc32.Castagnoli)

// Writer writes a stream. It is not safe for concurrent use.
type Writer struct {
	w     io.Writer
	frame []byte // its head, and the records so far
	sum   uint32 // of what has been written
	n     uint32 // records in the frame
	total uint64 // records in the frames before
	err   error  // of an earlier write: the stream cannot go on
}

// NewWriter begins a stream on w. What it says of itself takes no more than a frame.
func NewWriter(w io.Writer, header Header) (*Writer, error) {
	if len(header.Director) > maxText || len(header.Version) > maxText {
		return nil, fmt.Errorf("write a stream of connections: the director's name and version may have %d bytes each", maxText)
	}
	wr := &Writer{w: w, frame: make([]byte, frameHead, frameHead+maxFrame+checkSize)}
	text := order.AppendUint64(nil, uint64(header.Created.UnixNano()))
	text = append(append(text, uint8(len(header.Director))), header.Director...)
	text = append(append(text, uint8(len(header.Version))), header.Version...)
	b := append(make([]byte, 0, preambleHead+len(text)+checkSize), magic...)
	b = order.AppendUint16(b, Major)
	b = order.AppendUint16(b, Minor)
	b = order.AppendUint16(b, uint16(len(text)))
	return wr, wr.write(append(b, text...))
}

// Write appends a record. The error of one that cannot be written says why, and the
// stream goes on without it.
func (w *Writer) Write(r *Record) error {
	if w.err != nil {
		return w.err
	}
	if len(w.frame) > frameHead+maxFrame-maxSize {
		if err := w.flush(); err != nil {
			return err
		}
	}
	frame, err := appendRecord(w.frame, r)
	if err != nil {
		return fmt.Errorf("write connection of %s: %w", r.Connection.Client, err)
	}
	w.frame = frame
	w.n++
	return nil
}

// Close ends the stream; without it readers take it for truncated. It leaves the
// underlying writer open.
func (w *Writer) Close() error {
	if w.n > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.err != nil {
		return w.err
	}
	end := order.AppendUint32(w.frame[:0], 8)
	end = order.AppendUint32(end, 0)
	if err := w.write(order.AppendUint64(end, w.total)); err != nil {
		return err
	}
	w.err = errClosed
	return nil
}

var errClosed = errors.New("the stream of connections was ended")

// flush writes the frame and begins another one.
func (w *Writer) flush() error {
	if w.err != nil {
		return w.err
	}
	order.PutUint32(w.frame, uint32(len(w.frame)-frameHead))
	order.PutUint32(w.frame[4:], w.n)
	err := w.write(w.frame)
	w.total += uint64(w.n)
	w.frame, w.n = w.frame[:frameHead], 0
	return err
}

// write writes b and the checksum of all up to there.
func (w *Writer) write(b []byte) error {
	w.sum = crc32.Update(w.sum, checksums, b)
	b = order.AppendUint32(b, w.sum)
	w.sum = crc32.Update(w.sum, checksums, b[len(b)-checkSize:])
	if _, err := w.w.Write(b); err != nil {
		w.err = fmt.Errorf("write a stream of connections: %w", err)
	}
	return w.err
}
