package scheduler

import (
	"cmp"
	"container/heap"
	"time"
)

// timer is when something in a Simulation expires.
type timer struct {
	at     time.Time
	order  int // of timers of one instant: the one set first is due first
	place  int // in the queue, from 1; 0: not in it
	expire func()
}

// timers are those of a Simulation, soonest first.
type timers struct {
	queue  timerQueue
	serial int
}

// set makes a timer expire at a time.
func (q *timers) set(t *timer, at time.Time) {
	q.serial++
	t.at, t.order = at, q.serial
	if t.place == 0 {
		heap.Push(&q.queue, t)
	} else {
		heap.Fix(&q.queue, t.place-1)
	}
}

func (q *timers) stop(t *timer) {
	if t.place > 0 {
		heap.Remove(&q.queue, t.place-1)
	}
}

// due takes out the next timer that expires by a time, nil if none does.
func (q *timers) due(by time.Time) *timer {
	if len(q.queue) == 0 || q.queue[0].at.After(by) {
		return nil
	}
	return heap.Pop(&q.queue).(*timer)
}

// timerQueue is a heap.Interface.
type timerQueue []*timer

func (q timerQueue) Len() int { return len(q) }

func (q timerQueue) Less(i, j int) bool {
	return cmp.Or(q[i].at.Compare(q[j].at), cmp.Compare(q[i].order, q[j].order)) < 0
}

func (q timerQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i+1, j+1
}

// Push adds a *timer at the end.
func (q *timerQueue) Push(x any) {
	t := x.(*timer)
	*q = append(*q, t)
	t.place = len(*q)
}

// Pop takes the last one away.
func (q *timerQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	last.place = 0
	return last
}
