package bpf_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// Two CPUs begin connections at once, each of clients of its own in one network: a
// rate and a network's limit hold exactly, a service's with one too many for each CPU
// but one. All counts are back at 0 in the end.
func testLimitsOnTwoCPUs(t *testing.T, f *bpftest.Fixture) {
	const most, rounds, packets = 40, 30, 60
	for _, tt := range []struct {
		name      string
		limits    bpf.KernelServiceLimits
		tooMany   int // let through beyond the limit
		isCounted bool
	}{
		{"service-connections", bpf.KernelServiceLimits{Connections: most}, 1, false},
		{"source-connections", bpf.KernelServiceLimits{SourceConnections: most, SourceMask: networkMask(families[0], 16)}, 0, true},
		{"service-rate", bpf.KernelServiceLimits{Cost: hour, Burst: most * hour}, 0, false},
		{"source-rate", bpf.KernelServiceLimits{SourceCost: hour, SourceBurst: most * hour, SourceMask: networkMask(families[0], 16)}, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newLimitedScene(t, f, families[0], bpftest.UDP, dr, tt.limits)
			var frames [2][][]byte
			for cpu := range frames {
				for i := range packets {
					frames[cpu] = append(frames[cpu], s.from(cpu*100+i, i).Bytes())
				}
			}
			for range rounds {
				passed := s.hammer(t, frames)
				if passed < most || passed > most+tt.tooMany {
					t.Fatalf("%d connections began, want %d to %d", passed, most, most+tt.tooMany)
				}
				counted := int64(0)
				if tt.isCounted {
					counted = int64(passed)
				}
				s.counted(t, int64(passed), counted)
				s.AgeBy(time.Hour)
				s.Sweep()
				s.counted(t, 0, 0)
				s.EditServiceState(s.service, func(state *bpf.KernelServiceState) { state.RateTime = 0 })
				f.ForgetClients()
			}
		})
	}
}

// hammer runs each CPU's frames on it, all at once, and returns how many were sent on.
func (s limitedScene) hammer(t *testing.T, frames [2][][]byte) int {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	cpus := allowedCPUs(set)
	var passed [2]int
	var failed [2]error
	var wait sync.WaitGroup
	for i := range frames {
		wait.Go(func() {
			// Never unlocked: the thread ends with its goroutine, and its affinity with it.
			runtime.LockOSThread()
			var one unix.CPUSet
			one.Set(cpus[i%len(cpus)])
			failed[i] = unix.SchedSetaffinity(0, &one)
			for _, frame := range frames[i] {
				got, err := bpftest.Run(s.Plane.ShuntRoot, loopback, frame)
				failed[i] = errors.Join(failed[i], err)
				if got.Action == bpftest.TX || got.Action == bpftest.Redirect {
					passed[i]++
				}
			}
		})
	}
	wait.Wait()
	if err := errors.Join(failed[:]...); err != nil {
		t.Fatal(err)
	}
	return passed[0] + passed[1]
}
