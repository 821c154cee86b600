// Package store keeps the desired state on disk: director.Store over bbolt.
//
// A revision is one immutable record: who, when, why, and either the whole state
// or what differs from the revision before. Every record carries its own SHA-256
// and that of the record before, so that a record cannot be lost, changed or
// exchanged unseen.
//
// The package knows nothing of what a state means; it stores what the director
// validated and gives it back.
//
// Begin with store.go; record.go and state.go are the format.
package store
