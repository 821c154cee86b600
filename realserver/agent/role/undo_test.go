package role

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// errCrash is the end of the process at a step.
var errCrash = errors.New("crash")

// fakeHost has objects, and ends at a step: before or after what it does, as a process
// that is killed does.
type fakeHost struct {
	values map[Object]string
	file   store
	left   int // steps until the end; negative: there is none
}

func (h *fakeHost) step(do func() error) error {
	if h.left == 0 {
		panic(errCrash)
	}
	h.left--
	err := do()
	if h.left == 0 {
		panic(errCrash)
	}
	h.left--
	return err
}

func (h *fakeHost) get(o Object) (string, error) {
	value, found := h.values[o]
	if !found {
		return "", errGone
	}
	return value, nil
}

func (h *fakeHost) set(o Object, value string) error {
	return h.step(func() error { h.values[o] = value; return nil })
}

func (h *fakeHost) load() (state, error) { return h.file.load() }

func (h *fakeHost) save(s state) error {
	return h.step(func() error { return h.file.save(s) })
}

// memory keeps a state.
type memory struct{ state }

func (m *memory) load() (state, error) {
	s := m.state
	s.Changes = slices.Clone(s.Changes)
	return s, nil
}

func (m *memory) save(s state) error {
	m.state = s
	m.Changes = slices.Clone(s.Changes)
	return nil
}

