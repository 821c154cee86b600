package bpf_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
)

// Two CPUs make connections by the same scheduler at once: each of them is counted
// once, and none goes to a server that may have none.
func TestSchedulersRace(t *testing.T) {
	const virtuals = 8
	each := 4000 // connections, on each CPU
	if inGuest {
		each = 400
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	cpus := allowedCPUs(set)
	f := bpftest.New(t, bpftest.Options{Connections: 4 * uint64(each)})
	hop := f.AddHop(bpftest.Link{Interface: loopback, Source: bpftest.DirectorInside, Destination: bpftest.ServerMAC})
	eachScheduler(t, func(t *testing.T, scheduler director.Scheduler) {
		s := newSelection(t, f, new([]uint32), scheduler, false, bpf.KernelServiceFlagsSERVICE_FALLBACK)
		for n, weight := range []uint32{60000, 3, 0, 50000, 7} {
			server := &bpftest.Server{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(n)}), 80), Method: dr, Weight: weight, Hop: hop,
			}
			s.service.Servers = append(s.service.Servers, server)
		}
		f.Apply(s.service)
		overloaded := s.service.Servers[3]
		s.SetLoad(overloaded, 0, 0, true)
		f.Events()
		var wait sync.WaitGroup
		var made [2]int
		faults := make([]error, len(made))
		for i := range made {
			wait.Go(func() {
				made[i], faults[i] = s.openOn(cpus[i%len(cpus)], each, func(n int) (client, virtual netip.AddrPort) {
					return s.client(2*n + i), s.virtual(n % virtuals)
				})
			})
		}
		wait.Wait()
		for i, err := range faults {
			if err != nil {
				t.Fatalf("racer %d: %v", i, err)
			}
		}
		events := f.Events()
		t.Log(made, events)
		var counted int
		for i, server := range s.service.Servers {
			load := f.Load(server)
			counted += int(load.Active)
			if (server.Weight == 0 || server == overloaded) && load.Active != 0 {
				t.Errorf("server %d has %d connections, and may have none", i, load.Active)
			}
		}
		if want := made[0] + made[1]; counted != want || len(f.Entries()) != want {
			t.Errorf("%d connections are counted and %d in the table, want %d", counted, len(f.Entries()), want)
		}
		if refused := 2*each - made[0] - made[1]; refused != int(events["no-server"]) ||
			refused != 0 && !namesByHash(scheduler, s.service.Flags) {
			t.Errorf("%d were refused", refused)
		}
		diffTurns(t, f, s, scheduler, int(events["cursor-contended"]), 2*each)
	})
}

// diffTurns holds that picks in turn lost no turn: rr's are as many for each server,
// but for those that did not move the cursor.
func diffTurns(t *testing.T, f *bpftest.Fixture, s *selection, scheduler director.Scheduler, contended, picks int) {
	t.Helper()
	if scheduler != director.RoundRobin {
		return
	}
	for i, server := range s.service.Servers {
		if server.Weight == 0 || i == 3 {
			continue
		}
		if got := int(f.Load(server).Active); got > picks/3+1+contended || got < picks/3-contended {
			t.Errorf("server %d had %d turns of %d, with %d contended", i, got, picks, contended)
		}
	}
}

// openOn sends as many SYNs on a CPU, on a thread that ends with it; how many got a
// server.
func (s *selection) openOn(cpu, count int, flow func(n int) (client, virtual netip.AddrPort)) (made int, err error) {
	runtime.LockOSThread() // never unlocked: the affinity goes with the thread
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return 0, err
	}
	for n := range count {
		client, virtual := flow(n)
		p := bpftest.Packet{
			Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: client, To: virtual, Flags: "S",
		}
		got, err := bpftest.Run(s.Plane.ShuntRoot, loopback, p.Bytes())
		if err != nil {
			return made, err
		}
		if got.Action != bpftest.TX {
			return made, fmt.Errorf("%v -> %v: %v", client, virtual, got.Action)
		}
		if [6]byte(got.Packet[:6]) == bpftest.ServerMAC {
			made++
		}
	}
	return made, nil
}
