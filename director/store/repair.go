package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/shunt-lb/shunt/director"
)

// finding is what was found in a file.
type finding struct {
	history
	err error // why the file cannot be used
}

func (f finding) missing() bool { return errors.Is(f.err, fs.ErrNotExist) }

// settle makes both files sound and equal up to a position: the given one, which
// was acknowledged, or else the longer file's end. It returns the services either
// says are intended. No file is open. After an error those files that can be read
// are marked as sound.
func (s *Store) settle(ctx context.Context, at *position) ([]director.ServiceKey, error) {
	var found [copies]finding
	for i, r := range s.replicas {
		found[i].history, found[i].err = inspect(ctx, r.path)
		if r.sound = found[i].err == nil; !r.sound && !found[i].missing() && !errors.Is(found[i].err, errDamaged) {
			return nil, found[i].err // not for us to repair
		}
	}
	if found[0].missing() && found[1].missing() && at == nil {
		s.opts.Log.Info("making a new store", "folder", s.dir.Name())
		if err := create(s.replicas[0].path); err != nil {
			return nil, fmt.Errorf("make %s: %w", s.replicas[0].path, err)
		}
		found[0].err, s.replicas[0].sound = nil, true
	}
	best, err := s.choose(found, at)
	if err != nil {
		return nil, err
	}
	goal := found[best].end()
	if at != nil {
		goal = *at
	}
	for i, r := range s.replicas {
		if found[i].err == nil && found[i].has(goal) {
			continue
		}
		r.sound = false
		if err := s.rebuild(ctx, r, found[i], s.replicas[best], found[best]); err != nil {
			return nil, fmt.Errorf("make %s from %s: %w", r.path, s.replicas[best].path, err)
		}
		r.sound = true
	}
	intended := slices.Concat(found[0].intended, found[1].intended)
	slices.SortFunc(intended, director.ServiceKey.Compare)
	return slices.Compact(intended), nil
}

// choose returns the index of the file that the other is held to.
func (s *Store) choose(found [copies]finding, at *position) (int, error) {
	a, b := found[0], found[1]
	if a.err != nil && b.err != nil {
		return 0, fmt.Errorf("no copy can be used: %w: %s", errors.Join(a.err, b.err), wayOut)
	}
	if at != nil {
		for i, f := range found {
			if f.err == nil && f.has(*at) {
				return i, nil
			}
		}
		return 0, damaged("neither copy in %s has revision %d any more: %s", s.dir.Name(), at.number, wayOut)
	}
	switch {
	case b.err != nil:
		return 0, nil
	case a.err != nil:
		return 1, nil
	}
	if !a.has(b.end()) && !b.has(a.end()) {
		return 0, fmt.Errorf("%s (revisions %d to %d) and %s (%d to %d) contradict each other: move the wrong one away, or %s",
			s.replicas[0].path, a.first, a.last(), s.replicas[1].path, b.first, b.last(), wayOut)
	}
	if b.last() > a.last() {
		return 1, nil
	}
	return 0, nil
}

// rebuild makes a file anew as a copy of a sound one, and sets aside what was
// damaged.
func (s *Store) rebuild(ctx context.Context, bad *replica, was finding, good *replica, is finding) error {
	next := bad.path + newSuffix
	if err := duplicate(good.path, next); err != nil {
		return err
	}
	check, err := inspect(ctx, next)
	if err != nil {
		return err
	}
	if check.end() != is.end() {
		return damaged("the copy made differs")
	}
	name, source := filepath.Base(bad.path), filepath.Base(good.path)
	message, notable := "", true
	switch {
	case was.missing():
		message = fmt.Sprintf("%s was missing: made anew from %s", name, source)
		notable = is.last() > 0 // else the store is new
	case was.err != nil || !is.has(was.end()):
		aside, err := setAside(bad.path)
		if err != nil {
			return err
		}
		cause := was.err
		if cause == nil {
			cause = fmt.Errorf("%s: its revision %d is another one than that of %s", bad.path, was.last(), source)
		}
		message = fmt.Sprintf("%v: set aside as %s, made anew from %s", cause, filepath.Base(aside), source)
	default:
		message = fmt.Sprintf("%s ended at revision %d: brought to revision %d from %s", name, was.last(), is.last(), source)
		notable = was.last()+1 < is.last() // else the process ended between two writes
	}
	if err := replace(next, bad.path); err != nil {
		return err
	}
	if !notable {
		s.opts.Log.Info("store completed", "folder", s.dir.Name(), "what", message)
		return nil
	}
	s.opts.Log.Warn("store repaired", "folder", s.dir.Name(), "what", message)
	s.opts.Repaired(message)
	return nil
}
