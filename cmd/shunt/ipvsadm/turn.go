package ipvsadm

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// turnTime is how long a program waits for those of this host that change something
// before it. It goes on all the same then: who holds the others up must not stop
// them, and the condition on the revision keeps everybody's change.
const turnTime = 30 * time.Second

// takeTurn waits until no other program on this host that was called as ipvsadm
// makes a change, and returns what ends the turn. Each reads the configuration and
// sends all of it back; at once, all but one would have to begin anew, again and
// again. The lock is the socket's folder's, and taken in turn (man 2 flock). Whoever
// may not read the folder has none, as a member of the socket's group.
func takeTurn(ctx context.Context, folder string, most time.Duration) (end func()) {
	none := func() {}
	if folder == "" { // the daemon is elsewhere
		return none
	}
	opened, err := os.Open(folder)
	if err != nil {
		return none
	}
	release := func() { _ = opened.Close() }
	locked, gone := make(chan error), make(chan struct{})
	go func() {
		err := lock(int(opened.Fd()))
		select {
		case locked <- err:
		case <-gone:
			release()
		}
	}()
	limit := time.NewTimer(most)
	defer limit.Stop()
	select {
	case err := <-locked:
		if err != nil {
			release()
			return none
		}
		return release
	case <-limit.C:
	case <-ctx.Done():
	}
	close(gone)
	return none
}

// lock waits for the lock, whatever signals come.
func lock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// contest is one of those who change something at the same time, and do not wait
// for one another: on other hosts, or by other programs.
type contest struct {
	until time.Time // zero: nothing was lost yet
	lost  int
}

const (
	contestTime = 30 * time.Second
	firstPause  = 10 * time.Millisecond
	maxDoubled  = 5 // how often the pause is doubled
)

// again pauses after a change that came too late, by chance and longer each time, so
// that one of many gets through; false when there is no time left.
func (c *contest) again(ctx context.Context) bool {
	if c.until.IsZero() {
		c.until = time.Now().Add(contestTime)
	}
	longest := firstPause << min(c.lost, maxDoubled)
	c.lost++
	return time.Now().Before(c.until) && pause(ctx, rand.N(longest))
}

// pause returns after the time, or false when the context ends before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
