package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/shunt-lb/shunt/director"
)

// wholeEvery is after how many revisions the state is written whole again. It
// bounds what reading a revision costs.
const wholeEvery = 64

// Intend records, durably in both copies, that services with the keys are about
// to be added.
func (s *Store) Intend(keys []director.ServiceKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if parsed, err := director.ParseServiceKey(key.String()); err != nil || parsed != key {
			return fmt.Errorf("store that service %s is intended: it is no valid key", key)
		}
	}
	intended := slices.Concat(s.intended, keys)
	slices.SortFunc(intended, director.ServiceKey.Compare)
	intended = slices.Compact(intended)
	if err := s.write(func(tx *bbolt.Tx) error { return putIntended(tx, intended) }); err != nil {
		return fmt.Errorf("store that %d services are intended: %w", len(keys), err)
	}
	s.intended = intended
	return nil
}

// Append keeps the revision, durably in both copies, and forgets the intended
// keys. Its number must follow that of the newest one, and its services be sorted.
func (s *Store) Append(revision director.Revision) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.append(revision); err != nil {
		return fmt.Errorf("store revision %d: %w", revision.Number, err)
	}
	return nil
}

func (s *Store) append(revision director.Revision) error {
	if want := s.head.Number + 1; revision.Number != want {
		return fmt.Errorf("the next one is %d", want)
	}
	if err := sorted(revision.State); err != nil {
		return err
	}
	change, state := diff(s.head.State, revision.State)
	full := s.head.Number == 0 || revision.Number >= s.whole+wholeEvery
	var data []byte
	var err error
	if !full {
		if data, err = seal(revision.RevisionInfo, change, difference, s.headSum); err != nil {
			return err
		}
	}
	if full || len(data) > s.size/2 {
		full = true
		if data, err = seal(revision.RevisionInfo, encodeState(state), wholeState, s.headSum); err != nil {
			return err
		}
	}
	// What cannot be read back must not become the newest revision.
	r, err := unseal(revision.Number, data)
	if err == nil {
		_, err = r.describe()
	}
	if err == nil {
		_, err = r.content()
	}
	if err != nil {
		return fmt.Errorf("check the record made: %w", err)
	}
	err = s.write(func(tx *bbolt.Tx) error {
		revisions := tx.Bucket([]byte(revisionsBucket))
		revisions.FillPercent = 0.9 // numbers only grow: no room is needed between
		if full {
			if err := prune(revisions, revision.Number, s.opts.Keep); err != nil {
				return err
			}
		}
		if err := revisions.Put(numberKey(revision.Number), data); err != nil {
			return err
		}
		return errors.Join(putNewest(tx, position{revision.Number, r.sum}), putIntended(tx, nil))
	})
	if err != nil {
		return err
	}
	s.head = director.Revision{RevisionInfo: revision.RevisionInfo, State: state}
	s.headSum, s.intended = r.sum, nil
	if full {
		s.whole, s.size = revision.Number, len(data)
	}
	return nil
}

func putNewest(tx *bbolt.Tx, p position) error {
	return tx.Bucket([]byte(newestBucket)).Put([]byte(newestBucket), p.encode())
}

// putIntended makes the keys the intended ones.
func putIntended(tx *bbolt.Tx, keys []director.ServiceKey) error {
	name := []byte(intendedBucket)
	if first, _ := tx.Bucket(name).Cursor().First(); first != nil {
		if err := tx.DeleteBucket(name); err != nil {
			return err
		}
	}
	bucket, err := tx.CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	for _, key := range keys {
		text := []byte(key.String())
		if err := bucket.Put(text, intendedValue(text)); err != nil {
			return err
		}
	}
	return nil
}

