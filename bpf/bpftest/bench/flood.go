package bench

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
)

// FloodRow is what a hit takes on one CPU while another runs packets through the same
// program and tables: in ns, medians over Rounds, net of the wrapper.
type FloodRow struct {
	Name   string `json:"name"` // case/protocol and family/connections
	Rounds int    `json:"rounds"`
	// Beside packets that are not ours: the other CPU is as busy, and finds nothing to do.
	NotOursNS float64 `json:"not_ours_ns"`
	// Beside first segments of ever new sources for the hits' own service, in a table
	// that is full: each takes the place of another.
	FloodNS float64 `json:"flood_ns"`
	Ratio   float64 `json:"ratio"` // of the medians
	// FloodRate is how many segments a second the other CPU took meanwhile; a median.
	FloodRate float64 `json:"flood_rate"`
}

// Floods measures hits of NAT and DR connections while a flood runs, of as many
// connections as each of the sizes says, all in one full table for the largest. It needs
// root and two CPUs, which no other process has while it measures: for some tenths of a
// second at a time.
func Floods(o Options) (rows []FloodRow, err error) {
	o = o.withDefaults()
	cpus, err := twoCPUs()
	if err != nil {
		return nil, err
	}
	done := onCPU(cpus[0], func() (err error) {
		rows, err = floods(o, cpus)
		return err
	})
	err = <-done
	return rows, err
}

