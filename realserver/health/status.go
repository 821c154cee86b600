package health

import (
	"fmt"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// Key is what is asked of whom. Whoever wants the same shares one probe, and its state.
type Key struct {
	Check  string // Check.Key of the check
	Target Target
}

// Assignment is something to ask from time to time. Of those with one key the first
// counts; their checks are the same, and their ways lead to the same place.
type Assignment struct {
	Key
	Check realserver.Check
	Dial  Dial
	// Up is what the server is before its first result; Known if that is known from
	// before: then it takes as many results to change as at any other time.
	Up, Known bool
}

// lastResults is how many results are remembered of each key.
const lastResults = 8

// Status is what is known of a key.
type Status struct {
	State
	Since  time.Time // of Up as it is
	Reason string    // of Up as it is, or of its being known
	Last   []Result  // newest first

	// Assumed is whether Up is what the assignment said: it has not passed since as often in
	// a row as makes a server up.
	Assumed bool

	Successes, Failures uint64 // results since it is asked
	// Weight is what the last pass said of the weight, and Absolute how; see Result.
	Weight   *int64
	Absolute bool
	Warning  string
	// CertificateEnd is when the certificate ends that the server showed last; zero: it
	// showed none.
	CertificateEnd time.Time
	// Overdue is whether a probe has not ended with its timeout, and still has not.
	Overdue bool
}

// Change is one change of a key's status.
type Change struct {
	Key     Key
	At      time.Time
	Was, Up bool // before and since; equal where something else changed
	Known   bool
	// Absolved is whether Suspect was contradicted: as many passes in a row since as make
	// a server up.
	Absolved bool
	Reason   string
	// As in Status, from now on.
	Weight   *int64
	Absolute bool
	Warning  string
}

// record is a key's status in the making.
type record struct {
	State
	assumed   bool
	since     time.Time
	reason    string
	last      []Result // newest last, at most lastResults
	successes uint64
	failures  uint64
	weight    *int64
	absolute  bool
	warning   string
	ends      time.Time
}

func newRecord(a Assignment, now time.Time) record {
	reason := "not asked yet"
	if a.Known {
		reason = "as it was before"
	}
	return record{State: State{Up: a.Up, Known: a.Known}, assumed: a.Up, since: now, reason: reason}
}

// add takes in a result and reports the change it made, if any, without its key. A
// result that does not count is remembered alone: it was asked before what it would contradict.
func (r *record) add(result Result, check realserver.Check, counts bool, now time.Time) (Change, bool) {
	r.last = appendBounded(r.last, result, lastResults)
	passed := result.Err == nil
	if !result.CertificateEnd.IsZero() {
		r.ends = result.CertificateEnd
	}
	before, weight, absolute, warning := r.State, r.weight, r.absolute, r.warning
	if passed {
		r.successes++
		r.weight, r.absolute, r.warning = result.Weight, result.Absolute, result.Warning
	} else {
		r.failures++
	}
	if counts {
		r.State = r.After(passed, check.Rise, check.Fall)
	}
	confirmed := r.assumed && r.Up && r.Passes >= uint32(check.Rise)
	r.assumed = r.assumed && r.Up && !confirmed
	change := Change{Was: before.Up, Up: r.Up, Known: r.Known, Absolved: before.Suspected && !r.Suspected && r.Up, At: now}
	stateChanged := before.Up != r.Up || before.Known != r.Known
	switch {
	case stateChanged:
		r.reason = why(before, r.State, result)
		change.Reason = r.reason
	case change.Absolved:
		change.Reason = "suspicion not confirmed: " + inARow("passed", r.Passes)
	case confirmed:
		change.Reason = "as it was before: " + inARow("passed", r.Passes)
	case r.warning != warning && r.warning != "":
		change.Reason = "warning: " + r.warning
	case r.warning != warning:
		change.Reason = "no warning any more"
	case !sameWeight(weight, absolute, r.weight, r.absolute):
		change.Reason = "another weight was told"
	default:
		return Change{}, false
	}
	if before.Up != r.Up {
		r.since = now
	}
	change.Weight, change.Absolute, change.Warning = r.weight, r.absolute, r.warning
	return change, true
}

// why says what made the state.
func why(before, after State, result Result) string {
	text, count := printable(result.Detail), inARow("passed", after.Passes)
	if result.Err != nil {
		text, count = result.Err.Error(), inARow("failed", after.Fails)
	}
	if !before.Known {
		count += " at first"
	}
	if text == "" {
		return count
	}
	return count + ": " + text
}

func inARow(verb string, n uint32) string {
	if n == 1 {
		return verb + " once"
	}
	return fmt.Sprintf("%s %d times in a row", verb, n)
}

// now is status without the last results.
func (r *record) now(overdue bool) Status {
	return Status{
		State: r.State, Since: r.since, Assumed: r.assumed, Reason: r.reason, Successes: r.successes, Failures: r.failures,
		Weight: r.weight, Absolute: r.absolute, Warning: r.warning, CertificateEnd: r.ends, Overdue: overdue,
	}
}

func (r *record) status(overdue bool) Status {
	s := r.now(overdue)
	s.Last = slices.Clone(r.last)
	slices.Reverse(s.Last)
	return s
}

func sameWeight(a *int64, aAbsolute bool, b *int64, bAbsolute bool) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b && aAbsolute == bAbsolute
}

// appendBounded appends to a slice of at most limit elements, without its first if it
// is full.
func appendBounded[T any](s []T, v T, limit int) []T {
	if len(s) < limit {
		return append(s, v)
	}
	copy(s, s[1:])
	s[limit-1] = v
	return s
}
