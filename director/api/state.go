package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// maxCatchUp is how many revisions a client that resumes is told one by one;
// with more it gets the newest as a whole.
const maxCatchUp = 1000

// StreamState answers streamState.
func (e endpoints) StreamState(w http.ResponseWriter, r *http.Request, p StreamStateParams) {
	last, resumes, err := lastEventID(p.LastEventID)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	e.stream(w, r, func(ctx context.Context, s *sender) error {
		f := &follower{endpoints: e, sender: s, last: last}
		if !resumes {
			if err := f.whole(ctx); err != nil {
				return err
			}
		}
		return f.run(ctx)
	})
}

// follower tells one client of revisions.
type follower struct {
	endpoints
	sender *sender
	last   uint64 // the revision the client knows
}

// whole sends the newest revision, and before the first one nothing.
func (f *follower) whole(ctx context.Context) error {
	head := f.director.Head()
	if head.Number == 0 {
		return nil
	}
	f.last = head.Number
	return f.sender.event(head.Number, configurationName, revisionModel(ctx, head, f.director.Features()))
}

// run sends each revision after the last, as they are made. It looks after each
// event that tells of one, and at each heartbeat.
func (f *follower) run(ctx context.Context) error {
	for {
		seen := f.opts.Events.Last() // before looking: nothing falls between
		if err := f.catchUp(ctx); err != nil {
			return err
		}
		err := f.await(ctx, seen, func(batch []event.Event, missed bool) error {
			for _, one := range batch {
				missed = missed || one.Name == event.Change
			}
			if missed {
				return f.catchUp(ctx)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := f.sender.heartbeat(); err != nil {
			return err
		}
	}
}

// catchUp sends the revisions the client does not know.
func (f *follower) catchUp(ctx context.Context) error {
	head := f.director.Head().Number
	if head == f.last {
		return nil
	}
	// A client that knows more than there is comes from another store.
	if head < f.last || head-f.last > maxCatchUp {
		return f.skip(ctx)
	}
	known, err := f.known()
	for ; err == nil && f.last < head; f.last++ {
		var next director.Revision
		if next, err = f.director.Revision(f.last + 1); err != nil {
			break
		}
		model := RevisionChange{Revision: revisionInfo(next.RevisionInfo), Steps: stepModels(ctx, director.Between(known.State, next.State))}
		if err := f.sender.event(next.Number, revisionName, model); err != nil {
			return err
		}
		known = next
	}
	if errors.Is(err, director.ErrNotFound) {
		return f.skip(ctx)
	}
	return err
}

// known returns the revision the client knows; before the first one nothing was
// desired.
func (f *follower) known() (director.Revision, error) {
	if f.last == 0 {
		return director.Revision{}, nil
	}
	return f.director.Revision(f.last)
}

// skip says that revisions are missing, and sends the newest as a whole.
func (f *follower) skip(ctx context.Context) error {
	if err := f.sender.event(0, missedName, Missed{After: f.last}); err != nil {
		return err
	}
	return f.whole(ctx)
}
