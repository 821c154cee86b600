package director_test

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Changes from many goroutines lose none.
func TestChangesAreConcurrent(t *testing.T) {
	r := start(t, web())
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			s := realserver.Server{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 80), Weight: 1}
			if _, err := r.AddServer(t.Context(), by, web().Key, s); err != nil {
				t.Error(err)
			}
			r.State()
			r.Drift()
			if err := r.Reconcile(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r.sameAsFound(t)
	if got, want := len(r.State().Services[0].Servers), 23; got != want {
		t.Errorf("%d servers, want %d", got, want)
	}
	if d := r.Drift(); r.Head().Number != 21 || d.Found != 0 {
		t.Errorf("revision %d, drift %+v, want 21 and none", r.Head().Number, d)
	}
}

// Of writers that read the same revision one wins; the others are told and lose
// nothing of what it wrote.
func TestTwoWritersLoseNoUpdate(t *testing.T) {
	const writers, each = 8, 25
	r := start(t, web())
	addr := web().Servers[1].Address
	var conflicts atomic.Int64
	var mu sync.Mutex
	won := make(map[uint64]int) // writers that won, by base
	// once adds 1 to the weight it read with the base, in the way of a client
	// that has no other means.
	once := func() bool {
		head := r.Head()
		weight := head.State.Services[0].Servers[1].Weight
		outcome, err := r.EditServer(t.Context(), director.Request{Base: head.Number}, web().Key, addr, func(s *realserver.Server) error {
			s.Weight = weight + 1
			return nil
		})
		conflict := (*director.ConflictError)(nil)
		switch {
		case errors.As(err, &conflict):
			if conflict.Base != head.Number || conflict.Head <= conflict.Base {
				t.Errorf("conflict %+v of base %d", conflict, head.Number)
			}
			conflicts.Add(1)
			return false
		case err != nil:
			t.Error(err)
		case outcome.Revision.Number != head.Number+1:
			t.Errorf("base %d became revision %d", head.Number, outcome.Revision.Number)
		}
		mu.Lock()
		won[head.Number]++
		mu.Unlock()
		return true
	}

	// All begin with the same base: one wins.
	var wg, ready sync.WaitGroup
	ready.Add(writers)
	base := r.Head()
	var winners atomic.Int64
	for i := range writers {
		wg.Go(func() {
			ready.Done()
			ready.Wait()
			_, err := r.EditServer(t.Context(), director.Request{Base: base.Number}, web().Key, addr, func(s *realserver.Server) error {
				s.Weight = uint32(100 + i)
				return nil
			})
			if err == nil {
				winners.Add(1)
			}
		})
	}
	wg.Wait()
	if winners.Load() != 1 || r.Head().Number != base.Number+1 {
		t.Errorf("%d writers won, revision %d, want one and %d", winners.Load(), r.Head().Number, base.Number+1)
	}

	// Then all go on until each has done its share.
	begin := r.State().Services[0].Servers[1].Weight
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				if once() {
					done++
				}
			}
		})
	}
	wg.Wait()
	if got, want := r.State().Services[0].Servers[1].Weight, begin+writers*each; got != want {
		t.Errorf("weight %d, want %d", got, want)
	}
	for base, n := range won {
		if n != 1 {
			t.Errorf("%d writers won base %d", n, base)
		}
	}
	if len(won) != writers*each {
		t.Errorf("%d bases were won, want %d", len(won), writers*each)
	}
	r.sameAsFound(t)
	t.Logf("%d conflicts", conflicts.Load())
}
