package bpftest

import (
	"slices"

	"github.com/shunt-lb/shunt/bpf"
)

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
	schedule := bpf.KernelSchedule{List: f.putWords(list), Servers: uint32(len(s.Servers))}
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
	for i, word := range words {
		f.must(f.Plane.Words.Put(first+uint32(i), word))
	}
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
