package bench

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// SweepResult is what a sweep over a full table takes.
type SweepResult struct {
	Connections uint32  `json:"connections"`
	Removed     uint32  `json:"removed"` // a tenth
	Seconds     float64 `json:"seconds"` // of the whole sweep, the median of the rounds
	BytesEach   float64 `json:"bytes_each"`
	Row         Row     `json:"row"`     // for each connection
	Slices      Slices  `json:"slices"`  // of those sweeps
	Expired     Slices  `json:"expired"` // of one that removes all connections
}

// Slices is how long packets wait for runs of the sweep's program, in microseconds.
type Slices struct {
	Count  int     `json:"count"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
	// Late is how many took longer than SliceGoal: by interrupts, or where the machine
	// is a virtual one that had to wait for its CPU.
	Late int `json:"late"`
}

// SliceGoal is how long a packet may wait for a slice, in microseconds.
const SliceGoal = 50

func newSlices(taken []float64) Slices {
	s := Slices{Count: len(taken), Median: median(taken), Max: slices.Max(taken)}
	for _, t := range taken {
		if t > SliceGoal {
			s.Late++
		}
	}
	return s
}

// A slice as the control plane has it: so many groups at most, for so long.
const (
	sliceGroups      = 1 << 12
	sliceNanoseconds = 20_000
)

// Sweep measures the sweep over a table of IPv4 NAT connections of which a tenth
// has expired. The table is the same in every round.
func Sweep(size uint32, rounds int) (SweepResult, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	result := SweepResult{Connections: size}
	counter := OpenCounter()
	defer counter.Close()
	h, err := newHarness(counter, 1, false)
	if err != nil {
		return result, err
	}
	defer h.Close()
	coll, err := load(worldOptions{connections4: size, refresh: forever, control: []string{bpf.KernelProgShuntSweep4}})
	if err != nil {
		return result, err
	}
	defer coll.Close()
	w, err := newWorld(coll, family4, tcp, bpf.KernelMethodMETHOD_NAT, size)
	if err != nil {
		return result, err
	}
	if err := w.connect(h); err != nil {
		return result, err
	}
	table := w.Maps[bpf.KernelMapConnections4]
	result.BytesEach = float64(table.MaxEntries()) * 4096 / float64(size)
	keys, groups, err := readGroups(table)
	if err != nil {
		return result, err
	}
	var loads [servers]bpf.KernelServerLoad
	for i := range loads {
		if err := w.Maps[bpf.KernelMapLoads].Lookup(w.firstServer()+uint32(i), &loads[i]); err != nil {
			return result, err
		}
	}
	sweep := func(expired uint32) (once sweepRun, err error) {
		if _, err := table.BatchUpdate(keys, groups, nil); err != nil {
			return once, fmt.Errorf("write the table: %w", err)
		}
		for i := range loads {
			if err := w.Maps[bpf.KernelMapLoads].Put(w.firstServer()+uint32(i), &loads[i]); err != nil {
				return once, err
			}
		}
		if once, err = w.sweep(counter); err != nil {
			return once, err
		}
		if once.removed != expired {
			return once, fmt.Errorf("the sweep removed %d connections, want %d", once.removed, expired)
		}
		return once, w.checkLoads(uint64(size - expired))
	}
	expired := expire(groups, tenth)
	var seconds, instructions, taken []float64
	for range rounds {
		once, err := sweep(expired)
		if err != nil {
			return result, err
		}
		seconds = append(seconds, once.total.Seconds())
		instructions = append(instructions, once.instructions/float64(size))
		taken = append(taken, once.slices...)
	}
	expire(groups, everyone)
	once, err := sweep(size)
	if err != nil {
		return result, err
	}
	result.Slices, result.Expired = newSlices(taken), newSlices(once.slices)
	result.Removed, result.Seconds = expired, median(seconds)
	result.Row = Row{
		Name: fmt.Sprintf("sweep/%d", size), Rounds: rounds, Note: "for each connection, a tenth removed",
		NS: number(result.Seconds * 1e9 / float64(size)), Instructions: number(median(instructions)),
	}
	return result, nil
}

// tenth chooses connections by their clients.
func tenth(client uint32, port uint16) bool {
	return (client*0x9e3779b1+uint32(port)*0x85ebca6b)>>8%10 == 0
}

func everyone(uint32, uint16) bool { return true }

// expire ages the chosen clients' connections, both keys, and returns how many.
func expire(groups []bpf.KernelGroup4, chosen func(client uint32, port uint16) bool) (connections uint32) {
	for g := range groups {
		for s := range groups[g].Slots {
			e := &groups[g].Slots[s]
			if e.Recipe == 0 {
				continue
			}
			isReply := e.Recipe>>bpf.KernelRecipeLayoutRECIPE_REPLY&1 == 1
			client, port := e.Source, uint16(e.Id)
			if isReply {
				client, port = e.Destination, uint16(e.Id>>16)
			}
			if !chosen(client, port) {
				continue
			}
			e.Seen -= forever + 8
			if !isReply {
				connections++
			}
		}
	}
	return connections
}

func readGroups(m *ebpf.Map) ([]uint32, []bpf.KernelGroup4, error) {
	var cursor ebpf.MapBatchCursor
	keys, groups := make([]uint32, m.MaxEntries()), make([]bpf.KernelGroup4, m.MaxEntries())
	n, err := m.BatchLookup(&cursor, keys, groups, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) || n != len(keys) {
		return nil, nil, fmt.Errorf("read the table: %d of %d groups: %w", n, len(keys), err)
	}
	return keys, groups, nil
}

// sweepRun is one sweep over the whole table.
type sweepRun struct {
	total        time.Duration
	instructions float64
	removed      uint32
	slices       []float64 // how long each took, in microseconds
}

// sweep runs the program over the whole table in slices.
func (w *world) sweep(counter *Counter) (r sweepRun, err error) {
	program, groups := w.Programs[bpf.KernelProgShuntSweep4], w.Maps[bpf.KernelMapConnections4].MaxEntries()
	r.instructions = math.NaN()
	var before, after uint64
	if counter != nil {
		if before, err = counter.read(); err != nil {
			return r, err
		}
	}
	start := time.Now()
	args := bpf.KernelSweepArgs{Limit: sliceNanoseconds}
	for args.FirstGroup < groups {
		args.Groups = min(sliceGroups, groups-args.FirstGroup)
		if err := runSweep(program, &args); err != nil {
			return r, err
		}
		r.removed += args.Removed
		r.slices = append(r.slices, float64(args.Taken)/1000)
		args.FirstGroup, args.FirstSet = args.NextGroup, args.NextSet
	}
	r.total = time.Since(start)
	if counter != nil {
		if after, err = counter.read(); err != nil {
			return r, err
		}
		r.instructions = float64(after - before)
	}
	return r, nil
}

// runSweep runs the program over one slice; it takes its arguments as a packet.
func runSweep(program *ebpf.Program, args *bpf.KernelSweepArgs) error {
	in := unsafe.Slice((*byte)(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	options := ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+256)}
	action, err := program.Run(&options)
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	if action != xdpPass {
		return fmt.Errorf("sweep: action %d", action)
	}
	copy(in, options.DataOut)
	return nil
}