// prune removes what is older than the newest whole revision from which on there
// are enough. Records are never changed, so the oldest kept must be whole.
func prune(revisions *bbolt.Bucket, newest uint64, keep int) error {
	if newest <= uint64(keep) {
		return nil
	}
	last := newest - uint64(keep) + 1 // the newest that may be the oldest
	var keys [][]byte
	old := 0 // how many of them go
	cursor := revisions.Cursor()
	for key, data := cursor.First(); key != nil && keyNumber(key) <= last; key, data = cursor.Next() {
		r, err := unseal(keyNumber(key), data)
		if err != nil {
			return err
		}
		if r.full {
			old = len(keys)
		}
		keys = append(keys, slices.Clone(key))
	}
	for _, key := range keys[:old] {
		if err := revisions.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// write runs the transaction on one copy after the other. If one fails, what was
// written is withdrawn.
func (s *Store) write(fn func(tx *bbolt.Tx) error) error {
	if s.closed {
		return errors.New("the store is closed")
	}
	if err := s.clear(); err != nil {
		return err
	}
	for _, r := range s.replicas {
		err := r.update(fn)
		if err == nil {
			continue
		}
		s.clean = false
		err = fmt.Errorf("write %s: %w", r.path, err)
		if failed := s.clear(); failed != nil {
			return errors.Join(err, fmt.Errorf("withdraw it, else it may be there after a restart: %w", failed))
		}
		return err
	}
	return nil
}

// clear makes both files hold what was acknowledged, and no more, if something
// went wrong or they were exchanged meanwhile.
func (s *Store) clear() error {
	for _, r := range s.replicas {
		s.clean = s.clean && r.current()
	}
	if s.clean {
		return nil
	}
	for _, r := range s.replicas {
		if err := r.close(); err != nil {
			// After a failed write that is no news. If it matters, open fails.
			s.opts.Log.Debug("close a copy", "err", err)
		}
	}
	_, err := s.settle(context.Background(), &position{s.head.Number, s.headSum})
	errs := []error{err}
	for _, r := range s.replicas {
		if r.sound { // even if the other is not: for reading
			errs = append(errs, r.open())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, r := range s.replicas {
		if err := r.update(s.withdraw); err != nil && !errors.Is(err, errNothing) {
			return fmt.Errorf("write %s: %w", r.path, err)
		}
	}
	s.clean = true
	return nil
}

// errNothing ends a transaction that has nothing to write.
var errNothing = errors.New("nothing to do")

// withdraw removes what was not acknowledged.
func (s *Store) withdraw(tx *bbolt.Tx) error {
	var written, wanted []string
	err := tx.Bucket([]byte(intendedBucket)).ForEach(func(key, _ []byte) error {
		written = append(written, string(key))
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range s.intended {
		wanted = append(wanted, key.String())
	}
	slices.Sort(wanted)
	revisions, extra := tx.Bucket([]byte(revisionsBucket)), numberKey(s.head.Number+1)
	if revisions.Get(extra) == nil && slices.Equal(written, wanted) {
		return errNothing
	}
	if err := revisions.Delete(extra); err != nil {
		return err
	}
	return errors.Join(putNewest(tx, position{s.head.Number, s.headSum}), putIntended(tx, s.intended))
}

// current reports whether the file that is open is the one under the name.
func (r *replica) current() bool {
	if r.db == nil {
		return false
	}
	named, err := os.Lstat(r.path)
	if err != nil {
		return false
	}
	opened, err := r.file.Stat()
	return err == nil && os.SameFile(named, opened)
}

// whole reports whether the open file has all that bbolt wrote to it.
func (r *replica) whole() bool {
	var size int64
	err := r.view(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	if err != nil {
		return false
	}
	info, err := r.file.Stat()
	return err == nil && info.Size() >= size
}

// Check looks whether both files are there and whole, and repairs them if not, as
// the next change would. Call it from time to time: a copy that is lost unnoticed
// is one less when the other is.
func (s *Store) Check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("check the store: it is closed")
	}
	for _, r := range s.replicas {
		s.clean = s.clean && r.current() && r.whole()
	}
	if err := s.clear(); err != nil {
		return fmt.Errorf("check the store: %w", err)
	}
	return nil
}
