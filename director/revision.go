package director

import (
	"fmt"
	"time"
)

// RevisionInfo describes a revision: one numbered, immutable desired state.
type RevisionInfo struct {
	Number uint64 // from 1, without gaps
	Time   time.Time
	Who    string // who asked for it, such as "root" or "token deploy"
	Why    string // what they said; may be empty
	Action string // what was asked for, such as "apply" or "remove service tcp://…"
}

// Revision is a revision with its state.
type Revision struct {
	RevisionInfo
	State State
}

// Store keeps revisions durably. Implementations are safe for concurrent use.
type Store interface {
	// Load returns the newest revision and the keys intended since. The
	// revision's number is 0 if there is none.
	Load() (head Revision, intended []ServiceKey, err error)

	// Intend records, durably, that services with the keys are about to be
	// added: whatever is found of them later was made by Shunt.
	Intend(keys []ServiceKey) error

	// Append keeps the revision, durably when it returns, and forgets the
	// intended keys. Its number must follow that of the newest one.
	Append(revision Revision) error

	// Revision reads a revision; ErrNotFound if there is none of the number.
	Revision(number uint64) (Revision, error)

	// History describes up to limit revisions below before, newest first; 0
	// for before means from the newest.
	History(before uint64, limit int) ([]RevisionInfo, error)
}

// Request says who asks for a change, and on what terms.
type Request struct {
	Who string
	Why string
	// Base is the revision the change was made against: *ConflictError if it is
	// not the newest. 0 stands for whatever is newest.
	Base uint64
	// Force lets a change remove more than the guard allows.
	Force bool
}

// Outcome is what came of a change.
type Outcome struct {
	Revision RevisionInfo // the newest revision; an old one if nothing changed
	Changed  bool
	Steps    []Step // what was done, in order
}

// GuardError refuses a change that removes a larger share than allowed.
type GuardError struct {
	What          string // "services" or "servers"
	Removed, Have int
	Limit         int // per cent
}

// Error says what would be removed.
func (e *GuardError) Error() string {
	return fmt.Sprintf("this would remove %d of %d %s: more than the %d %% allowed without force", e.Removed, e.Have, e.What, e.Limit)
}

// ConflictError says that somebody else's change came first.
type ConflictError struct{ Base, Head uint64 }

// Error names the revisions.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("made against revision %d, but revision %d is the newest", e.Base, e.Head)
}
