package bpf_test

import (
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// carried is what the connections of the tables have carried, by their keys' sources.
func carried(t *testing.T, f *bpftest.Fixture) map[netip.AddrPort]bpf.KernelSlotTraffic {
	t.Helper()
	all := map[netip.AddrPort]bpf.KernelSlotTraffic{}
	for _, v6 := range []bool{false, true} {
		groups := f.Plane.Connections4.MaxEntries()
		if v6 {
			groups = f.Plane.Connections6.MaxEntries()
		}
		traffic := make([]bpf.KernelGroupTraffic, groups)
		if err := f.Plane.SlotTraffic(v6, 0, traffic); err != nil {
			t.Fatal(err)
		}
		for walk := f.Plane.Walk(v6); ; {
			more, err := walk.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !more {
				break
			}
			walk.Slots(0, func(s *bpf.Slot) bool {
				all[s.Entry().Source] = traffic[s.Group].Slots[s.Index]
				return true
			})
		}
	}
	return all
}

func packets(n, bytes uint64) bpf.KernelSlotTraffic {
	return bpf.KernelSlotTraffic{Packets: n, Bytes: bytes}
}

// Each connection's packets and bytes are counted each way, from the first packet on,
// on the fast path and off it; another connection in the slot begins at nothing.
func TestConnectionTraffic(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{CountConnections: true})
	t.Run("of two CPUs", func(t *testing.T) { countOnTwoCPUs(t, f) })
	eachScene(t, f, func(t *testing.T, s *scene) {
		length := func(p bpftest.Packet) uint64 { return uint64(len(p.Bytes()) - 14) }
		r := watch(t, f)
		request, back := s.later()
		for round := range 2 {
			s.run(t, s.request())
			s.run(t, s.reply())
			for range 5 {
				s.run(t, request)
				s.run(t, back)
			}
			f.AgeBy(2e9)
			s.run(t, request) // by settle
			in, out := packets(7, length(s.request())+6*length(request)), packets(6, length(s.reply())+5*length(back))
			if s.protocol == bpftest.UDP && round == 0 {
				// A one-packet service's packets are those of no connection, and nobody's.
				s.service.Flags |= bpf.KernelServiceFlagsSERVICE_ONE_PACKET
				f.Apply(s.service)
				once := s.request()
				once.From = s.other
				s.run(t, once)
				s.service.Flags &^= bpf.KernelServiceFlagsSERVICE_ONE_PACKET
				f.Apply(s.service)
			}
			want := map[netip.AddrPort]bpf.KernelSlotTraffic{s.client: in, s.server: out}
			if diff := cmp.Diff(want, carried(t, f), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("round %d (-want +got):\n%s", round, diff)
			}
			s.remove(t, s.request())
			var closed bpf.News
			for closed.Kind != bpf.KernelNewsKindNEWS_CLOSED {
				closed = nextNews(t, r, 1)[0]
			}
			if closed.In != in || closed.Out != out {
				t.Errorf("at its end %v and %v, want %v and %v", closed.In, closed.Out, in, out)
			}
		}
	})
}

// A table that does not count says nothing, and has no memory for it.
func TestConnectionTrafficOff(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	s := newScene(t, f, families[0], bpftest.TCP, nat)
	s.establish(t)
	for source, traffic := range carried(t, f) {
		if traffic != (bpf.KernelSlotTraffic{}) {
			t.Errorf("%s has %v", source, traffic)
		}
	}
	if n := f.Plane.ConnectionTraffic4.MaxEntries(); n != 1 {
		t.Errorf("%d elements, want 1", n)
	}
}

// What was counted is kept over a restart, unless that is not to count any more.
func TestConnectionTrafficIsAdopted(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{CountConnections: true, Connections: 16}) // one group
	s := newScene(t, f, families[0], bpftest.TCP, nat)
	s.establish(t)
	before := carried(t, f)
	f.Reopen()
	if diff := cmp.Diff(before, carried(t, f), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("counts after a restart (-before +after):\n%s", diff)
	}
	f.ReopenAs(bpftest.Options{})
	if n := f.Plane.ConnectionTraffic4.MaxEntries(); n != 1 {
		t.Errorf("%d elements of what is not counted, want 1", n)
	}
	request, _ := s.later()
	f.ReopenAs(bpftest.Options{CountConnections: true})
	s.run(t, request)
	if got, want := carried(t, f)[s.client], packets(1, uint64(len(request.Bytes())-14)); got != want {
		t.Errorf("counted anew: %v, want %v", got, want)
	}
}

// Two CPUs that count the same connections lose nothing.
func countOnTwoCPUs(t *testing.T, f *bpftest.Fixture) {
	const rounds = 5000
	s := newScene(t, f, families[0], bpftest.TCP, nat)
	s.establish(t)
	before := carried(t, f)
	request, back := s.later()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	cpus := allowedCPUs(set)
	if len(cpus) < 2 {
		t.Skip("needs two CPUs")
	}
	errs := make([]error, 2)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() {
			runtime.LockOSThread() // stays: its affinity is not that of others
			var one unix.CPUSet
			one.Set(cpus[i])
			if errs[i] = unix.SchedSetaffinity(0, &one); errs[i] != nil {
				return
			}
			for range rounds {
				for _, frame := range [][]byte{request.Bytes(), back.Bytes()} {
					if _, errs[i] = bpftest.Run(f.Plane.ShuntRoot, loopback, frame); errs[i] != nil {
						return
					}
				}
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	after := carried(t, f)
	for source, p := range map[netip.AddrPort]bpftest.Packet{s.client: request, s.server: back} {
		want := before[source]
		want.Packets += 2 * rounds
		want.Bytes += 2 * rounds * uint64(len(p.Bytes())-14)
		if after[source] != want {
			t.Errorf("%s: %v, want %v", source, after[source], want)
		}
	}
}
