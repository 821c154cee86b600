package offer_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
)

// slow is a director whose kernel takes its time.
type slow struct {
	*director.Director
	reoffered atomic.Int64
}

const kernelTakes = 20 * time.Millisecond

func (s *slow) Reoffer(ctx context.Context, key director.ServiceKey) error {
	s.reoffered.Add(1)
	time.Sleep(kernelTakes)
	return s.Director.Reoffer(ctx, key)
}

// However fast servers change, the Keeper is at it for half of the time at most, and the
// last change is carried out.
func TestFloodOfChanges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(directortest.NewFake(director.State{}), &directortest.Store{}, nil)
		s := &slow{Director: r.Director}
		ctx, cancel := context.WithCancel(t.Context())
		if err := r.Start(ctx, director.State{Services: []director.Service{web(checked(), 4, 4)}}, by); err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		work.Go(func() {
			if err := r.Keeper.Run(ctx, s); err != nil {
				t.Errorf("run: %v", err)
			}
		})
		defer work.Wait()
		defer cancel()
		time.Sleep(time.Second)
		r.allUp(2)
		time.Sleep(time.Second)
		s.reoffered.Store(0)
		const flood = time.Second
		for i := range 2*int(flood/(2*time.Millisecond)) + 1 {
			r.checks.say(first, i%2 == 1)
			time.Sleep(time.Millisecond)
		}
		if turns := s.reoffered.Load(); turns < 10 || turns > int64(flood/(2*kernelTakes))+1 {
			t.Errorf("%d turns of %v in %v", turns, kernelTakes, flood)
		}
		time.Sleep(time.Second)
		r.want(t, "after the flood", "10.0.0.1=0 10.0.0.2=4")
	})
}

// An order that is taken back before the Keeper has heard what checks say meanwhile: the
// kernel was given a server that is down, and what is decided is what was.
func TestOrderTakenBackMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(directortest.NewFake(director.State{}), &directortest.Store{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		if err := r.Start(ctx, director.State{Services: []director.Service{web(checked(), 4, 4)}}, by); err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		work.Go(func() {
			if err := r.Keeper.Run(ctx, &slow{Director: r.Director}); err != nil {
				t.Errorf("run: %v", err)
			}
		})
		defer work.Wait()
		defer cancel()
		time.Sleep(time.Second)
		r.allUp(2)
		time.Sleep(time.Second)
		if _, err := r.SetOverride(ctx, by, director.Override{Service: key, Server: first}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		r.want(t, "ordered down", "10.0.0.1=0 10.0.0.2=4")
		r.checks.say(second, false)
		time.Sleep(kernelTakes / 2) // the kernel is at the second
		r.checks.say(first, false)
		if _, err := r.ClearOverride(ctx, by, key, first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		r.want(t, "down by its checks", "10.0.0.1=0 10.0.0.2=0")
	})
}

// A pipe that nobody reads is told of, but not with each line that it takes no more.
func TestFIFOWithoutReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	size, err := unix.FcntlInt(pipe.Fd(), unix.F_SETPIPE_SZ, 4096)
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, func(t *testing.T) {
		h := checked()
		h.Notify.FIFO = path
		r := start(t, web(h, 4))
		defer func() { r.stop() }()
		fill := func() {
			for lost := r.Notified().LinesLost; r.Notified().LinesLost < lost+20; {
				r.checks.say(first, true)
				time.Sleep(time.Millisecond)
				r.checks.say(first, false)
				time.Sleep(time.Millisecond)
			}
		}
		failures := func() (n int) {
			events, _ := r.events.After(0)
			for _, e := range events {
				if e.Name == event.NotifyFailed {
					n++
				}
			}
			return n
		}
		fill()
		// A long line may find no room where a short one does after it.
		told := failures()
		if told == 0 || told > 2 {
			t.Errorf("told %d times", told)
		}
		if _, err := pipe.Read(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		fill()
		if got := failures() - told; got == 0 || got > 2 {
			t.Errorf("told %d times after it was read", got)
		}
	})
}
