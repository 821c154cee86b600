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

// newConnections is how many the table for the rows of new connections has room
// for, several times what its rounds make: nothing is evicted.
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
	if err := b.small(); err != nil {
		return nil, err
	}
	for _, size := range b.Sizes {
		if size == 1 {
			continue
		}
		for _, f := range []family{family4, family6} {
			for _, protocol := range []uint8{tcp, udp} {
				if err := b.large(f, protocol, size); err != nil {
					return nil, err
				}
			}
		}
	}
	return b.rows, nil
}

// small measures what needs few connections, all in one table: loading the
// programs takes longest.
func (b *bench) small() error {
	coll, err := load(worldOptions{connections4: newConnections, connections6: newConnections, refresh: forever})
	if err != nil {
		return err
	}
	defer coll.Close()
	for _, f := range []family{family4, family6} {
		for _, protocol := range []uint8{tcp, udp} {
			nat, dr, err := worlds(coll, f, protocol, 1)
			if err == nil {
				err = b.hits(nat, dr)
			}
			if err == nil && protocol == tcp {
				err = b.icmp(nat)
			}
			if err == nil && (protocol == tcp || !f.v6) {
				err = b.news(nat, dr)
			}
			if err == nil && (protocol == tcp || !f.v6) {
				err = b.fullNAT(coll, f, protocol)
			}
			if err != nil {
				return err
			}
		}
		if err := b.tunnels(coll, f); err != nil {
			return err
		}
		if err := b.restrained(coll, f); err != nil {
			return err
		}
	}
	refreshed, err := load(worldOptions{connections4: 1, connections6: 1})
	if err != nil {
		return err
	}
	defer refreshed.Close()
	for _, f := range []family{family4, family6} {
		nat, dr, err := worlds(refreshed, f, tcp, 1)
		if err == nil {
			err = b.refreshes(nat, dr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// large measures hits among many connections, one method to a table: the same
// share of each is in use.
func (b *bench) large(f family, protocol uint8, size uint32) error {
	o := worldOptions{refresh: forever}
	if f.v6 {
		o.connections6 = size
	} else {
		o.connections4 = size
	}
	var both [2]*world
	for i, method := range []bpf.KernelMethod{bpf.KernelMethodMETHOD_NAT, bpf.KernelMethodMETHOD_DR} {
		coll, err := load(o)
		if err != nil {
			return err
		}
		defer coll.Close()
		if both[i], err = newWorld(coll, f, protocol, method, size); err != nil {
			return err
		}
	}
	return b.hits(both[0], both[1])
}

func label(f family, protocol uint8) string {
	if protocol == udp {
		return "udp" + f.name
	}
	return "tcp" + f.name
}

// worlds adds one service per method to a fast path.
func worlds(coll *ebpf.Collection, f family, protocol uint8, connections uint32) (nat, dr *world, err error) {
	if nat, err = newWorld(coll, f, protocol, bpf.KernelMethodMETHOD_NAT, connections); err != nil {
		return nil, nil, err
	}
	dr, err = newWorld(coll, f, protocol, bpf.KernelMethodMETHOD_DR, connections)
	return nat, dr, err
}

// hits measures the packets of established connections, and the floors.
func (b *bench) hits(nat, dr *world) error {
	f, protocol, size := nat.family, nat.protocol, nat.connections
	b.Log("%s, %d connections", label(f, protocol), size)
	h, err := newHarness(b.counter, size, f.v6)
	if err != nil {
		return err
	}
	defer h.Close()
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
	if size == 1 && protocol == udp && !f.v6 {
		g.fragments(h, nat)
	}
	if size == 1 && protocol == tcp {
		plan := newPlan(nat, notOurs, flagACK, random)
		plan.Mask = 1<<20 - 1 // any source
		g.watched("not-ours/"+label(f, protocol), nat, plan, nil, bpf.KernelEventEVENT_PASS_NOT_OURS)
	}
	return b.take(h, &g)
}

// fullNAT measures the packets of one established connection by full NAT.
func (b *bench) fullNAT(coll *ebpf.Collection, f family, protocol uint8) error {
	w, err := newWorld(coll, f, protocol, bpf.KernelMethodMETHOD_FULLNAT, 1)
	if err != nil {
		return err
	}
	b.Log("%s, full NAT", label(f, protocol))
	h, err := newHarness(b.counter, 1, f.v6)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := w.connect(h); err != nil {
		return err
	}
	g := group{packets: b.Packets, suffix: label(f, protocol) + "/1"}
	g.watched("fullnat-hit/"+g.suffix, w, newPlan(w, toService, flagACK, random), inPackets, bpf.KernelEventEVENT_NONE)
	g.watched("fullnat-reply/"+g.suffix, w, newPlan(w, fromServer, flagACK, random), outPackets, bpf.KernelEventEVENT_NONE)
	return b.take(h, &g)
}

// news measures the first packets of connections; those of the first client's
// first port exist.
func (b *bench) news(nat, dr *world) error {
	suffix := label(nat.family, nat.protocol)
	b.Log("%s, new connections", suffix)
	h, err := newHarness(b.counter, 1, nat.family.v6)
	if err != nil {
		return err
	}
	defer h.Close()
	g := group{packets: newConnections / 8 / (b.Rounds + 1), suffix: suffix}
	for _, w := range []*world{dr, nat} {
		plan := newPlan(w, toService, flagSYN, inOrder)
		plan.Index, plan.Mask = 1, math.MaxUint32
		name := "new-dr/"
		if w == nat {
			name = "new-nat/"
		}
		g.watched(name+suffix, w, plan, connections, bpf.KernelEventEVENT_NONE)
	}
	if err := b.take(h, &g); err != nil || nat.protocol == udp {
		return err
	}
	// Where those went on to, so that round robin gives each the server its replies are from.
	proofs := group{packets: g.packets, suffix: suffix}
	proofs.proof(h, "proof-dr/"+suffix, dr, g.subjects[0].plan.Index)
	proofs.proof(h, "proof-nat/"+suffix, nat, g.subjects[1].plan.Index)
	return b.take(h, &proofs)
}

// proof adds the last segment of the handshake of connections, from the one with the
// index on; those before it are sent before each run.
func (g *group) proof(h *harness, name string, w *world, index uint32) {
	plan := newPlan(w, toService, flagACK, inOrder)
	plan.Index, plan.Mask = index, math.MaxUint32
	s := g.add(name, w.main(), plan, xdpTX, nil)
	s.begin = func() (err error) {
		for _, before := range w.beginning() {
			if before.flags == flagACK {
				break
			}
			plan := newPlan(w, before.d, before.flags, inOrder)
			plan.Index, plan.Mask = s.plan.Index, math.MaxUint32
			if _, err := h.run(&plan, w.main(), s.packets, xdpTX); err != nil {
				return err
			}
		}
		s.check, err = w.watch(inPackets, bpf.KernelEventEVENT_NONE)
		return err
	}
}

// refreshes measures the packet that comes a second or more after the last: it
// writes when the connection was seen.
func (b *bench) refreshes(nat, dr *world) error {
	h, err := newHarness(b.counter, 1, nat.family.v6)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, w := range []*world{nat, dr} {
		if err := w.connect(h); err != nil {
			return err
		}
	}
	g := group{packets: b.Packets, suffix: label(nat.family, tcp) + "/1"}
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
