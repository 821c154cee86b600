package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/shunt-lb/shunt/director"
)

// Options are the parameters of a Store; zero values mean the defaults.
type Options struct {
	Log *slog.Logger // nil: slog.Default()
	// Repaired is called, from Open, Intend or Append, after a copy was made anew
	// because it was damaged, missing or old. It must not call the store.
	Repaired func(message string)
	// Keep is how many revisions are kept at least; up to 63 more are, because
	// they go when a later one is whole. Default 10000.
	Keep int
}

// defaultKeep is Options.Keep's default.
const defaultKeep = 10000

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Repaired == nil {
		o.Repaired = func(string) {}
	}
	if o.Keep <= 0 {
		o.Keep = defaultKeep
	}
	return o
}

// copies is the number of files, each with everything in it.
const copies = 2

var fileNames = [copies]string{"state.db", "state.copy.db"}

// Store is a director.Store in a folder. It is safe for concurrent use.
type Store struct {
	opts Options
	dir  *os.File // the folder, locked

	mu       sync.Mutex // one transaction at a time
	closed   bool
	replicas [copies]*replica // written in this order
	// clean says that both files are open and hold what was acknowledged, and no
	// more. If not, the next write begins by making it so.
	clean bool

	// head is the newest revision. Its state's memory is never written again, and
	// shared with the states before and after it.
	head     director.Revision // number 0: none
	headSum  sum
	whole    uint64 // the newest revision that is kept whole
	size     int    // of that, in bytes on disk
	intended []director.ServiceKey
}

var _ director.Store = (*Store)(nil)

// Open opens the store in the folder, and repairs it if need be. A missing folder
// is made, with mode 0700, and an empty store in it. It fails if another process
// has the store open, or if a newer version wrote it. Close it after use.
func Open(ctx context.Context, dir string, opts Options) (*Store, error) {
	s, err := open(ctx, dir, opts.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, path string, opts Options) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := &Store{opts: opts}
	for i, name := range fileNames {
		s.replicas[i] = &replica{path: filepath.Join(path, name)}
	}
	if s.dir, err = lockFolder(path); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

// start settles and opens the files and reads the newest revision.
func (s *Store) start(ctx context.Context) (err error) {
	if s.intended, err = s.settle(ctx, nil); err != nil {
		return err
	}
	for _, r := range s.replicas {
		if err := r.open(); err != nil {
			return err
		}
	}
	s.clean = true
	return s.readHead()
}

// Close ends the use of the store and lets another process have it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if err := s.release(); err != nil {
		return fmt.Errorf("close the store: %w", err)
	}
	return nil
}

func (s *Store) release() error {
	s.closed, s.clean = true, false
	var errs []error
	for _, r := range s.replicas {
		errs = append(errs, r.close())
	}
	return errors.Join(append(errs, s.dir.Close())...)
}

// Load returns the newest revision and the keys intended since.
func (s *Store) Load() (director.Revision, []director.ServiceKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	head := s.head
	head.State = head.State.Clone()
	return head, slices.Clone(s.intended), nil
}
