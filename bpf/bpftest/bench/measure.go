package bench

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// XDP actions (kernel: include/uapi/linux/bpf.h).
const (
	xdpDrop = 1
	xdpPass = 2
	xdpTX   = 3
)

// cost is what one packet takes.
type cost struct {
	instructions float64 // NaN where the machine does not count them
	ns           float64
}

func (c cost) minus(d cost) cost { return cost{c.instructions - d.instructions, c.ns - d.ns} }

// Counter counts the kernel's instructions on this thread.
type Counter struct{ fd int }

// OpenCounter opens the hardware counter of instructions; nil if there is none.
func OpenCounter() *Counter {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_INSTRUCTIONS,
		Bits: unix.PerfBitExcludeUser | unix.PerfBitExcludeHv,
	}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil
	}
	return &Counter{fd: fd}
}

// Close releases the counter; a nil one, too.
func (c *Counter) Close() error {
	if c == nil {
		return nil
	}
	return unix.Close(c.fd)
}

func (c *Counter) read() (uint64, error) {
	var value uint64
	n, err := unix.Read(c.fd, unsafe.Slice((*byte)(unsafe.Pointer(&value)), 8))
	if err == nil && n != 8 {
		err = fmt.Errorf("read %d octets of the instruction counter", n)
	}
	return value, err
}

// harness is a loaded wrapper.
type harness struct {
	BenchObjects
	counter *Counter // may be nil
	// begunAnew: a signal ended the last run, which was begun anew. More packets went
	// through than were asked for.
	begunAnew bool
}

// newHarness loads the wrapper, and floors with room for so many keys.
func newHarness(counter *Counter, connections uint32, v6 bool) (*harness, error) {
	spec, err := LoadBench()
	if err != nil {
		return nil, err
	}
	name := "floor4"
	if v6 {
		name = "floor6"
	}
	spec.Maps[name].MaxEntries = connections
	h := &harness{counter: counter}
	if err := spec.LoadAndAssign(&h.BenchObjects, nil); err != nil {
		return nil, fmt.Errorf("load the benchmarks' programs: %w", err)
	}
	return h, nil
}

// run has the wrapper go through packets of the plan, which goes on where it
// stood, and returns the mean cost; all included.
func (h *harness) run(p *BenchPlan, program *ebpf.Program, packets int, want uint32) (cost, error) {
	none := cost{math.NaN(), math.NaN()}
	if err := h.Target.Put(uint32(0), program); err != nil {
		return none, fmt.Errorf("set the program under test: %w", err)
	}
	if err := h.Now.Set(p); err != nil {
		return none, fmt.Errorf("set the plan: %w", err)
	}
	var before, after uint64
	var err error
	if h.counter != nil {
		if before, err = h.counter.read(); err != nil {
			return none, err
		}
	}
	h.begunAnew = false
	action, mean, err := h.BenchWrapper.Benchmark(make([]byte, frameSize), packets, func() { h.begunAnew = true })
	if err != nil {
		return none, err
	}
	c := cost{instructions: math.NaN(), ns: float64(mean)}
	if h.counter != nil {
		if after, err = h.counter.read(); err != nil {
			return none, err
		}
		c.instructions = float64(after-before) / float64(packets)
	}
	if action != want {
		return none, fmt.Errorf("the last packet's action is %d, want %d", action, want)
	}
	return c, h.Now.Get(p)
}

// subject is one row that is measured.
type subject struct {
	name    string
	program *ebpf.Program
	plan    BenchPlan
	action  uint32
	packets int
	// begin notes where the counters stand, before each run; may be nil.
	begin func() error
	// check proves that the packets took the way they were meant to; it is
	// called with their number, after each run.
	check  func(packets int) error
	rounds []cost
}

// measure lets the subjects take turns, each after the empty program with the
// same plan, and keeps the net costs.
func (h *harness) measure(rounds int, subjects []*subject) error {
	for round := -1; round < rounds; round++ { // the first one warms up
		for _, s := range subjects {
			packets := s.packets
			if round < 0 {
				packets = min(packets, 1000)
			}
			net, err := h.once(s, packets)
			for tries := 0; h.begunAnew && tries < 10; tries++ {
				net, err = h.once(s, packets)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if round >= 0 {
				s.rounds = append(s.rounds, net)
			}
		}
	}
	return nil
}

// once runs the empty program and the subject's, and returns the net cost; an error
// too if the subject's run was begun anew, since what is checked is a number of packets.
func (h *harness) once(s *subject, packets int) (cost, error) {
	idle := s.plan
	empty, err := h.run(&idle, h.BenchEmpty, packets, xdpTX)
	if err != nil {
		return cost{}, fmt.Errorf("the wrapper alone: %w", err)
	}
	if s.begin != nil {
		if err := s.begin(); err != nil {
			return cost{}, err
		}
	}
	full, err := h.run(&s.plan, s.program, packets, s.action)
	if err == nil && s.check != nil {
		err = s.check(packets)
	}
	return full.minus(empty), err
}

// median of the values that are numbers; NaN of none.
func median(values []float64) float64 {
	values = slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2
	}
	return values[middle]
}

func each(costs []cost, of func(cost) float64) []float64 {
	var values []float64
	for _, c := range costs {
		values = append(values, of(c))
	}
	return values
}

func instructionsOf(c cost) float64 { return c.instructions }
func nsOf(c cost) float64           { return c.ns }
