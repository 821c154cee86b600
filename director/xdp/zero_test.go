package xdp

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

func (r *rig) zero(key director.ServiceKey) {
	r.t.Helper()
	if err := r.Zero(r.t.Context(), key); err != nil {
		r.t.Fatal(err)
	}
}

// Counters begin anew where they are asked to, and only there; what has been set to
// zero stays so over a restart, and is forgotten with its server and its service.
func TestZero(t *testing.T) {
	r := newRig(t, Options{})
	service, other := testService(director.RoundRobin, director.SchedulerFlags{}), testService(director.RoundRobin, director.SchedulerFlags{})
	other.Key.Address = netip.MustParseAddrPort("192.0.2.2:80")
	for _, s := range []director.Service{service, other} {
		r.must(director.AddService{Service: s}, director.AddServer{Key: s.Key, Server: local(1, 1)})
	}
	clients := uint16(1000)
	open := func(s director.Service, n int) {
		for range n {
			clients++
			r.send(bpftest.Packet{From: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), clients), To: s.Key.Address, Flags: "S"})
		}
	}
	const length = 40 // of such a packet
	of := func(n uint64) director.Counters {
		return director.Counters{Connections: n, InPackets: n, InBytes: n * length}
	}
	check := func(s director.Service, total uint64, servers ...uint64) {
		t.Helper()
		stats := r.stats(s.Key)
		want, got := []director.Counters{of(total)}, []director.Counters{stats.Counters}
		for i, n := range servers {
			want, got = append(want, of(n)), append(got, stats.Servers[i].Counters)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: counters of the service, then the servers' (-want +got):\n%s", s.Key, diff)
		}
	}
	open(service, 3)
	open(other, 5)
	check(service, 3, 3)
	r.zero(service.Key)
	check(service, 0, 0)
	check(other, 5, 5)
	open(service, 2)
	check(service, 2, 2)
	if active := r.stats(service.Key).Servers[0].Active; active != 5 {
		t.Errorf("%d active connections, want 5: they are no counter", active)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	check(service, 2, 2)
	check(other, 5, 5)

	// A server that is removed leaves its service what it counted since.
	r.must(director.AddServer{Key: service.Key, Server: local(2, 1)}, director.RemoveServer{Key: service.Key, Address: local(1, 0).Address})
	index := r.model.byKey[service.Key].members[local(1, 0).Address].index
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{Service: service.Key}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	check(service, 2, 0)
	open(service, 4)
	check(service, 6, 4)
	// Whoever gets its index begins at zero.
	r.must(director.AddServer{Key: other.Key, Server: local(3, 1)})
	if got := r.model.byKey[other.Key].members[local(3, 0).Address].index; got != index {
		t.Fatalf("the new server has index %d, want the free %d", got, index)
	}
	open(other, 2)
	check(other, 7, 6, 1)

	r.zero(director.ServiceKey{})
	check(service, 0, 0)
	check(other, 0, 0, 0)
	open(service, 1)
	check(service, 1, 1)
	r.must(director.RemoveService{Key: service.Key})
	if _, err := r.Kill(t.Context(), director.ConnectionFilter{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	check(service, 0, 0)
	open(service, 1)
	check(service, 1, 1)

	if err := r.Zero(t.Context(), netip4Key(9)); !errors.Is(err, director.ErrNotFound) {
		t.Errorf("a service that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Zero(ctx, service.Key); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

// No packet is lost to a Zero beside it: what the counters show and what was noted
// as zero are together all that was sent.
func TestZeroBesidePackets(t *testing.T) {
	r := newRig(t, Options{})
	service := testService(director.RoundRobin, director.SchedulerFlags{})
	r.must(director.AddService{Service: service}, director.AddServer{Key: service.Key, Server: local(1, 1)})
	n := bpftest.Rounds(4000)
	var wait sync.WaitGroup
	done := make(chan struct{})
	wait.Go(func() {
		defer close(done)
		for i := range n {
			r.send(bpftest.Packet{From: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), uint16(1000+i%50)), To: service.Key.Address, Flags: "S"})
		}
	})
	zeros := 0
	for running := true; running; zeros++ {
		r.zero(service.Key)
		select {
		case <-done:
			running = false
		default:
		}
	}
	wait.Wait()
	var zeroed bpf.KernelTraffic
	if err := r.plane.ZeroedTraffic.Lookup(r.model.byKey[service.Key].members[local(1, 0).Address].index, &zeroed); err != nil {
		t.Fatal(err)
	}
	got := r.stats(service.Key).Servers[0].Counters
	if sum := zeroed.InPackets + got.InPackets; sum != uint64(n) || zeroed.InBytes+got.InBytes != 40*sum {
		t.Errorf("%d packets and %d octets in all, want %d of 40", sum, zeroed.InBytes+got.InBytes, n)
	}
	t.Logf("set to zero %d times", zeros)
}

// Counters that were cleared by a daemon that was killed before it cleared the note
// are zero, and not as far below zero as a number can be.
func TestZeroBelowZero(t *testing.T) {
	got := since(
		bpf.KernelTraffic{Connections: 1, InPackets: 9, InBytes: 90, OutPackets: 7, OutBytes: 70},
		bpf.KernelTraffic{Connections: 3, InPackets: 8, InBytes: 80, OutPackets: 8, OutBytes: 71},
	)
	if want := (bpf.KernelTraffic{Connections: 2, OutPackets: 1, OutBytes: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
