package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/shunt-lb/shunt/director"
)

// FuzzRecord decodes anything, as it is and with a checksum that matches.
func FuzzRecord(f *testing.F) {
	previous := revisionOf(6).State
	change, state := diff(previous, revisionOf(7).State)
	for _, kind := range []kind{difference, wholeState} {
		for _, s := range []stateJSON{change, encodeState(state), {}} {
			data, err := seal(revisionOf(7).RevisionInfo, s, kind, sum{1})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
			f.Add(data[:len(data)-1])
		}
	}
	packed := encodeState(director.State{Services: manyServices().Services[:20]})
	data, err := seal(revisionOf(7).RevisionInfo, packed, wholeState, sum{})
	if err != nil || data[1]&flagDeflated == 0 {
		f.Fatalf("no deflated record: %v", err)
	}
	f.Add(data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		decode := func(data []byte) error {
			r, err := unseal(7, data)
			if err != nil {
				return err
			}
			if _, err := r.describe(); err != nil {
				return err
			}
			state, err := r.content()
			if err != nil {
				return err
			}
			next, err := state.apply(previous)
			if err != nil {
				return nil // a difference from another state
			}
			return sorted(next)
		}
		judge := func(err error) {
			if newer := (*newerError)(nil); err != nil && !errors.Is(err, errDamaged) && !errors.As(err, &newer) {
				t.Fatalf("neither damaged nor newer: %v", err)
			}
		}
		judge(decode(data))
		if len(data) >= infoOffset {
			data = bytes.Clone(data)
			own := sumOf(7, data)
			copy(data[sumOffset:], own[:])
			judge(decode(data))
		}
	})
}

// FuzzImage changes bytes of a file. What is found to be sound must be so for
// bbolt too, and hold what it held.
func FuzzImage(f *testing.F) {
	dir := f.TempDir()
	s := mustOpen(f, dir, Options{})
	mustGrow(f, s, 9)
	if err := s.Intend([]director.ServiceKey{tcp("192.0.2.1:80")}); err != nil {
		f.Fatal(err)
	}
	mustClose(f, s)
	whole := mustRead(f, filepath.Join(dir, fileNames[0]))
	original, err := readHistory(background, bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		f.Fatal(err)
	}
	scratch := filepath.Join(f.TempDir(), "changed.db")
	for at := 0; at < len(whole); at += 512 {
		f.Add(uint32(at+8), []byte{1}, uint32(len(whole)))
		f.Add(uint32(at+16), binary.NativeEndian.AppendUint64(nil, uint64(at)), uint32(len(whole)))
		f.Add(uint32(at), []byte{0xff, 0xff, 0xff, 0xff}, uint32(at))
	}
	f.Add(uint32(40975), []byte("\x00\xa0\x00\x00\x00\x00\x00\x00"), uint32(len(whole))) // a key of no length
	f.Add(uint32(32778), []byte("\x01"), uint32(len(whole)))                             // a tail that is lost
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, size uint32) {
		data := bytes.Clone(whole)
		copy(data[at%uint32(len(data)):], patch)
		data = data[:min(int(size), len(data))]
		h, err := readHistory(background, bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, errDamaged) {
				t.Fatalf("not damaged: %v", err)
			}
			return
		}
		if !original.has(h.end()) || h.last() < original.last() {
			t.Fatalf("it ends at revision %d", h.last())
		}
		mustWrite(t, scratch, data)
		r := replica{path: scratch}
		if err := r.open(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := r.close(); err != nil {
				t.Error(err)
			}
		}()
		if err := r.view(func(tx *bbolt.Tx) error {
			_, err := readChain(tx.Bucket([]byte(revisionsBucket)), h.last())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := r.update(func(tx *bbolt.Tx) error {
			return errors.Join(putRecord(h.last()+1, make([]byte, 9000))(tx), putIntended(tx, nil))
		}); err != nil {
			t.Fatal(err)
		}
	})
}
