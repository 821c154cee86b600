package bench

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// Comparison is our table beside the kernel's HASH of the same keys, by single
// operations on as many keys.
type Comparison struct {
	Keys       uint32      `json:"keys"`
	Operations []Operation `json:"operations"`
	// HashSweepSeconds is a pass of bpf_for_each_map_elem over HASH that deletes a
	// tenth.
	HashSweepSeconds float64 `json:"hash_sweep_seconds"`
}

// Operation is one operation's net ns on both: medians of the rounds, and of the
// rounds' ratios.
type Operation struct {
	Name    string  `json:"name"`
	TableNS float64 `json:"table_ns"`
	HashNS  float64 `json:"hash_ns"`
	Ratio   float64 `json:"ratio"`
}

// Compare inserts so many keys, a power of two, in pseudo-random order into both,
// finds and deletes them, and sweeps HASH; rounds times.
func Compare(keys uint32, rounds int) (Comparison, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := Comparison{Keys: keys}
	h, err := newHarness(nil, 1, false)
	if err != nil {
		return c, err
	}
	defer h.Close()
	coll, err := loadTable(keys)
	if err != nil {
		return c, err
	}
	defer coll.Close()
	plan := newPlan(&world{family: family4, virtual: family4.virtual, protocol: tcp, connections: keys},
		toService, flagACK, random)
	operations, packets := []string{"insert", "find", "delete"}, int(keys)
	if keys == 1 {
		// One key is inserted once.
		operations, packets = []string{"find"}, 100000
		for _, kind := range kinds {
			if _, err := h.net(plan, coll.Programs[kind+"_insert"], 1); err != nil {
				return c, err
			}
		}
	}
	costs := map[string][]float64{}
	var sweeps []float64
	for range rounds {
		for _, operation := range operations {
			for _, kind := range kinds {
				ns, err := h.net(plan, coll.Programs[kind+"_"+operation], packets)
				if err != nil {
					return c, fmt.Errorf("%s_%s: %w", kind, operation, err)
				}
				costs[kind+operation] = append(costs[kind+operation], ns)
			}
		}
		if err := noneFailed(coll); err != nil {
			return c, err
		}
		if keys == 1 {
			continue
		}
		seconds, err := sweepHash(h, coll, plan, keys)
		if err != nil {
			return c, err
		}
		sweeps = append(sweeps, seconds)
	}
	for _, name := range operations {
		table, hash := costs["table"+name], costs["hash"+name]
		var ratios []float64
		for i := range table {
			ratios = append(ratios, table[i]/hash[i])
		}
		c.Operations = append(c.Operations, Operation{name, median(table), median(hash), median(ratios)})
	}
	if len(sweeps) > 0 {
		c.HashSweepSeconds = median(sweeps)
	}
	return c, nil
}

// kinds are the programs' prefixes.
var kinds = [...]string{"table", "hash"}

func loadTable(keys uint32) (*ebpf.Collection, error) {
	spec, err := LoadTable()
	if err != nil {
		return nil, err
	}
	// The plane's table has two keys of a NAT connection.
	count := groups(max(1, keys/2))
	spec.Maps[bpf.KernelMapConnections4].MaxEntries = count
	spec.Maps["hash4"].MaxEntries = keys
	for name, value := range map[string]any{"groups4": count, "tick_shift": uint32(6), "seeds": seeds(3)} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the tables to compare: %w", err)
	}
	return coll, nil
}

// seeds of the table's hash: the same in each run, so that keys lie at the same
// places of their sets.
func seeds(stream uint64) (s [12]uint64) {
	draw := rand.New(rand.NewPCG(1, stream))
	for i := range s {
		s[i] = draw.Uint64()
	}
	return s
}

// net is the mean ns of the program's packets, without the wrapper.
func (h *harness) net(plan BenchPlan, program *ebpf.Program, packets int) (float64, error) {
	idle, full := plan, plan
	empty, err := h.run(&idle, h.BenchEmpty, packets, xdpTX)
	if err != nil {
		return 0, err
	}
	cost, err := h.run(&full, program, packets, xdpTX)
	return cost.minus(empty).ns, err
}

func noneFailed(coll *ebpf.Collection) error {
	var failed uint64
	if err := coll.Variables["failed"].Get(&failed); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d operations failed", failed)
	}
	return nil
}

// sweepHash fills HASH, times a pass that deletes a tenth, and empties it.
func sweepHash(h *harness, coll *ebpf.Collection, plan BenchPlan, keys uint32) (float64, error) {
	if _, err := h.net(plan, coll.Programs["hash_insert"], int(keys)); err != nil {
		return 0, err
	}
	start := time.Now()
	if _, _, err := coll.Programs["hash_sweep"].Benchmark(make([]byte, frameSize), 1, nil); err != nil {
		return 0, fmt.Errorf("sweep HASH: %w", err)
	}
	taken := time.Since(start).Seconds()
	var left uint64
	if err := coll.Variables["left"].Get(&left); err != nil {
		return 0, err
	}
	if share := float64(left) / float64(keys); share < 0.85 || share > 0.95 {
		return 0, fmt.Errorf("the sweep left %d of %d keys", left, keys)
	}
	if _, err := h.net(plan, coll.Programs["hash_delete"], int(keys)); err != nil {
		return 0, err
	}
	// What the sweep had deleted could not be deleted again.
	return taken, coll.Variables["failed"].Set(uint64(0))
}
