package director_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// refusing makes the fake refuse the operations with the texts.
func (r *rig) refusing(refused ...string) {
	r.fake.FailIf(func(op director.Operation) error {
		for _, text := range refused {
			if op.String() == text {
				return directortest.ErrInjected
			}
		}
		return nil
	})
}

const (
	addLast   = "add server 10.0.0.2:80 to tcp://192.0.2.5:80"
	takeBack  = "remove service tcp://192.0.2.5:80"
	cannot    = ": injected failure"
	leftError = "add service tcp://192.0.2.5:80: " + addLast + cannot + "; roll back: " + takeBack + cannot
)

// halfAdded returns a director whose change failed and could not be undone.
func halfAdded(t *testing.T) *rig {
	t.Helper()
	r := startChanges(t, "")
	before := r.Head()
	r.refusing(addLast, takeBack)
	_, err := r.AddService(t.Context(), by, other())
	if !errors.Is(err, directortest.ErrInjected) || err.Error() != leftError {
		t.Fatalf("error %v, want %s", err, leftError)
	}
	want(t, "events", []string{
		"change-failed: add service tcp://192.0.2.5:80: " + addLast + cannot,
		"rolled-back: add service tcp://192.0.2.5:80: could not be undone, will be repaired: " + takeBack + cannot,
	}, r.news())
	if diff := cmp.Diff(before, r.Head(), cmpNetip); diff != "" {
		t.Errorf("head (-before +after):\n%s", diff)
	}
	if r.held(t).Service(other().Key) < 0 {
		t.Fatal("nothing is left of the failed change: the test tests nothing")
	}
	return r
}

func TestUndoFailsAndIsRepaired(t *testing.T) {
	r := halfAdded(t)
	wantEvents := [][]string{{
		"drift: the kernel differs; to repair: " + takeBack,
		"repair-failed: not repaired: " + takeBack + cannot,
	}, nil, nil}
	for round, events := range wantEvents {
		r.reconcile(t)
		want(t, "events", events, r.news())
		drift := r.Drift()
		if len(drift.Pending) != 1 || drift.Pending[0].Step.String() != takeBack || drift.Pending[0].Cause != takeBack+cannot {
			t.Errorf("round %d: pending %+v, want the removal", round, drift.Pending)
		}
		if drift.Found != 1 || drift.Repaired != 0 || drift.Failed != uint64(round+1) {
			t.Errorf("round %d: drift %+v, want it found once", round, drift)
		}
	}
	r.refusing()
	r.reconcile(t)
	want(t, "events", []string{"repaired: repaired: " + takeBack}, r.news())
	wantState(t, "held", withForeign(r.State()), r.held(t))
	if drift := r.Drift(); drift.Pending != nil || drift.Repaired != 1 {
		t.Errorf("drift %+v, want it repaired", drift)
	}
}

// A new cause is told of: what the operator does about it may be another thing.
func TestRepairFailsOtherwise(t *testing.T) {
	r := halfAdded(t)
	r.reconcile(t)
	r.news()
	r.fake.FailIf(func(director.Operation) error { return director.ErrFull })
	for _, events := range [][]string{{"repair-failed: not repaired: " + takeBack + ": full"}, nil} {
		r.reconcile(t)
		want(t, "events", events, r.news())
	}
}

