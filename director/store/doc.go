// Package store keeps the desired state on disk: director.Store over bbolt, in
// two files of which either is enough.
//
// A revision is one immutable record: who, when, why, and either the whole state
// or what differs from the revision before. Every record carries its own SHA-256
// and that of the record before, so that none can be lost, changed or exchanged
// unseen, and each file says which is the newest. The package knows nothing of
// what a state means.
//
// Append writes and syncs state.db, then state.copy.db, and returns. So whenever
// the process or the host ends, each file is what bbolt had committed, and only
// the revision in flight, which nobody was told of, may be in the first alone:
// Open then finishes the second. A file that is cut, changed or missing is set
// aside and made anew from the other. Files that are both good and contradict
// each other, or are both damaged, are refused and left as they are.
//
// A write that fails is withdrawn from both files before the error is returned.
// If even that is not possible (the disk fails altogether), the error says so,
// and the revision may be there after a restart.
//
// Begin with store.go; record.go and state.go are the format, image.go and
// inspect.go check files without bbolt, whose memory map a bad file would turn
// into a crash, and repair.go makes the two alike.
package store
