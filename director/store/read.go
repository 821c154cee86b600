package store

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/shunt-lb/shunt/director"
)

// Revision reads a revision. director.ErrNotFound if there is none of the number,
// or none any more.
func (s *Store) Revision(number uint64) (director.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(err error) (director.Revision, error) {
		return director.Revision{}, fmt.Errorf("read revision %d: %w", number, err)
	}
	if number == 0 || number > s.head.Number {
		return fail(fmt.Errorf("%w: the newest is %d", director.ErrNotFound, s.head.Number))
	}
	var chain chain
	first := uint64(0)
	err := s.read(func(revisions *bbolt.Bucket) (err error) {
		if first, err = oldest(revisions); err != nil || number < first {
			return err
		}
		chain, err = readChain(revisions, number)
		return err
	})
	switch {
	case err != nil:
		return fail(err)
	case number < first:
		return fail(fmt.Errorf("%w: no longer kept, the oldest is %d", director.ErrNotFound, first))
	}
	return chain.revision, nil
}

// History describes up to limit revisions below before, newest first; 0 for
// before means from the newest.
func (s *Store) History(before uint64, limit int) ([]director.RevisionInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before == 0 || before > s.head.Number {
		before = s.head.Number + 1
	}
	var infos []director.RevisionInfo
	err := s.read(func(revisions *bbolt.Bucket) error {
		infos = nil // what the other copy gave before it failed
		first, err := oldest(revisions)
		if err != nil || first == 0 {
			return err
		}
		for number := before - 1; number >= first && len(infos) < limit; number-- {
			r, err := get(revisions, number)
			if err != nil {
				return err
			}
			info, err := r.describe()
			if err != nil {
				return err
			}
			infos = append(infos, info)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	return infos, nil
}

// readHead reads the newest revision.
func (s *Store) readHead() error {
	return s.read(func(revisions *bbolt.Bucket) error {
		key, _ := revisions.Cursor().Last()
		if key == nil {
			return nil
		}
		c, err := readChain(revisions, keyNumber(key))
		if err != nil {
			return err
		}
		s.head, s.headSum, s.whole, s.size = c.revision, c.sum, c.whole, c.size
		return nil
	})
}

// read runs fn on the revisions of the first copy, and of the second if it fails.
// A copy that failed is looked at, and repaired, before the next write.
func (s *Store) read(fn func(revisions *bbolt.Bucket) error) error {
	var errs []error
	for _, r := range s.replicas {
		if r.db == nil {
			continue
		}
		err := r.view(func(tx *bbolt.Tx) error {
			revisions := tx.Bucket([]byte(revisionsBucket))
			if revisions == nil {
				return damaged("there is no bucket %s", revisionsBucket)
			}
			return fn(revisions)
		})
		if err == nil {
			return nil
		}
		s.clean = false
		errs = append(errs, fmt.Errorf("%s: %w", r.path, err))
	}
	if s.closed {
		return errors.New("the store is closed")
	}
	return fmt.Errorf("no copy can be read: %w: %s", errors.Join(errs...), wayOut)
}

// chain is a revision with how it is kept.
type chain struct {
	revision director.Revision
	sum      sum
	whole    uint64 // the revision that the differences begin with
	size     int    // of that, in bytes on disk
}

// readChain reads a revision: the last whole state before it, and the differences
// since.
func readChain(revisions *bbolt.Bucket, number uint64) (chain, error) {
	var records []record
	for n := number; len(records) == 0 || !records[len(records)-1].full; n-- {
		r, err := get(revisions, n)
		if err != nil {
			return chain{}, err
		}
		records = append(records, r)
	}
	newest, whole := records[0], records[len(records)-1]
	c := chain{sum: newest.sum, whole: whole.number, size: whole.size}
	var err error
	if c.revision.RevisionInfo, err = newest.describe(); err != nil {
		return chain{}, err
	}
	for i := len(records) - 1; i >= 0; i-- {
		change, err := records[i].content()
		if err != nil {
			return chain{}, err
		}
		if c.revision.State, err = change.apply(c.revision.State); err != nil {
			return chain{}, fmt.Errorf("revision %d: %w", records[i].number, err)
		}
	}
	return c, nil
}

// get reads a record that must be there. It is valid during the transaction.
func get(revisions *bbolt.Bucket, number uint64) (record, error) {
	data := revisions.Get(numberKey(number))
	if data == nil {
		return record{}, damaged("revision %d is missing", number)
	}
	return unseal(number, data)
}

// oldest returns the number of the oldest revision kept; 0: there is none.
func oldest(revisions *bbolt.Bucket) (uint64, error) {
	key, _ := revisions.Cursor().First()
	switch len(key) {
	case 0:
		return 0, nil
	case 8:
		return keyNumber(key), nil
	default:
		return 0, damaged("key %x is no revision's", key)
	}
}
