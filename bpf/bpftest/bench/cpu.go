package bench

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// twoCPUs are the first two that this process may use.
func twoCPUs() (cpus [2]int, err error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return cpus, fmt.Errorf("read the CPUs allowed: %w", err)
	}
	n := 0
	for cpu := range len(allowed) * 64 {
		if n < len(cpus) && allowed.IsSet(cpu) {
			cpus[n] = cpu
			n++
		}
	}
	if n < len(cpus) {
		return cpus, errors.New("measure beside a flood: there is one CPU, and it takes two")
	}
	return cpus, nil
}

// onCPU runs f on a thread of its own, bound to the CPU, that ends with it.
func onCPU(cpu int, f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no use to others
		var one unix.CPUSet
		one.Set(cpu)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			done <- fmt.Errorf("bind a thread to CPU %d: %w", cpu, err)
			return
		}
		done <- f()
	}()
	return done
}

// schedule sets this thread's policy: with SCHED_FIFO it goes before all threads that
// are not real-time ones. Niceness is of no help beside other control groups.
func schedule(policy uint32) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy}
	if policy == unix.SCHED_FIFO {
		attr.Priority = 1
	}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("set a thread's scheduling policy to %d: %w", policy, err)
	}
	return nil
}

// timed is run, and returns the ns of this thread's time for each packet: the test
// run's own mean is a whole number of them, and a hit takes few.
func (h *harness) timed(p *BenchPlan, program *ebpf.Program, packets int) (float64, error) {
	var before, after unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &before); err != nil {
		return 0, fmt.Errorf("read the thread's clock: %w", err)
	}
	if _, err := h.run(p, program, packets, xdpTX); err != nil {
		return 0, err
	}
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &after); err != nil {
		return 0, fmt.Errorf("read the thread's clock: %w", err)
	}
	return float64(after.Nano()-before.Nano()) / float64(packets), nil
}
