package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
)

// position is a revision by number and content.
type position struct {
	number uint64
	sum    sum
}

// encode returns the value of newestBucket.
func (p position) encode() []byte { return append(numberKey(p.number), p.sum[:]...) }

// history is what a file holds, without the states.
type history struct {
	first    uint64   // 0: no revision
	sums     []sum    // of revision first and those after it
	newest   position // what the file says that its end is
	intended []director.ServiceKey
}

// last returns the newest revision's number, 0 if there is none.
func (h history) last() uint64 {
	if len(h.sums) == 0 {
		return 0
	}
	return h.first + uint64(len(h.sums)) - 1
}

// end returns the newest revision, number 0 if there is none.
func (h history) end() position {
	if len(h.sums) == 0 {
		return position{}
	}
	return position{number: h.last(), sum: h.sums[len(h.sums)-1]}
}

// has reports whether the very revision is there. Revision 0, the one before any,
// is in every history.
func (h history) has(p position) bool {
	if p.number == 0 {
		return true
	}
	return p.number >= h.first && p.number <= h.last() && h.sums[p.number-h.first] == p.sum
}

// inspect checks a file as a whole: that bbolt can use it, and every record. The
// error is one of the file system, wraps errDamaged, or is a *newerError.
func inspect(ctx context.Context, path string) (history, error) {
	file, err := openPlain(path, os.O_RDONLY)
	if err != nil {
		return history{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return history{}, err
	}
	h, err := readHistory(ctx, file, info.Size())
	if err != nil {
		return history{}, fmt.Errorf("%s: %w", path, err)
	}
	return h, nil
}

func readHistory(ctx context.Context, file io.ReaderAt, size int64) (history, error) {
	m, err := newImage(ctx, file, size)
	if err != nil {
		return history{}, err
	}
	var h history
	err = m.walk(func(bucket, key, value []byte) error {
		switch string(bucket) {
		case revisionsBucket:
			return h.addRevision(key, value)
		case intendedBucket:
			return h.addIntended(key, value)
		case newestBucket:
			return h.setNewest(key, value)
		default:
			return damaged("an unknown bucket %q", bucket)
		}
	})
	if err == nil && h.newest != h.end() {
		err = damaged("revision %d is the newest found, %d was the newest written", h.last(), h.newest.number)
	}
	return h, err
}

func (h *history) addRevision(key, value []byte) error {
	if len(key) != 8 {
		return damaged("key %x is no revision's", key)
	}
	number := keyNumber(key)
	r, err := unseal(number, value)
	if err != nil {
		return err
	}
	switch {
	case number == 0:
		return damaged("there is a revision 0")
	case h.first == 0 && !r.full:
		return damaged("revision %d is the first, and only a difference", number)
	case h.first == 0:
		h.first = number
	case number != h.last()+1:
		return damaged("revisions %d to %d are missing", h.last()+1, number-1)
	case r.prev != h.sums[len(h.sums)-1]:
		return damaged("revision %d does not follow the one before", number)
	}
	h.sums = append(h.sums, r.sum)
	return nil
}

func (h *history) setNewest(key, value []byte) error {
	if string(key) != newestBucket || len(value) != 8+len(sum{}) {
		return damaged("%q of %d bytes does not say what is the newest revision", key, len(value))
	}
	h.newest = position{number: keyNumber(value[:8]), sum: sum(value[8:])}
	return nil
}

func (h *history) addIntended(key, value []byte) error {
	service, err := director.ParseServiceKey(string(key))
	if err != nil || string(value) != string(intendedValue(key)) {
		return damaged("intended service %q: the checksum does not match", key)
	}
	h.intended = append(h.intended, service)
	return nil
}

// intendedValue is the checksum (CRC-32C) that an intended key is kept with.
func intendedValue(key []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(key, crc32.MakeTable(crc32.Castagnoli)))
}

// openPlain opens a regular file that only its owner, this process's user or
// root, can write.
func openPlain(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("open %s: it is a symbolic link: put the file itself there", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %s: it is no regular file", path)
	}
	if err == nil {
		err = private(path, info)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// private refuses what somebody else can write.
func private(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("open %s: others can write it (mode %#o): run chmod go-w %s, after a look at what it holds", path, mode, path)
	}
	uid := os.Geteuid()
	if owner := int(info.Sys().(*syscall.Stat_t).Uid); owner != uid && owner != 0 {
		return fmt.Errorf("open %s: it belongs to user %d and not to %d or root: run chown %d %s, after a look at what it holds", path, owner, uid, uid, path)
	}
	return nil
}