// What a failed change left is Shunt's to remove, whatever comes in between:
// other changes, which have the store forget what was intended, and a crash.
func TestLeftoversStayOurs(t *testing.T) {
	r := halfAdded(t)
	for range 2 {
		if _, err := r.EditService(t.Context(), by, web().Key, func(s *director.Service) error {
			s.Servers[0].Weight++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	r.reconcile(t)
	again := r.restart()
	if err := again.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]*rig{"in_the_same_run": r, "after_a_crash": again} {
		drift := d.Drift()
		if len(drift.Pending) != 1 || len(drift.Foreign) != 1 {
			t.Errorf("%s: pending %v, foreign %v, want the leftover pending", name, drift.Pending, drift.Foreign)
		}
	}
	r.refusing()
	again.reconcile(t)
	wantState(t, "held", withForeign(again.State()), r.held(t))

	// Once it is gone, one with its key that somebody else adds is foreign.
	again.reconcile(t)
	r.fake.Meddle(func(s *director.State) { s.Services = append(s.Services, other()) })
	again.reconcile(t)
	if drift := again.Drift(); len(drift.Foreign) != 2 || drift.Pending != nil {
		t.Errorf("drift %+v, want two foreign services", drift)
	}
}

// A change may name what was left of one that failed.
func TestLeftoversAreTakenUp(t *testing.T) {
	r := halfAdded(t)
	r.refusing()
	r.fake.Operations()
	outcome, err := r.AddService(t.Context(), by, other())
	if err != nil {
		t.Fatal(err)
	}
	want(t, "steps", []string{addLast + ": method dr, weight 2"}, stepTexts(outcome.Steps))
	want(t, "operations", []string{addLast}, texts(r.fake.Operations()))
	wantState(t, "held", withForeign(r.State()), r.held(t))
}

// blind is a data plane that cannot be read from the given call of Found on.
type blind struct {
	*directortest.Fake
	calls, from int
}

var errBlind = errors.New("blind")

func (b *blind) Found(ctx context.Context) (director.State, error) {
	if b.calls++; b.from > 0 && b.calls >= b.from {
		return director.State{}, errBlind
	}
	return b.Fake.Found(ctx)
}

func TestUndoIsBlind(t *testing.T) {
	first := start(t, web(), dns())
	plane := &blind{Fake: first.fake}
	r := first.over(plane, first.store)
	if err := r.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	plane.from = plane.calls + 2
	r.fake.FailAt(2)
	_, err := r.AddService(t.Context(), by, other())
	if !errors.Is(err, directortest.ErrInjected) || !errors.Is(err, errBlind) || !strings.HasSuffix(err.Error(), "; roll back: read what the data plane holds: blind") {
		t.Fatalf("error %v, want both", err)
	}
	r.fake.Operations()
	if _, err := r.RemoveService(t.Context(), by, dns().Key); !errors.Is(err, errBlind) {
		t.Errorf("change while blind: %v, want it refused", err)
	}
	if err := r.Reconcile(t.Context()); !errors.Is(err, errBlind) {
		t.Errorf("reconcile while blind: %v", err)
	}
	want(t, "operations while blind", nil, texts(r.fake.Operations()))
	plane.from = 0
	r.reconcile(t)
	want(t, "operations", []string{"remove service tcp://192.0.2.5:80"}, texts(r.fake.Operations()))
	r.sameAsFound(t)
}

// A step of the undoing that is called as the change is does not speak for it.
func TestUndoFailsAsTheChangeIsCalled(t *testing.T) {
	r := startChanges(t, "")
	r.store.FailAppend(errBlind)
	edits := 0
	r.fake.FailIf(func(op director.Operation) error {
		if _, ok := op.(director.EditService); ok {
			if edits++; edits > 1 {
				return directortest.ErrInjected
			}
		}
		return nil
	})
	_, err := r.EditService(t.Context(), by, web().Key, func(s *director.Service) error {
		s.Scheduler = director.LeastConnection
		return nil
	})
	const wantText = "edit service tcp://192.0.2.1:80: store revision 2: blind; roll back: edit service tcp://192.0.2.1:80: injected failure"
	if err == nil || err.Error() != wantText {
		t.Fatalf("error %v, want %s", err, wantText)
	}
}

// A foreign service that could not be put back is still foreign: nothing is
// removed that Shunt did not make.
func TestUndoOfATakeoverFails(t *testing.T) {
	r := startChanges(t, "")
	mail := foreign()
	mail.Servers = []realserver.Server{server("10.0.0.25:25", realserver.DR, 4), server("10.0.0.26:25", realserver.DR, 1)}
	edits := 0
	r.fake.FailIf(func(op director.Operation) error {
		if _, ok := op.(director.EditServer); ok {
			if edits++; edits == 1 {
				return nil
			}
		}
		return directortest.ErrInjected
	})
	services := []director.Service{web(), dns(), mail}
	_, err := r.Apply(t.Context(), by, director.State{Services: services})
	wantText := "apply: add server 10.0.0.26:25 to tcp://192.0.2.200:25: injected failure; roll back: edit server 10.0.0.25:25 of tcp://192.0.2.200:25: injected failure"
	if err == nil || err.Error() != wantText {
		t.Fatalf("error %v, want %s", err, wantText)
	}
	r.fake.FailIf(nil)
	left := foreign()
	left.Servers[0].Weight = 4
	for name, d := range map[string]*rig{"the_same_run": r, "after_a_crash": r.restart()} {
		if name == "after_a_crash" {
			if err := d.Start(t.Context(), director.State{}, by); err != nil {
				t.Fatal(err)
			}
		}
		d.reconcile(t)
		if diff := cmp.Diff([]director.Service{left}, d.Drift().Foreign, cmpNetip); diff != "" {
			t.Errorf("%s: foreign (-want +got):\n%s", name, diff)
		}
	}
	wantState(t, "held", director.State{
		Services: []director.Service{web(), left, dns()}, Timeouts: conntrack.DefaultTimeouts(),
	}, r.held(t))
}
