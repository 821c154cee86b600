package bench

import (
	"errors"
	"fmt"
	"math"
	"runtime"
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
	Row         Row     `json:"row"` // for each connection
}

// sweepSlice is how many groups one run of the program goes through, as the
// control plane has it.
const sweepSlice = 64

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
	expired := expire(groups)
	var seconds, instructions []float64
	for range rounds {
		if _, err := table.BatchUpdate(keys, groups, nil); err != nil {
			return result, fmt.Errorf("write the table: %w", err)
		}
		for i := range loads {
			if err := w.Maps[bpf.KernelMapLoads].Put(w.firstServer()+uint32(i), &loads[i]); err != nil {
				return result, err
			}
		}
		taken, counted, removed, err := w.sweep(counter)
		if err != nil {
			return result, err
		}
		if removed != expired {
			return result, fmt.Errorf("the sweep removed %d connections, want %d", removed, expired)
		}
		if err := w.checkLoads(uint64(size - expired)); err != nil {
			return result, err
		}
		seconds = append(seconds, taken.Seconds())
		instructions = append(instructions, counted/float64(size))
	}
	result.Removed, result.Seconds = expired, median(seconds)
	result.Row = Row{
		Name: fmt.Sprintf("sweep/%d", size), Rounds: rounds, Note: "for each connection, a tenth removed",
		NS: number(result.Seconds * 1e9 / float64(size)), Instructions: number(median(instructions)),
	}
	return result, nil
}

// expire ages a tenth of the connections, both keys, and returns how many.
func expire(groups []bpf.KernelGroup4) (connections uint32) {
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
			if (client*0x9e3779b1+uint32(port)*0x85ebca6b)>>8%10 != 0 {
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

// sweep runs the program over the whole table in slices.
func (w *world) sweep(counter *Counter) (taken time.Duration, instructions float64, removed uint32, err error) {
	program, groups := w.Programs[bpf.KernelProgShuntSweep4], w.Maps[bpf.KernelMapConnections4].MaxEntries()
	instructions = math.NaN()
	var before, after uint64
	if counter != nil {
		if before, err = counter.read(); err != nil {
			return 0, 0, 0, err
		}
	}
	start := time.Now()
	for first := uint32(0); first < groups; {
		args := bpf.KernelSweepArgs{FirstGroup: first, Groups: min(sweepSlice, groups-first)}
		if err := runSweep(program, &args); err != nil {
			return 0, 0, 0, err
		}
		removed += args.Removed
		first += sweepSlice
	}
	taken = time.Since(start)
	if counter != nil {
		if after, err = counter.read(); err != nil {
			return 0, 0, 0, err
		}
		instructions = float64(after - before)
	}
	return taken, instructions, removed, nil
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
