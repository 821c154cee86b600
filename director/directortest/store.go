package directortest

import (
	"fmt"
	"slices"
	"sync"

	"github.com/shunt-lb/shunt/director"
)

// Store is a director.Store in memory that fails when told to. Safe for
// concurrent use; its zero value is empty and never fails.
type Store struct {
	mu        sync.Mutex
	revisions []director.Revision
	intended  []director.ServiceKey
	intend    error // what Intend fails with
	append    error // what Append fails with
}

var _ director.Store = (*Store)(nil)

// FailWrites makes Intend and Append return the error until it is called with
// nil.
func (s *Store) FailWrites(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intend, s.append = err, err
}

// FailAppend makes Append alone do so.
func (s *Store) FailAppend(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.append = err
}

// Load returns the newest revision and what was intended since.
func (s *Store) Load() (director.Revision, []director.ServiceKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.revisions) == 0 {
		return director.Revision{}, slices.Clone(s.intended), nil
	}
	return clone(s.revisions[len(s.revisions)-1]), slices.Clone(s.intended), nil
}

// Intend records the keys.
func (s *Store) Intend(keys []director.ServiceKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.intend != nil {
		return s.intend
	}
	s.intended = append(s.intended, keys...)
	return nil
}

// Append keeps the revision and forgets what was intended.
func (s *Store) Append(r director.Revision) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.append != nil {
		return s.append
	}
	if want := uint64(len(s.revisions) + 1); r.Number != want {
		return fmt.Errorf("revision %d: want %d", r.Number, want)
	}
	s.revisions = append(s.revisions, clone(r))
	s.intended = nil
	return nil
}

// Revision returns the revision of the number.
func (s *Store) Revision(number uint64) (director.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number == 0 || number > uint64(len(s.revisions)) {
		return director.Revision{}, fmt.Errorf("revision %d: %w", number, director.ErrNotFound)
	}
	return clone(s.revisions[number-1]), nil
}

// History describes the revisions below before, newest first.
func (s *Store) History(before uint64, limit int) ([]director.RevisionInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var infos []director.RevisionInfo
	for _, r := range slices.Backward(s.revisions) {
		if before != 0 && r.Number >= before {
			continue
		}
		if len(infos) == limit {
			break
		}
		infos = append(infos, r.RevisionInfo)
	}
	return infos, nil
}

func clone(r director.Revision) director.Revision {
	r.State = r.State.Clone()
	return r
}