// until runs f to its end or to the crash; it reports whether that came.
func (h *fakeHost) until(t *testing.T, left int, f func(w work, s state) error) (crashed bool) {
	t.Helper()
	h.left = left
	defer func() {
		h.left = -1
		if e := recover(); e != nil {
			if e != errCrash {
				panic(e)
			}
			crashed = true
		}
	}()
	s, err := h.load()
	if err == nil {
		err = f(work{machine: h, store: h}, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return false
}

func sysctl(iface, before, after string) Change {
	return Change{Object{kindSysctl, knobPath(iface, "arp_ignore")}, before, after}
}

func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	return &fakeHost{left: -1, file: &memory{}, values: map[Object]string{
		sysctl("all", "", "").Object: "0", sysctl("eth0", "", "").Object: "0", {kindAddress, "lo 192.0.2.1/32"}: "",
	}}
}

var three = []Change{sysctl("all", "0", "1"), sysctl("eth0", "0", "1"), {Object{kindAddress, "lo 192.0.2.1/32"}, "", present}}

// TestCrash ends prepare at each step in turn, and then undo at each: an undo that comes
// to its end has put back all that was there, and nothing is left of the record.
func TestCrash(t *testing.T) {
	prepare := func(w work, s state) error { _, err := w.make(s, three); return err }
	undo := func(w work, s state) error { _, err := w.undo(s, Make); return err }
	crashes := 0
	for first := 0; ; first++ {
		for second := 0; ; second++ {
			h := newFakeHost(t)
			before := maps.Clone(h.values)
			firstCrashed := h.until(t, first, prepare)
			if firstCrashed && second == 0 {
				crashes++
			}
			// One that was interrupted and is tried again makes all.
			if second == 1 {
				again := &fakeHost{values: maps.Clone(h.values), file: &memory{}, left: -1}
				s, err := h.load()
				if err == nil {
					err = again.save(s)
				}
				if err != nil {
					t.Fatal(err)
				}
				again.until(t, -1, prepare)
				if again.values[three[2].Object] != present || again.values[three[0].Object] != "1" {
					t.Fatalf("after a crash at step %d a second prepare leaves %v", first, again.values)
				}
				again.until(t, -1, undo)
				if diff := cmp.Diff(before, again.values); diff != "" {
					t.Fatalf("prepared twice, crash at step %d (-before +after)\n%s", first, diff)
				}
			}
			secondCrashed := h.until(t, second, undo)
			h.until(t, -1, undo)
			if diff := cmp.Diff(before, h.values); diff != "" {
				t.Fatalf("crashes at steps %d and %d (-before +after)\n%s", first, second, diff)
			}
			if s, err := h.load(); err != nil || len(s.Changes) != 0 {
				t.Fatalf("crashes at steps %d and %d: %v is left, %v", first, second, s.Changes, err)
			}
			if !secondCrashed {
				break
			}
		}
		if first > crashes {
			break
		}
	}
	if want := 4 * len(three); crashes != want { // before and after each writing and each setting
		t.Errorf("%d crashes, want %d", crashes, want)
	}
}

// TestForeignChanges: what others changed since is left alone and named, and what they
// changed in between is what comes back.
func TestForeignChanges(t *testing.T) {
	all, eth0, vip := three[0].Object, three[1].Object, three[2].Object
	for _, test := range []struct {
		name  string
		after func(h *fakeHost) []Change // between prepare and undo; more is prepared then
		want  map[Object]string
		left  []Change
	}{
		{"none", nil, map[Object]string{all: "0", eth0: "0", vip: ""}, nil},
		{
			"another value", func(h *fakeHost) []Change { h.values[all] = "2"; return nil },
			map[Object]string{all: "2", eth0: "0", vip: ""},
			three[:1],
		},
		{
			"taken back by hand", func(h *fakeHost) []Change { h.values[all], h.values[vip] = "0", ""; return nil },
			map[Object]string{all: "0", eth0: "0", vip: ""},
			nil,
		},
		{
			"taken back by hand, and prepared again", func(h *fakeHost) []Change { h.values[all] = "0"; return three[:1] },
			map[Object]string{all: "0", eth0: "0", vip: ""},
			nil,
		},
		{
			"another value, and prepared again", func(h *fakeHost) []Change { h.values[all] = "3"; return []Change{sysctl("all", "3", "1")} },
			map[Object]string{all: "3", eth0: "0", vip: ""},
			three[:1],
		},
		{
			"the interface is gone", func(h *fakeHost) []Change { delete(h.values, eth0); return nil },
			map[Object]string{all: "0", vip: ""},
			nil,
		},
	} {
		h := newFakeHost(t)
		make := func(changes []Change) func(work, state) error {
			return func(w work, s state) error { _, err := w.make(s, changes); return err }
		}
		h.until(t, -1, make(three))
		if test.after != nil {
			h.until(t, -1, make(test.after(h)))
		}
		for _, mode := range []Mode{DryRun, Make} {
			before := maps.Clone(h.values)
			var report Report
			h.until(t, -1, func(w work, s state) (err error) { report, err = w.undo(s, mode); return err })
			if mode == DryRun && !maps.Equal(before, h.values) {
				t.Errorf("%s: a dry run changes %v", test.name, h.values)
			}
			if mode == Make && !slices.Equal(report.Left, test.left) {
				t.Errorf("%s: left %v, want %v", test.name, report.Left, test.left)
			}
		}
		if diff := cmp.Diff(test.want, h.values); diff != "" {
			t.Errorf("%s (-want +got)\n%s", test.name, diff)
		}
	}
}

// refusing is a host that refuses to set one object.
type refusing struct {
	*fakeHost

	object Object
}

func (r refusing) set(o Object, value string) error {
	if o == r.object {
		return errors.New("no")
	}
	return r.fakeHost.set(o, value)
}

// TestRefused: what cannot be put back is named and stays in the record; the rest is.
func TestRefused(t *testing.T) {
	h := newFakeHost(t)
	r := refusing{h, three[1].Object}
	s, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	made, err := work{machine: r, store: h}.make(s, three)
	if want := "set sysctl net/ipv4/conf/eth0/arp_ignore=1 (was 0): no; what was changed before it stays: `shunt-agent undo` takes it back"; err == nil || err.Error() != want || len(made) != 1 {
		t.Errorf("made %v, %v, want %s", made, err, want)
	}
	h.until(t, -1, func(w work, s state) error { _, err := w.make(s, three); return err })
	if s, err = h.load(); err != nil {
		t.Fatal(err)
	}
	if _, err := (work{machine: r, store: h}).undo(s, Make); err == nil || err.Error() != "undo sysctl net/ipv4/conf/eth0/arp_ignore=1 (was 0): no" {
		t.Errorf("undo: %v", err)
	}
	if got := fmt.Sprint(h.values[three[0].Object], h.values[three[1].Object], h.values[three[2].Object]); got != "01" {
		t.Errorf("values %s after an undo that was refused one", got)
	}
	if s, err = h.load(); err != nil || !slices.Equal(s.Changes, three[1:2]) {
		t.Errorf("the record has %v, %v", s.Changes, err)
	}
}
