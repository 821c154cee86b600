package bpftest

import (
	"slices"
	"time"

	"github.com/shunt-lb/shunt/bpf"
)

// Reset is Clear, after which services, servers and words get the first indices
// again: for tests that need more of them than there are. Servers' counters of
// traffic stay, static next hops too.
func (f *Fixture) Reset() {
	f.t.Helper()
	f.Clear()
	f.ForgetDestinations()
	f.must(bpf.ClearArray[bpf.KernelServer](f.Plane.Servers))
	f.must(bpf.ClearArray[bpf.KernelServerLoad](f.Plane.Loads))
	f.must(bpf.ClearArray[bpf.KernelTestimony](f.Plane.Evidence))
	f.must(bpf.ClearArray[bpf.KernelPassiveLimits](f.Plane.Passive))
	f.must(bpf.ClearArray[bpf.KernelTimeoutSet](f.Plane.Timeouts))
	f.must(bpf.ClearArray[bpf.KernelServiceLimits](f.Plane.KernelMaps.Limits))
	f.must(bpf.ClearArray[bpf.KernelServiceState](f.Plane.ServiceStates))
	f.ForgetClients()
	f.next.service, f.next.server, f.next.word = 1, 1, 1
	f.servers = map[uint32]*Server{}
}

// ForgetDestinations empties the cache of lblc and lblcr.
func (f *Fixture) ForgetDestinations() {
	f.t.Helper()
	f.eachDestination(func(*bpf.KernelDestination) bool { return false })
}

// AgeDestinations lets time pass for the cache of lblc and lblcr; what nobody has
// used for longer than idle goes, as user space sees to.
func (f *Fixture) AgeDestinations(by, idle time.Duration) {
	f.t.Helper()
	now, err := f.Plane.Now()
	f.must(err)
	ticks, most := f.Plane.Clock.Ticks(by), f.Plane.Clock.Ticks(idle)
	f.eachDestination(func(d *bpf.KernelDestination) bool {
		d.Used -= ticks
		d.Changed -= ticks
		return now-d.Used <= most
	})
}

// eachDestination rewrites the cache's elements, or deletes those not to be kept.
func (f *Fixture) eachDestination(keep func(*bpf.KernelDestination) bool) {
	f.t.Helper()
	entries, err := f.Plane.DestinationEntries()
	f.must(err)
	for _, e := range entries {
		if keep(&e.Value) {
			f.must(f.Plane.Destinations.Put(&e.Key, &e.Value))
		} else {
			f.must(f.Plane.Destinations.Delete(&e.Key))
		}
	}
}

// SetLoad overwrites a server's counts, its thresholds excepted.
func (f *Fixture) SetLoad(s *Server, active, inactive int64, overloaded bool) {
	f.t.Helper()
	load := f.Load(s)
	load.Active, load.Inactive, load.Unfit = active, inactive, uint32(flag(overloaded))*uint32(bpf.KernelUnfitUNFIT_OVERLOADED)
	f.must(f.Plane.Loads.Put(s.Index, &load))
}

// schedule writes a service's list, and its table if it has one, into fresh
// words.
func (f *Fixture) schedule(s *Service) bpf.KernelSchedule {
	f.t.Helper()
	var list []uint32
	var weights []uint32
	for _, server := range s.Servers {
		list = append(list, server.Index, server.offered())
		weights = append(weights, server.offered())
	}
	schedule := bpf.KernelSchedule{
		List: f.putWords(list), Servers: uint32(len(s.Servers)),
		Scheduler: uint8(s.Scheduler), Flags: uint16(s.Flags), ClientMask: clientMask(s),
	}
	switch s.Scheduler {
	case bpf.KernelSchedulerSCHEDULER_WRR:
		schedule.Gcd = divisor(weights)
		if greatest := slices.Max(append(weights, 0)); greatest > 0 {
			schedule.MaxWeight = greatest - (schedule.Gcd - 1)
		}
	case bpf.KernelSchedulerSCHEDULER_DH:
		schedule.Table, schedule.Slots = f.putWords(destinationHash(s.Servers)), destinationHashSlots
	case bpf.KernelSchedulerSCHEDULER_SH:
		schedule.Table, schedule.Slots = f.putWords(sourceHash(s.Servers)), sourceHashSlots
	case bpf.KernelSchedulerSCHEDULER_MH:
		schedule.Table, schedule.Slots = f.putWords(maglev(s)), maglevSlots
	}
	return schedule
}

// positions writes where each server of the schedule in force stands in the new
// one: one past its index; that of the server before it if it is gone, 0 if
// there is none.
func (f *Fixture) positions(s *Service) uint32 {
	f.t.Helper()
	words := make([]uint32, len(s.applied))
	for i, old := range s.applied {
		if at := slices.Index(s.Servers, old); at >= 0 {
			words[i] = uint32(at) + 1
		} else if i > 0 {
			words[i] = words[i-1]
		}
	}
	return f.putWords(words)
}

// putWords writes words where none were written before; the index of the first.
func (f *Fixture) putWords(words []uint32) uint32 {
	f.t.Helper()
	first := f.next.word
	f.must(bpf.WriteRange(f.Plane.Words, first, words))
	f.next.word += uint32(len(words))
	return first
}

// divisor is wrr's: of the weights that are not 0, 1 if none is.
func divisor(weights []uint32) uint32 {
	var d uint32
	for _, w := range weights {
		for a, b := d, w; ; a, b = b, a%b {
			if b == 0 {
				d = a
				break
			}
		}
	}
	return max(d, 1)
}
