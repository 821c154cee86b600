package api

import (
	"context"
	"fmt"
	"net/http"

	"golang.org/x/sync/semaphore"
)

// How much there is at once, for each kind of caller.
const (
	// maxStreams is how many streams are open.
	maxStreams = 64
	// maxBodies is how many bytes the whole configurations have that are being
	// read: a large one takes many times its size of memory.
	maxBodies = 2 * maxConfiguration
)

// share is what callers of one kind share with one another and nobody else:
// whoever may only look cannot keep others from a change, nor callers from afar
// those on the host.
type share struct {
	bodies  *semaphore.Weighted // of maxBodies bytes
	streams chan struct{}       // a slot for each open stream; a full one refuses the next
}

// The kinds of callers.
const (
	lookers  = iota // viewers from afar
	changers        // others from afar
	locals          // those on the host
	kinds
)

type shares [kinds]share

func newShares() *shares {
	var all shares
	for i := range all {
		all[i] = share{bodies: semaphore.NewWeighted(maxBodies), streams: make(chan struct{}, maxStreams)}
	}
	return &all
}

// of returns the caller's share.
func (s *shares) of(c caller) share {
	switch {
	case c.local:
		return s[locals]
	case c.role <= Viewer:
		return s[lookers]
	default:
		return s[changers]
	}
}

// room waits until there is room for the body of the request, a configuration.
// A slow sender takes the room of what it says it will send, and of nothing more.
// The caller of room gives it back.
func (e endpoints) room(r *http.Request) (giveBack func(), err error) {
	size := r.ContentLength
	if size < 0 || size > maxConfiguration { // not known, or refused by who reads it
		size = maxConfiguration
	}
	bodies := e.shares.of(callerOf(r.Context())).bodies
	wait, cancel := context.WithTimeout(r.Context(), e.limits.turn)
	defer cancel()
	if err := bodies.Acquire(wait, size); err != nil {
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
		return nil, newProblem(http.StatusServiceUnavailable, "busy",
			fmt.Sprintf("configurations with more than %d MiB are being read", (maxBodies-size)>>20), "try again later")
	}
	return func() { bodies.Release(size) }, nil
}
