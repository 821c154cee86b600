package role

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/realserver/agent"
)

// ErrBlocked is of a host that cannot be prepared as it is. Nothing was changed.
var ErrBlocked = errors.New("the host is not prepared: nothing was changed")

// Mode says whether changes are made.
type Mode bool

// The modes.
const (
	Make   Mode = false
	DryRun Mode = true // only said
)

// Options are where it is kept what was there before.
type Options struct {
	File string // "": DefaultFile
	Mode Mode
}

// Report is what was done, or in a dry run would be.
type Report struct {
	Changes []Change
	// Left are changes that Undo did not take back: the values are another's since, or
	// the interface is gone.
	Left []Change
	// Findings are what is wrong still; of a dry run what is wrong and not mended.
	Findings []Finding
}

// Check says what keeps the role from working; nothing is changed. Errors are of what
// cannot be read, agent.ErrNoInterface or bpf/decap's.
func Check(r Role) ([]Finding, error) {
	r = r.withDefaults()
	s, err := look(&r)
	if err != nil {
		return nil, err
	}
	return judge(r, s), nil
}

// CheckDirectors asks the directors of the settings whether they know the agent.
func CheckDirectors(ctx context.Context, s agent.Settings) []Finding {
	wrong := agent.AskDirectors(ctx, s)
	var all []Finding
	for _, where := range s.Directors {
		if err := wrong[where]; err != nil {
			all = append(all, Finding{Severity: Problem, Subject: where, Text: err.Error()})
		}
	}
	return all
}

// Prepare makes the host what the role wants, as far as it can: what is so already stays,
// and is not taken back by Undo. It adds up with what was prepared before. Errors wrap
// ErrBlocked, ErrBusy, or are those of Check; one in the middle leaves what was made
// before it to Undo.
func Prepare(r Role, o Options) (Report, error) {
	r = r.withDefaults()
	w := newWork(o)
	if o.Mode == Make {
		unlock, err := w.file.lock()
		if err != nil {
			return Report{}, err
		}
		defer unlock()
	}
	before, err := w.store.load()
	if err != nil {
		return Report{}, err
	}
	s, err := look(&r)
	if err != nil {
		return Report{}, err
	}
	var report Report
	var blocks []error
	for _, f := range judge(r, s) {
		for _, c := range f.changes {
			if !slices.Contains(report.Changes, c) {
				report.Changes = append(report.Changes, c)
			}
		}
		if f.blocks {
			block := fmt.Sprintf("%s: %s", f.Subject, f.Text)
			if f.Mend != "" {
				block += ": " + f.Mend
			}
			blocks = append(blocks, errors.New(block))
		}
		if len(f.changes) == 0 {
			report.Findings = append(report.Findings, f)
		}
	}
	if len(blocks) > 0 {
		return Report{}, fmt.Errorf("%w: %w", ErrBlocked, errors.Join(blocks...))
	}
	if o.Mode == DryRun {
		return report, nil
	}
	report.Changes, err = w.make(before, report.Changes)
	if err != nil {
		return report, err
	}
	report.Findings, err = Check(r)
	return report, err
}

// Undo takes back what Prepare has changed since the boot, the last first. What was
// changed by others since is left alone, and forgotten.
func Undo(o Options) (Report, error) {
	w := newWork(o)
	if o.Mode == Make {
		unlock, err := w.file.lock()
		if err != nil {
			return Report{}, err
		}
		defer unlock()
	}
	s, err := w.store.load()
	if err != nil {
		return Report{}, err
	}
	return w.undo(s, o.Mode)
}

// store keeps a state.
type store interface {
	load() (state, error)
	save(state) error
}

// work changes a machine, and writes down what it was before.
type work struct {
	machine machine
	store   store
	file    file
}

func newWork(o Options) work {
	if o.File == "" {
		o.File = DefaultFile
	}
	return work{machine: kernel{}, store: file{o.File}, file: file{o.File}}
}

// make makes the changes, each after it was written down, and returns those that were.
func (w work) make(s state, changes []Change) (made []Change, err error) {
	for _, c := range changes {
		if !s.has(c) {
			s.Changes = append(s.Changes, c)
			if err := w.store.save(s); err != nil {
				return made, err
			}
		}
		if err := w.machine.set(c.Object, c.After); err != nil {
			return made, fmt.Errorf("set %s: %w; what was changed before it stays: `shunt-agent undo` takes it back", c, err)
		}
		made = append(made, c)
	}
	return made, nil
}

// has reports whether the change was the last of its object: it was begun before, or
// taken back by someone.
func (s state) has(c Change) bool {
	for _, have := range slices.Backward(s.Changes) {
		if have.Object == c.Object {
			return have == c
		}
	}
	return false
}

func (w work) undo(s state, mode Mode) (report Report, err error) {
	var kept []Change // that could not be undone
	var errs []error
	for len(s.Changes) > 0 {
		last := len(s.Changes) - 1
		c := s.Changes[last]
		s.Changes = s.Changes[:last]
		switch done, err := w.takeBack(c, mode); {
		case err != nil:
			kept = append(kept, c)
			errs = append(errs, fmt.Errorf("undo %s: %w", c, err))
			continue
		case done == left:
			report.Left = append(report.Left, c)
		case done == taken:
			report.Changes = append(report.Changes, c.back())
		}
		if mode == Make {
			rest := s
			rest.Changes = slices.Clone(s.Changes)
			for _, k := range slices.Backward(kept) {
				rest.Changes = append(rest.Changes, k)
			}
			if err := w.store.save(rest); err != nil {
				return report, errors.Join(append(errs, err)...)
			}
		}
	}
	if mode == Make && len(kept) == 0 {
		// There may be one of an earlier boot.
		errs = append(errs, w.store.save(s))
	}
	return report, errors.Join(errs...)
}

// taking is what became of a change that is undone.
type taking int

const (
	taken taking = iota
	never        // it was not made, or is taken back already
	left         // it is another's
	isErr        // it could not be looked at, or taken back
)

func (w work) takeBack(c Change, mode Mode) (taking, error) {
	now, err := w.machine.get(c.Object)
	switch {
	case errors.Is(err, errGone):
		return never, nil
	case err != nil:
		return isErr, err
	case same(c.Kind, now, c.Before):
		return never, nil
	case !same(c.Kind, now, c.After):
		return left, nil
	case mode == DryRun:
		return taken, nil
	}
	if err := w.machine.set(c.Object, c.Before); err != nil {
		return isErr, err
	}
	return taken, nil
}

// same compares values. Which mode an interface has is chosen when it is attached to.
func same(kind, a, b string) bool {
	if kind == kindDecap {
		a, b = strings.ReplaceAll(a, generic, ""), strings.ReplaceAll(b, generic, "")
	}
	return a == b
}

// generic is what decapsulation's value has of such an interface.
const generic = `,"generic":true`
