package bench

import (
	"fmt"
	"math"
	"runtime"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// Row is one case, net of the wrapper. Instructions and NS are medians over
// Rounds; nil is what was not measured.
type Row struct {
	Name         string   `json:"name"` // case/protocol and family/connections
	Instructions *float64 `json:"instructions"`
	NS           *float64 `json:"ns"`
	Rounds       int      `json:"rounds"`
	// FloorRatio is the time relative to floor-lookup's of the same family and
	// number of connections: the median of the rounds' ratios.
	FloorRatio *float64 `json:"floor_ratio,omitempty"`
	// Note says what is particular about the figures.
	Note string `json:"note,omitempty"`
}

// Options say what to measure. The zero value is documented with each field.
type Options struct {
	// Sizes are the numbers of connections, each a power of two. Empty: 1.
	Sizes []uint32
	// Rounds of every group of rows; 0: 7.
	Rounds int
	// Packets of a run; 0: 20000.
	Packets int
	// ColdPackets of a run with more than one connection; 0: 262144.
	ColdPackets int
	// Log is told what is being measured; may be nil.
	Log func(format string, args ...any)
}

// newConnections is how many a world for the rows of new connections has room
// for, four times what its rounds make: nothing is evicted.
const newConnections = 1 << 16

func (o Options) withDefaults() Options {
	if len(o.Sizes) == 0 {
		o.Sizes = []uint32{1}
	}
	if o.Rounds == 0 {
		o.Rounds = 7
	}
	if o.Packets == 0 {
		o.Packets = 20000
	}
	if o.ColdPackets == 0 {
		o.ColdPackets = 1 << 18
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return o
}

// bench is one measurement of all rows.
type bench struct {
	Options
	counter *Counter
	rows    []Row
}

// Rows measures the rows of single packets. It needs root, and keeps the
// goroutine on its thread.
func Rows(o Options) ([]Row, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := bench{Options: o.withDefaults(), counter: OpenCounter()}
	defer b.counter.Close()
	for _, f := range []family{family4, family6} {
		for _, size := range b.Sizes {
			for _, protocol := range []uint8{tcp, udp} {
				if err := b.hits(f, protocol, size); err != nil {
					return nil, err
				}
			}
		}
		if err := b.news(f); err != nil {
			return nil, err
		}
		if err := b.refreshes(f); err != nil {
			return nil, err
		}
	}
	return b.rows, nil
}

func label(f family, protocol uint8) string {
	if protocol == udp {
		return "udp" + f.name
	}
	return "tcp" + f.name
}

// worlds loads one world per method, for the same rows.
func (b *bench) worlds(o worldOptions) (nat, dr *world, err error) {
	o.method = bpf.KernelMethodMETHOD_NAT
	if nat, err = newWorld(o); err != nil {
		return nil, nil, err
	}
	o.method = bpf.KernelMethodMETHOD_DR
	if dr, err = newWorld(o); err != nil {
		nat.Close()
		return nil, nil, err
	}
	return nat, dr, nil
}

// hits measures the packets of established connections, and the floors.
func (b *bench) hits(f family, protocol uint8, size uint32) error {
	b.Log("%s, %d connections", label(f, protocol), size)
	h, err := newHarness(b.counter, size, f.v6)
	if err != nil {
		return err
	}
	defer h.Close()
	nat, dr, err := b.worlds(worldOptions{family: f, protocol: protocol, connections: size, refresh: forever})
	if err != nil {
		return err
	}
	defer nat.Close()
	defer dr.Close()
	if err := nat.connect(h); err != nil {
		return err
	}
	if err := dr.connect(h); err != nil {
		return err
	}
	packets := b.Packets
	if size > 1 {
		packets = b.ColdPackets
	}
	g := group{packets: packets, suffix: fmt.Sprintf("%s/%d", label(f, protocol), size)}
	if protocol == tcp {
		if err := h.fillFloor(nat); err != nil {
			return err
		}
		if size == 1 && !f.v6 {
			g.add("floor-tx", h.FloorTx, newPlan(nat, toService, flagACK, random), xdpTX, nil)
		}
		lookup := h.FloorLookup4
		if f.v6 {
			lookup = h.FloorLookup6
		}
		g.floor = g.add("floor-lookup/"+g.suffix, lookup, newPlan(nat, toService, flagACK, random), xdpTX, h.noneMissed)
	}
	g.watched("nat-hit/"+g.suffix, nat, newPlan(nat, toService, flagACK, random), inPackets, bpf.KernelEventEVENT_NONE)
	g.watched("nat-reply/"+g.suffix, nat, newPlan(nat, fromServer, flagACK, random), outPackets, bpf.KernelEventEVENT_NONE)
	g.watched("dr-hit/"+g.suffix, dr, newPlan(dr, toService, flagACK, random), inPackets, bpf.KernelEventEVENT_NONE)
	if size == 1 && protocol == tcp {
		plan := newPlan(nat, notOurs, flagACK, random)
		plan.Mask = 1<<20 - 1 // any source
		g.watched("not-ours/"+label(f, protocol), nat, plan, nil, bpf.KernelEventEVENT_PASS_NOT_OURS)
	}
	return b.take(h, &g)
}

// news measures the first packets of connections.
func (b *bench) news(f family) error {
	protocols := []uint8{tcp}
	if !f.v6 {
		protocols = []uint8{tcp, udp}
	}
	for _, protocol := range protocols {
		b.Log("%s, new connections", label(f, protocol))
		h, err := newHarness(b.counter, 1, f.v6)
		if err != nil {
			return err
		}
		defer h.Close()
		nat, dr, err := b.worlds(worldOptions{family: f, protocol: protocol, connections: newConnections, refresh: forever})
		if err != nil {
			return err
		}
		defer nat.Close()
		defer dr.Close()
		g := group{packets: newConnections / 4 / (b.Rounds + 1), suffix: label(f, protocol)}
		g.watched("new-dr/"+g.suffix, dr, newPlan(dr, toService, flagSYN, inOrder), connections, bpf.KernelEventEVENT_NONE)
		g.watched("new-nat/"+g.suffix, nat, newPlan(nat, toService, flagSYN, inOrder), connections, bpf.KernelEventEVENT_NONE)
		if err := b.take(h, &g); err != nil {
			return err
		}
	}
	return nil
}

// refreshes measures the packet that comes a second or more after the last: it
// writes when the connection was seen.
func (b *bench) refreshes(f family) error {
	h, err := newHarness(b.counter, 1, f.v6)
	if err != nil {
		return err
	}
	defer h.Close()
	nat, dr, err := b.worlds(worldOptions{family: f, protocol: tcp, connections: 1})
	if err != nil {
		return err
	}
	defer nat.Close()
	defer dr.Close()
	for _, w := range []*world{nat, dr} {
		if err := w.connect(h); err != nil {
			return err
		}
	}
	g := group{packets: b.Packets, suffix: label(f, tcp) + "/1"}
	g.watched("nat-refresh/"+g.suffix, nat, newPlan(nat, toService, flagACK, random), inPackets, bpf.KernelEventEVENT_NONE)
	g.watched("nat-refresh-reply/"+g.suffix, nat, newPlan(nat, fromServer, flagACK, random), outPackets, bpf.KernelEventEVENT_NONE)
	g.watched("dr-refresh/"+g.suffix, dr, newPlan(dr, toService, flagACK, random), inPackets, bpf.KernelEventEVENT_NONE)
	return b.take(h, &g)
}

// noneMissed proves that the floor found all its keys.
func (h *harness) noneMissed(int) error {
	var missed uint64
	if err := h.Missed.Get(&missed); err != nil {
		return err
	}
	if missed > 0 {
		return fmt.Errorf("%d keys were not in the map", missed)
	}
	return nil
}

// group is a set of subjects that are measured in turns.
type group struct {
	subjects []*subject
	floor    *subject
	packets  int
	suffix   string
}

func (g *group) add(name string, p *ebpf.Program, plan BenchPlan, action uint32, check func(int) error) *subject {
	s := &subject{name: name, program: p, plan: plan, action: action, packets: g.packets, check: check}
	g.subjects = append(g.subjects, s)
	return s
}

// watched adds packets through the world's fast path that it counts as traffic
// or as an event; those passed are the events'.
func (g *group) watched(name string, w *world, plan BenchPlan, traffic func(bpf.KernelTraffic) uint64, event bpf.KernelEvent) {
	action := uint32(xdpTX)
	if event != bpf.KernelEventEVENT_NONE {
		action = xdpPass
	}
	s := g.add(name, w.main(), plan, action, nil)
	s.begin = func() (err error) {
		s.check, err = w.watch(traffic, event)
		return err
	}
}

// take measures a group and keeps its rows.
func (b *bench) take(h *harness, g *group) error {
	if err := h.measure(b.Rounds, g.subjects); err != nil {
		return err
	}
	for _, s := range g.subjects {
		row := Row{
			Name: s.name, Rounds: len(s.rounds),
			Instructions: number(median(each(s.rounds, instructionsOf))), NS: number(median(each(s.rounds, nsOf))),
		}
		if g.floor != nil && s != g.floor && s.name != "floor-tx" && s.action == xdpTX {
			var ratios []float64
			for i := range s.rounds {
				ratios = append(ratios, s.rounds[i].ns/g.floor.rounds[i].ns)
			}
			row.FloorRatio = number(median(ratios))
		}
		b.rows = append(b.rows, row)
	}
	return nil
}

// number is nil for what is not one.
func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}
