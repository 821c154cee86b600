package director_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
)

// errCrash is what a crash panics with.
var errCrash = errors.New("crash")

// fuse burns with everything the director does to the outside, before and after
// each, and blows at the one it is set to.
type fuse struct{ left int }

func (f *fuse) burn() {
	if f.left--; f.left == 0 {
		panic(errCrash)
	}
}

// crashingPlane and crashingStore end the director in the middle of what it
// does.
type crashingPlane struct {
	*directortest.Fake
	fuse *fuse
}

func (c crashingPlane) Apply(ctx context.Context, ops []director.Operation) error {
	for i := range ops {
		c.fuse.burn()
		if err := c.Fake.Apply(ctx, ops[i:i+1]); err != nil {
			return err
		}
	}
	c.fuse.burn()
	return nil
}

type crashingStore struct {
	*directortest.Store
	fuse *fuse
}

func (c crashingStore) Intend(keys []director.ServiceKey) error {
	c.fuse.burn()
	defer c.fuse.burn()
	return c.Store.Intend(keys)
}

func (c crashingStore) Append(r director.Revision) error {
	c.fuse.burn()
	defer c.fuse.burn()
	return c.Store.Append(r)
}

// survives runs what may crash and reports whether it did not.
func survives(do func()) (survived bool) {
	defer func() {
		if caught := recover(); caught != nil && caught != errCrash {
			panic(caught)
		}
	}()
	do()
	return true
}

// A daemon that is killed at whatever instant of a change comes back with the
// old revision or, if it was stored, the new one, and the kernel is made equal.
func TestCrashAtEveryInstant(t *testing.T) {
	for _, tt := range changes {
		for instant := 1; ; instant++ {
			crashed := false
			t.Run(fmt.Sprintf("%s/%d", tt.name, instant), func(t *testing.T) {
				first := startChanges(t, tt.name)
				f := new(fuse)
				r := first.over(crashingPlane{first.fake, f}, crashingStore{first.store, f})
				if err := r.Start(t.Context(), director.State{}, by); err != nil {
					t.Fatal(err)
				}
				before := r.Head()
				f.left = instant
				crashed = !survives(func() {
					if _, err := tt.do(t.Context(), r.Director); err != nil {
						t.Error(err)
					}
				})
				if !crashed {
					return
				}
				stored, _, err := r.store.Load()
				if err != nil || stored.Number > before.Number+1 {
					t.Fatalf("stored revision %d, error %v", stored.Number, err)
				}

				again := r.restart()
				if err := again.Start(t.Context(), director.State{}, by); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(stored, again.Head(), cmpNetip); diff != "" {
					t.Errorf("head (-stored +head):\n%s", diff)
				}
				if diff := cmp.Diff(before, again.Head(), cmpNetip); stored.Number == before.Number && diff != "" {
					t.Errorf("head (-before +after):\n%s", diff)
				}
				again.onlyOurs(t)
				if _, err := tt.do(t.Context(), again.Director); err != nil && stored.Number == before.Number {
					t.Errorf("again: %v", err)
				}
				again.onlyOurs(t)
			})
			if !crashed {
				break
			}
		}
	}
}

// onlyOurs fails the test if the kernel is not equal to the head but for the
// foreign service, which is there in any case.
func (r *rig) onlyOurs(t *testing.T) {
	t.Helper()
	held, head := r.held(t), r.State()
	i := held.Service(foreign().Key)
	if i < 0 {
		t.Fatal("the foreign service was removed")
	}
	if head.Service(foreign().Key) < 0 { // a crash while it is taken over leaves it as it is then
		held.Services = append(held.Services[:i:i], held.Services[i+1:]...)
	}
	wantState(t, "held", head, held)
	if drift := r.Drift(); drift.Pending != nil {
		t.Errorf("drift %+v, want nothing pending", drift)
	}
}

// The first start is killed at every instant, too.
func TestCrashOfTheFirstStart(t *testing.T) {
	initial := director.State{Services: []director.Service{web(), dns()}}
	for instant := 1; ; instant++ {
		first := newRig(nil, nil)
		first.fake.Meddle(func(s *director.State) { s.Services = append(s.Services, foreign()) })
		f := &fuse{left: instant}
		r := first.over(crashingPlane{first.fake, f}, crashingStore{first.store, f})
		if survives(func() {
			if err := r.Start(t.Context(), initial, by); err != nil {
				t.Error(err)
			}
		}) {
			if instant < 10 {
				t.Errorf("crashed %d times: the test tests too little", instant-1)
			}
			return
		}
		stored, _, err := r.store.Load()
		if err != nil {
			t.Fatal(err)
		}
		// The file is another one by now: it counts if nothing was stored.
		file := director.State{Services: []director.Service{dns()}}
		again := r.restart()
		if err := again.Start(t.Context(), file, by); err != nil {
			t.Fatal(err)
		}
		if n := len(again.State().Services); stored.Number == 1 && n != 2 || stored.Number == 0 && n != 1 {
			t.Errorf("instant %d: %d services with revision %d stored", instant, n, stored.Number)
		}
		again.onlyOurs(t)
	}
}
