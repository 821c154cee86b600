package directortest

import (
	"errors"
	"fmt"
	"io"
)

// PatternReader is an endless, known sequence of bytes: the content of bodies.
// Its period, 251, is prime, so that a lost or repeated segment shows.
type PatternReader struct{ at int64 }

const patternPeriod = 251

// Pattern returns the sequence from its start.
func Pattern() *PatternReader { return &PatternReader{} }

// Read fills p.
func (r *PatternReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte((r.at + int64(i)) % patternPeriod)
	}
	r.at += int64(len(p))
	return len(p), nil
}

// Compare reads a body to its end and returns its length. A byte that differs
// from the sequence is an error that says where.
func (r *PatternReader) Compare(body io.Reader) (int64, error) {
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	start := r.at
	for {
		n, err := body.Read(got)
		_, _ = r.Read(want[:n]) // never fails
		for i := range n {
			if got[i] != want[i] {
				return r.at - start, fmt.Errorf("byte %d of the body is %#02x, want %#02x", r.at-int64(n-i), got[i], want[i])
			}
		}
		if errors.Is(err, io.EOF) {
			return r.at - start, nil
		}
		if err != nil {
			return r.at - start, fmt.Errorf("body after %d bytes: %w", r.at-start, err)
		}
	}
}
