package lease

import "fmt"

// Reason is why a message was refused. Reasons are stable: they are counted by name.
type Reason string

// The reasons.
const (
	Invalid    Reason = "invalid"       // what it says cannot be
	Replayed   Reason = "replayed"      // its sequence is not higher than the last one's
	Superseded Reason = "superseded"    // a later run of the agent has registered
	Taken      Reason = "address-taken" // another agent of the pool has the address
	NoMember   Reason = "no-member"     // there is no lease to end, or to report
	TooFast    Reason = "too-fast"      // too many messages at once
	Full       Reason = "full"          // no room for another
	Foreign    Reason = "not-its-own"   // the caller may not speak for the agent, or the pool
	NoPool     Reason = "no-pool"       // no service takes servers from the pool
	// Denied: the server is outside the networks that the caller's credentials name.
	Denied Reason = "address-denied"
)

// Reasons returns all of them.
func Reasons() []Reason {
	return []Reason{Invalid, Replayed, Superseded, Taken, NoMember, TooFast, Full, Foreign, NoPool, Denied}
}

// Refusal says that a message was refused, and why. Nothing changed by it.
type Refusal struct {
	Reason Reason
	Text   string
	// first is whether it is to be told although its reason was counted before.
	first bool
}

// Error returns the text.
func (r *Refusal) Error() string { return r.Text }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Text: fmt.Sprintf(format, args...)}
}
