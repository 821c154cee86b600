package bpf

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Clock is the kernel's jiffies as the programs use them: a tick is a power of
// two of jiffies, about a quarter of a second.
type Clock struct {
	hz    uint32 // jiffies a second
	shift uint32 // a tick is 1<<shift jiffies
}

// kernelHZ are the values CONFIG_HZ can have (kernel: kernel/Kconfig.hz).
var kernelHZ = []uint32{100, 250, 300, 1000}

// measureWindow is long enough to tell 250 from 300 Hz by whole jiffies.
const measureWindow = 120 * time.Millisecond

// measureClock learns the kernel's HZ, which no interface tells.
func measureClock(spec *ebpf.CollectionSpec) (Clock, error) {
	prog, err := ebpf.NewProgram(spec.Programs[KernelProgShuntClock])
	if err != nil {
		return Clock{}, explainLoad(err)
	}
	defer prog.Close()
	first, err := readClock(prog)
	if err != nil {
		return Clock{}, err
	}
	time.Sleep(measureWindow)
	second, err := readClock(prog)
	if err != nil {
		return Clock{}, err
	}
	return newClock(float64(second.Jiffies-first.Jiffies) / (float64(second.Nanoseconds-first.Nanoseconds) / 1e9)), nil
}

func newClock(measured float64) Clock {
	best := kernelHZ[0]
	for _, hz := range kernelHZ {
		if math.Abs(math.Log(measured/float64(hz))) < math.Abs(math.Log(measured/float64(best))) {
			best = hz
		}
	}
	// The power of two nearest below 0.33 s.
	return Clock{hz: best, shift: uint32(math.Log2(float64(best) / 3))}
}

func readClock(prog *ebpf.Program) (KernelClockArgs, error) {
	var args KernelClockArgs
	err := runControl(prog, &args)
	return args, err
}

// Tick returns the duration of a tick.
func (c Clock) Tick() time.Duration {
	return time.Second * time.Duration(uint32(1)<<c.shift) / time.Duration(c.hz)
}

// Ticks returns how many ticks d lasts, rounded up.
func (c Clock) Ticks(d time.Duration) uint32 {
	return uint32(min((d+c.Tick()-1)/c.Tick(), math.MaxInt32))
}

// refresh is after how many ticks a connection's last-seen is written again: one second.
func (c Clock) refresh() uint32 { return c.Ticks(time.Second) }

// Now returns the current tick.
func (p *Plane) Now() (uint32, error) {
	p.control.Lock()
	defer p.control.Unlock()
	args, err := readClock(p.ShuntClock)
	return uint32(args.Jiffies >> p.Clock.shift), err
}

// runControl runs a syscall program with args as its context, in and out.
func runControl[T any](prog *ebpf.Program, args *T) error {
	code, err := prog.Run(&ebpf.RunOptions{Context: args, ContextOut: args})
	if err != nil {
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%w: run control program: %w", ErrKernel, err)
		}
		return fmt.Errorf("run control program: %w", err)
	}
	if code != 0 {
		return fmt.Errorf("run control program: %w", unix.Errno(-int32(code)))
	}
	return nil
}
