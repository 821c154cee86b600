package ipvsadm

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// crowd has n programs add a server each, at the same time.
func (d *daemon) crowd(t *testing.T, n int) {
	t.Helper()
	d.script("-A -t 192.0.2.1:80")
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			line := fmt.Sprintf("-a -t 192.0.2.1:80 -r 10.0.0.%d -m", i+1)
			if got := d.ipvsadm(line); got != (result{}) {
				t.Errorf("ipvsadm %s: %+v", line, got)
			}
		})
	}
	all.Wait()
	if has := len(d.director.State().Services[0].Servers); has != n {
		t.Errorf("%d servers, want %d", has, n)
	}
}

// Programs of one host take turns: none has to begin anew.
func TestTurns(t *testing.T) {
	d, _ := fake(t, director.PlaneIPVS)
	var sent atomic.Int32
	d.folder, d.meanwhile = t.TempDir(), func() { sent.Add(1) }
	d.crowd(t, 40)
	if n := sent.Load(); n != 41 {
		t.Errorf("%d changes were sent, want 41", n)
	}
}

// Those of several hosts do not, and all get through.
func TestContest(t *testing.T) {
	d, _ := fake(t, director.PlaneIPVS)
	d.crowd(t, 40)
}

func TestContestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, began := contest{}, time.Now()
		for c.again(t.Context()) {
			if time.Since(began) > 2*contestTime {
				t.Fatal("no end")
			}
		}
		if c.lost < 20 {
			t.Errorf("%d attempts", c.lost)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if (&contest{}).again(ctx) {
			t.Error("again after the end")
		}
	})
}

func TestTakeTurn(t *testing.T) {
	folder := t.TempDir()
	end := takeTurn(t.Context(), folder, time.Minute)
	// Who does not get a turn goes on without one, and leaves no lock.
	takeTurn(t.Context(), folder, time.Millisecond)()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	takeTurn(ctx, folder, time.Minute)()
	takeTurn(t.Context(), filepath.Join(folder, "none"), time.Minute)()
	takeTurn(t.Context(), "", time.Minute)()

	var ended atomic.Bool
	next := make(chan func())
	go func() {
		end := takeTurn(t.Context(), folder, time.Minute)
		if !ended.Load() {
			t.Error("two turns at once")
		}
		next <- end
	}()
	ended.Store(true)
	end()
	(<-next)()
	takeTurn(t.Context(), folder, time.Minute)()
}
