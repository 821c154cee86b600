package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/shunt-lb/shunt/director"
)

// Options are the parameters of a Store; zero values mean the defaults.
type Options struct {
	Log *slog.Logger // nil: slog.Default()
	// Repaired is called, from Open, Intend or Append, when a copy was repaired.
	Repaired func(message string)
	// Keep is how many revisions are kept at least. Default 10000.
	Keep int
}

// DefaultKeep is the number of revisions kept.
const DefaultKeep = 10000

// snapshotEvery is after how many revisions the state is written whole again. It
// bounds what reading a revision costs.
const snapshotEvery = 64

const lockTimeout = 100 * time.Millisecond

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Repaired == nil {
		o.Repaired = func(string) {}
	}
	if o.Keep <= 0 {
		o.Keep = DefaultKeep
	}
	return o
}

// Store is a director.Store in a folder. It is safe for concurrent use.
type Store struct {
	opts Options
	db   *bbolt.DB

	mu       sync.RWMutex
	head     director.Revision // its state is never changed; number 0: none
	headSum  sum
	sinceAll int // revisions since the last whole one
	allSize  int // bytes of that
	intended []director.ServiceKey
}

var _ director.Store = (*Store)(nil)

var (
	revisionsBucket = []byte("revisions")
	intendedBucket  = []byte("intended")
)

// Open opens the store in the folder, which is made if it is missing.
func Open(ctx context.Context, dir string, opts Options) (*Store, error) {
	s := &Store{opts: opts.withDefaults()}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the store's folder: %w", err)
	}
	db, err := bbolt.Open(filepath.Join(dir, "state.db"), 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return nil, fmt.Errorf("open the store in %s: %w", dir, err)
	}
	s.db = db
	if err := s.read(); err != nil {
		db.Close()
		return nil, fmt.Errorf("open the store in %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) read() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		revisions, err := tx.CreateBucketIfNotExists(revisionsBucket)
		if err != nil {
			return err
		}
		intended, err := tx.CreateBucketIfNotExists(intendedBucket)
		if err != nil {
			return err
		}
		if err := intended.ForEach(func(k, _ []byte) error {
			key, err := director.ParseServiceKey(string(k))
			s.intended = append(s.intended, key)
			return err
		}); err != nil {
			return err
		}
		last, data := revisions.Cursor().Last()
		if last == nil {
			return nil
		}
		number := binary.BigEndian.Uint64(last)
		r, err := unseal(number, data)
		if err != nil {
			return err
		}
		s.head, err = readRevision(revisions, number)
		s.headSum, s.sinceAll = r.sum, snapshotEvery
		return err
	})
}

// Close ends the use of the store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db.Close()
}

// Load returns the newest revision and what was intended since.
func (s *Store) Load() (director.Revision, []director.ServiceKey, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	head := s.head
	head.State = head.State.Clone()
	return head, append([]director.ServiceKey(nil), s.intended...), nil
}

// Intend records the keys durably.
func (s *Store) Intend(keys []director.ServiceKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, key := range keys {
			if err := tx.Bucket(intendedBucket).Put([]byte(key.String()), nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.intended = append(s.intended, keys...)
	return nil
}

// Append keeps the revision and forgets what was intended.
func (s *Store) Append(revision director.Revision) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := s.head.Number + 1; revision.Number != want {
		return fmt.Errorf("keep revision %d: the next one is %d", revision.Number, want)
	}
	if err := sorted(revision.State); err != nil {
		return fmt.Errorf("keep revision %d: %w", revision.Number, err)
	}
	change, state := diff(s.head.State, revision.State)
	full := s.head.Number == 0 || s.sinceAll >= snapshotEvery-1
	data, own, err := seal(revision.RevisionInfo, change, false, s.headSum)
	if err == nil && (full || len(data) > s.allSize/2) {
		full = true
		data, own, err = seal(revision.RevisionInfo, encodeState(state), true, s.headSum)
	}
	if err != nil {
		return fmt.Errorf("keep revision %d: %w", revision.Number, err)
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket(intendedBucket); err != nil {
			return err
		}
		if _, err := tx.CreateBucket(intendedBucket); err != nil {
			return err
		}
		return tx.Bucket(revisionsBucket).Put(numberKey(revision.Number), data)
	})
	if err != nil {
		return fmt.Errorf("keep revision %d: %w", revision.Number, err)
	}
	s.head = director.Revision{RevisionInfo: revision.RevisionInfo, State: state}
	s.headSum, s.intended = own, nil
	if s.sinceAll++; full {
		s.sinceAll, s.allSize = 0, len(data)
	}
	return nil
}

// Revision reads a revision; director.ErrNotFound if there is none of the number.
func (s *Store) Revision(number uint64) (director.Revision, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if number == 0 || number > s.head.Number {
		return director.Revision{}, fmt.Errorf("revision %d: %w", number, director.ErrNotFound)
	}
	var revision director.Revision
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		revision, err = readRevision(tx.Bucket(revisionsBucket), number)
		return err
	})
	return revision, err
}

// History describes up to limit revisions below before, newest first.
func (s *Store) History(before uint64, limit int) ([]director.RevisionInfo, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if before == 0 || before > s.head.Number {
		before = s.head.Number + 1
	}
	var infos []director.RevisionInfo
	err := s.db.View(func(tx *bbolt.Tx) error {
		for number := before - 1; number > 0 && len(infos) < limit; number-- {
			data := tx.Bucket(revisionsBucket).Get(numberKey(number))
			if data == nil {
				return nil
			}
			r, err := unseal(number, data)
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
	return infos, err
}

// readRevision decodes a revision: the last whole state and the differences since.
func readRevision(bucket *bbolt.Bucket, number uint64) (director.Revision, error) {
	var chain []record
	for n := number; ; n-- {
		data := bucket.Get(numberKey(n))
		if data == nil {
			return director.Revision{}, damaged("revision %d is missing", n)
		}
		r, err := unseal(n, data)
		if err != nil {
			return director.Revision{}, err
		}
		chain = append(chain, r)
		if r.full {
			break
		}
	}
	info, err := chain[0].describe()
	if err != nil {
		return director.Revision{}, err
	}
	revision := director.Revision{RevisionInfo: info}
	for i := len(chain) - 1; i >= 0; i-- {
		change, err := chain[i].content()
		if err != nil {
			return director.Revision{}, err
		}
		if revision.State, err = change.apply(revision.State); err != nil {
			return director.Revision{}, fmt.Errorf("revision %d: %w", chain[i].number, err)
		}
	}
	return revision, nil
}
