package health

import (
	"container/heap"
	"time"
)

// queue is a heap of entries by a time of theirs. An entry knows its place in each of
// the two it can be in.
type queue struct {
	kind    queueKind
	entries []*entry
}

type queueKind int

const (
	starts queueKind = iota // by when the next probe is due
	ends                    // by when the running probe is overdue
	queueKinds
)

// notQueued is the place of an entry that is not in the queue.
const notQueued = -1

// at puts e into the queue at the time t, or moves it there.
func (q *queue) at(e *entry, t time.Time) {
	e.when[q.kind] = t
	if e.place[q.kind] == notQueued {
		heap.Push(q, e)
		return
	}
	heap.Fix(q, e.place[q.kind])
}

// remove takes e out if it is there.
func (q *queue) remove(e *entry) {
	if e.place[q.kind] != notQueued {
		heap.Remove(q, e.place[q.kind])
	}
}

// first returns the entry that is due first, nil if there is none.
func (q *queue) first() *entry {
	if len(q.entries) == 0 {
		return nil
	}
	return q.entries[0]
}

// late returns how long ago the first entry was due; 0: none is.
func (q *queue) late(now time.Time) time.Duration {
	e := q.first()
	if e == nil {
		return 0
	}
	return max(now.Sub(e.when[q.kind]), 0)
}

// Len, Less, Swap, Push and Pop are heap.Interface's.
func (q *queue) Len() int { return len(q.entries) }

// Less is of heap.Interface.
func (q *queue) Less(i, j int) bool {
	return q.entries[i].when[q.kind].Before(q.entries[j].when[q.kind])
}

// Swap is of heap.Interface.
func (q *queue) Swap(i, j int) {
	q.entries[i], q.entries[j] = q.entries[j], q.entries[i]
	q.entries[i].place[q.kind], q.entries[j].place[q.kind] = i, j
}

// Push is of heap.Interface.
func (q *queue) Push(x any) {
	e := x.(*entry)
	e.place[q.kind] = len(q.entries)
	q.entries = append(q.entries, e)
}

// Pop is of heap.Interface.
func (q *queue) Pop() any {
	last := len(q.entries) - 1
	e := q.entries[last]
	q.entries[last] = nil
	q.entries = q.entries[:last]
	e.place[q.kind] = notQueued
	return e
}
