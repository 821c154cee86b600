package store

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// A record is
//
//	version 1 byte | flags 1 byte | length of info 4 bytes, big endian |
//	sum of the record before 32 bytes | sum 32 bytes | info | state
//
// info and state are JSON, the state deflated if flagDeflated is set. The sum is
// the SHA-256 of the number (8 bytes, big endian) and of the whole record without
// the sum itself, in this version and all later ones: so a flipped bit is told
// from a newer version. Whatever changes in the JSON raises the version; a record
// has the least one that knows all that is in it, so that an older shunt refuses
// what it would lose and nothing else.
const (
	recordVersion = 4 // the newest: health of services, overrides
	sizesVersion  = 3 // method fullnat, segment sizes of services
	limitsVersion = 2 // limits and guards of services
	plainVersion  = 1 // without those

	flagFull     = 1 << 0 // the state is whole, not a difference
	flagDeflated = 1 << 1
	knownFlags   = flagFull | flagDeflated

	prevOffset = 6
	sumOffset  = prevOffset + sha256.Size
	infoOffset = sumOffset + sha256.Size

	// deflateFrom is the size of a state from which compressing it is worth the
	// time: about that of ten services.
	deflateFrom = 8 << 10

	// maxState bounds what a record is inflated to: some hundred times a state of
	// 1 000 services with 10 servers each.
	maxState = 256 << 20
)

// sum identifies a record and, by the chain, all those before it.
type sum [sha256.Size]byte

// record is one revision as it is on disk.
type record struct {
	number uint64
	full   bool
	prev   sum
	sum    sum
	info   []byte
	state  []byte
	packed bool // the state is deflated
	size   int  // of the whole, in bytes
}

type infoJSON struct {
	Number uint64    `json:"number"`
	Time   time.Time `json:"time"`
	Who    string    `json:"who,omitempty"`
	Why    string    `json:"why,omitempty"`
	Action string    `json:"action,omitempty"`
}

// kind says what the state of a record is.
type kind byte

const (
	difference kind = 0
	wholeState kind = flagFull
)

// seal encodes a record.
func seal(info director.RevisionInfo, state stateJSON, kind kind, prev sum) ([]byte, error) {
	infoBytes, err := json.Marshal(infoJSON(info))
	if err != nil {
		return nil, fmt.Errorf("encode who and why: %w", err)
	}
	body, err := json.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	flags := byte(kind)
	if len(body) >= deflateFrom {
		if body, err = deflate(body); err != nil {
			return nil, fmt.Errorf("compress the state: %w", err)
		}
		flags |= flagDeflated
	}
	data := make([]byte, 0, infoOffset+len(infoBytes)+len(body))
	data = append(data, state.version(), flags)
	data = binary.BigEndian.AppendUint32(data, uint32(len(infoBytes)))
	data = append(data, prev[:]...)
	data = append(data, make([]byte, sha256.Size)...)
	data = append(data, infoBytes...)
	data = append(data, body...)
	own := sumOf(info.Number, data)
	copy(data[sumOffset:], own[:])
	return data, nil
}

func sumOf(number uint64, data []byte) (s sum) {
	h := sha256.New()
	h.Write(numberKey(number))
	h.Write(data[:sumOffset])
	h.Write(data[infoOffset:])
	h.Sum(s[:0])
	return s
}

// unseal checks the record that is kept under the number. What it returns shares
// data's memory. The error wraps errDamaged or is a *newerError.
func unseal(number uint64, data []byte) (record, error) {
	if len(data) < infoOffset {
		return record{}, damaged("revision %d: %d bytes are no record", number, len(data))
	}
	r := record{
		number: number, full: data[1]&flagFull != 0, packed: data[1]&flagDeflated != 0,
		size: len(data),
		prev: sum(data[prevOffset:sumOffset]), sum: sum(data[sumOffset:infoOffset]),
	}
	if sumOf(number, data) != r.sum {
		return record{}, damaged("revision %d: the checksum does not match", number)
	}
	// Beyond this point it is what some shunt wrote.
	if data[0] > recordVersion {
		return record{}, &newerError{Revision: number, Version: int(data[0])}
	}
	length := binary.BigEndian.Uint32(data[2:prevOffset])
	if data[0] == 0 || data[1]&^knownFlags != 0 || uint64(length) > uint64(len(data)-infoOffset) {
		return record{}, damaged("revision %d: the head of the record makes no sense", number)
	}
	r.info, r.state = data[infoOffset:infoOffset+length], data[infoOffset+length:]
	return r, nil
}

// describe decodes who, when and why.
func (r record) describe() (director.RevisionInfo, error) {
	var info infoJSON
	if err := decodeJSON(bytes.NewReader(r.info), &info); err != nil {
		return director.RevisionInfo{}, damaged("revision %d: %v", r.number, err)
	}
	if info.Number != r.number {
		return director.RevisionInfo{}, damaged("revision %d: the record is that of revision %d", r.number, info.Number)
	}
	return director.RevisionInfo(info), nil
}

// content decodes the state or the difference.
func (r record) content() (stateJSON, error) {
	var in io.Reader = bytes.NewReader(r.state)
	if r.packed {
		in = io.LimitReader(flate.NewReader(in), maxState)
	}
	var state stateJSON
	if err := decodeJSON(in, &state); err != nil {
		return stateJSON{}, damaged("revision %d: %v", r.number, err)
	}
	return state, nil
}

// decodeJSON reads one value and nothing else. A field it does not know would be
// lost in the next revision, so it is refused.
func decodeJSON(in io.Reader, into any) error {
	decoder := json.NewDecoder(in)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

func deflate(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func numberKey(number uint64) []byte { return binary.BigEndian.AppendUint64(nil, number) }

// keyNumber is the number of a key of 8 bytes.
func keyNumber(key []byte) uint64 { return binary.BigEndian.Uint64(key) }
