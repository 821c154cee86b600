package xdp

import (
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
)

// What the program has learned of clients' next hops lacks the interface's MTU, by
// which replies that are too long are told so: a review writes it.
func TestLearnedHopsHaveAnMTU(t *testing.T) {
	r := newRig(t, Options{})
	deadline := time.Now().Add(10 * time.Second)
	ifindex := uint32(r.interfaces[0].index)
	const index = uint32(bpf.KernelHopLayoutLEARNED_HOPS) + 7
	put := func() {
		if err := r.plane.HopUses.Put(index, uint32(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.plane.Hops.Put(index, &bpf.KernelHop{Ifindex: ifindex, DestinationMac: [6]uint8{2, 0, 0, 0, 0, 9}}); err != nil {
		t.Fatal(err)
	}
	for {
		put()
		r.mu.Lock()
		err := r.reviewHops()
		r.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		var hop bpf.KernelHop
		if err := r.plane.Hops.Lookup(index, &hop); err != nil {
			t.Fatal(err)
		}
		if hop.Mtu == 1500 && hop.Failed == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the hop is %+v, want an MTU of 1500 and not failed", hop)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
