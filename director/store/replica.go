package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// The buckets of a file.
const (
	revisionsBucket = "revisions" // number, 8 bytes big endian: a record
	intendedBucket  = "intended"  // a service's URL: its checksum
	// newestBucket has one key, its own name: number and sum of the newest
	// revision. It tells a tail that was lost from one that was never written.
	newestBucket = "newest"
)

// lockTimeout is how long bbolt waits for its own lock. Nobody of ours holds it:
// the folder is locked.
const lockTimeout = 100 * time.Millisecond

// replica is one of the files a store is in. It is used by one goroutine at a
// time.
type replica struct {
	path  string
	sound bool      // inspected, and not found wanting since
	db    *bbolt.DB // nil: not open
	file  *os.File  // that of db
}

// open opens the file, which was inspected, and does not make it.
func (r *replica) open() error {
	return r.guard(func() (err error) {
		r.db, err = bbolt.Open(r.path, 0o600, &bbolt.Options{
			Timeout: lockTimeout, NoStatistics: true,
			OpenFile: func(path string, flag int, _ fs.FileMode) (file *os.File, err error) {
				r.file, err = openPlain(path, flag&^os.O_CREATE)
				return r.file, err
			},
		})
		if errors.Is(err, berrors.ErrTimeout) {
			return fmt.Errorf("%s: %w", r.path, errInUse)
		}
		return err
	})
}

func (r *replica) close() error {
	if r.db == nil {
		return nil
	}
	db := r.db
	r.db = nil
	if err := db.Close(); err != nil {
		return fmt.Errorf("close %s: %w", r.path, err)
	}
	return nil
}

// view and update run a transaction. After an error the file may be anything and
// is not sound any more, unless fn itself refused.
func (r *replica) view(fn func(*bbolt.Tx) error) error {
	return r.guard(func() error { return r.db.View(fn) })
}

func (r *replica) update(fn func(*bbolt.Tx) error) error {
	return r.guard(func() error { return r.db.Update(fn) })
}

// guard turns faults into errors. bbolt reads through a memory map: where the
// file was cut or cannot be read, the kernel sends SIGBUS; and it panics where
// pages make no sense. What it holds then is left to itself, its mutexes locked.
func (r *replica) guard(fn func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	defer func() {
		if cause := recover(); cause != nil {
			r.abandon()
			err = fmt.Errorf("%s: %w", r.path, damaged("%v", cause))
		}
	}()
	return fn()
}

// abandon gives up what bbolt may not be able to close any more. Its memory map
// stays, and would keep the lock on the file.
func (r *replica) abandon() {
	if r.file != nil {
		unix.Flock(int(r.file.Fd()), unix.LOCK_UN)
		r.file.Close()
	}
	r.db, r.file, r.sound = nil, nil, false
}

// create makes an empty file. It is nothing under its name until it is whole.
func create(path string) error {
	r := replica{path: path + newSuffix}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(r.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return err
	}
	err = r.update(func(tx *bbolt.Tx) error {
		for _, name := range []string{revisionsBucket, intendedBucket, newestBucket} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return putNewest(tx, position{})
	})
	if err := errors.Join(err, r.close()); err != nil {
		return err
	}
	return replace(r.path, path)
}