func floods(o Options, cpus [2]int) (rows []FloodRow, err error) {
	size := slices.Max(o.Sizes)
	coll, err := load(worldOptions{connections4: 2 * size, refresh: forever}) // of each method, size
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	nat, dr, err := worlds(coll, family4, tcp, size)
	if err != nil {
		return nil, err
	}
	b := beside{cpus: cpus}
	for i := range b.harnesses {
		if b.harnesses[i], err = newHarness(nil, 1, false); err != nil {
			return nil, err
		}
		defer b.harnesses[i].Close()
	}
	for _, w := range []*world{nat, dr} {
		if err := w.connect(b.harnesses[0]); err != nil {
			return nil, err
		}
	}
	// DR's flood goes first: in what it leaves, with a key each, NAT's has no more room.
	for i, w := range []*world{dr, nat} {
		b.attack(w)
		if i == 0 {
			if err := b.fill(); err != nil {
				return nil, err
			}
		}
		o.Log("%s, %d connections, in a flood", label(family4, tcp), size)
		more, err := b.measure(o)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// beside measures hits of a world on one CPU, and has another run other packets.
type beside struct {
	w         *world
	cpus      [2]int      // of the hits, of their company
	harnesses [3]*harness // of the hits, of the company's two threads
	notOurs   company
	flood     company
}

// company is what runs on the other CPU, by two threads: a test run sleeps for several
// ms before and after its packets, while the other thread goes on (kernel:
// net/bpf/test_run.c, bpf_prog_test_run_xdp changes the XDP dispatcher, and that waits
// for all readers).
type company struct {
	plans  [2]BenchPlan
	batch  int // packets of a run, for longer than the other sleeps
	action uint32
}

// attack chooses whose hits are measured and who is flooded.
func (b *beside) attack(w *world) {
	b.w = w
	b.notOurs = company{batch: 1 << 19, action: xdpPass}
	b.flood = company{batch: 1 << 14, action: xdpTX}
	for i := range uint32(2) {
		b.notOurs.plans[i] = newPlan(w, notOurs, flagACK, random)
		b.notOurs.plans[i].Mask = 1<<20 - 1 // any source
		p := newPlan(w, toService, flagSYN, random)
		// Behind the clients that have connections, and never one twice.
		p.Client, p.Mask = p.Client+(1+i)<<24, math.MaxUint32
		b.flood.plans[i] = p
	}
}

// fill leaves the table as a flood does: full of unproven connections.
func (b *beside) fill() error {
	slots := int(b.w.Maps[bpf.KernelMapConnections4].MaxEntries()) * int(bpf.KernelTableShapeSLOTS)
	if _, err := b.harnesses[0].run(&b.flood.plans[0], b.w.main(), 2*slots, xdpTX); err != nil {
		return fmt.Errorf("fill the table: %w", err)
	}
	return nil
}

// measure lets the sizes take turns, and each the two kinds of company.
func (b *beside) measure(o Options) ([]FloodRow, error) {
	rows := make([]FloodRow, len(o.Sizes))
	figures := make([]struct{ notOurs, flood, rate []float64 }, len(rows))
	for i, size := range o.Sizes {
		name := "nat-hit"
		if b.w.method != bpf.KernelMethodMETHOD_NAT {
			name = "dr-hit"
		}
		rows[i] = FloodRow{Name: fmt.Sprintf("%s/%s/%d", name, label(b.w.family, tcp), size), Rounds: o.Rounds}
	}
	for round := -1; round < o.Rounds; round++ { // the first one warms up
		for i, size := range o.Sizes {
			quiet, _, err := b.hits(size, o.ColdPackets, &b.notOurs)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", rows[i].Name, err)
			}
			flooded, rate, err := b.hits(size, o.ColdPackets, &b.flood)
			if err != nil {
				return nil, fmt.Errorf("%s in a flood: %w", rows[i].Name, err)
			}
			if round >= 0 {
				f := &figures[i]
				f.notOurs, f.flood, f.rate = append(f.notOurs, quiet), append(f.flood, flooded), append(f.rate, rate)
			}
		}
	}
	for i := range rows {
		r, f := &rows[i], &figures[i]
		r.NotOursNS, r.FloodNS, r.FloodRate = median(f.notOurs), median(f.flood), median(f.rate)
		r.Ratio = r.FloodNS / r.NotOursNS
	}
	return rows, nil
}

// hits returns the net ns of packets of so many connections while the other CPU runs
// the company's, and how many of these it takes a second.
func (b *beside) hits(size uint32, packets int, c *company) (ns, rate float64, err error) {
	stop, err := b.invite(c)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := schedule(unix.SCHED_FIFO); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, schedule(unix.SCHED_NORMAL)) }()
	before, err := b.counts()
	if err != nil {
		return 0, 0, err
	}
	start, plan := time.Now(), newPlan(b.w, toService, flagACK, random)
	plan.Mask = size - 1
	idle := plan
	empty, err := b.harnesses[0].timed(&idle, b.harnesses[0].BenchEmpty, packets)
	if err != nil {
		return 0, 0, fmt.Errorf("the wrapper alone: %w", err)
	}
	full, err := b.harnesses[0].timed(&plan, b.w.main(), packets)
	if err != nil {
		return 0, 0, err
	}
	seconds := time.Since(start).Seconds()
	after, err := b.counts()
	if err != nil {
		return 0, 0, err
	}
	others, err := takenBeside(before, after, uint64(packets), c == &b.flood)
	return full - empty, float64(others) / seconds, err
}

// invite has the other CPU run the company's packets until stop, which returns what
// went wrong there. They have begun when it returns.
func (b *beside) invite(c *company) (stop func() error, err error) {
	var done atomic.Bool
	var once sync.Once
	began := make(chan struct{})
	var threads [2]<-chan error
	for i := range threads {
		threads[i] = onCPU(b.cpus[1], func() error {
			defer once.Do(func() { close(began) })
			if err := schedule(unix.SCHED_FIFO); err != nil {
				return err
			}
			for !done.Load() {
				if _, err := b.harnesses[1+i].run(&c.plans[i], b.w.main(), c.batch, c.action); err != nil {
					return fmt.Errorf("the other CPU: %w", err)
				}
				once.Do(func() { close(began) })
			}
			return nil
		})
	}
	<-began
	return func() error {
		done.Store(true)
		return errors.Join(<-threads[0], <-threads[1])
	}, nil
}
