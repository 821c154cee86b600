package bpftest

import (
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf"
)

// Options say what a Fixture's plane is like. The zero value is documented with
// each field.
type Options struct {
	// Connections is the size of each table; 0: 4096.
	Connections uint64
	// AnswersPerTick is how many ICMP errors and resets a CPU may send in a
	// tick; 0: no limit that a test meets.
	AnswersPerTick uint32
	// Midstream is what happens to TCP without a connection; 0: it is dropped.
	Midstream bpf.KernelMidstream
	// Sources is how many source networks and validated clients there is room for; 0: 1024.
	Sources uint32
	// CountConnections counts each connection's packets.
	CountConnections bool
}

func (o Options) withDefaults() Options {
	if o.Connections == 0 {
		o.Connections = 4096
	}
	if o.AnswersPerTick == 0 {
		o.AnswersPerTick = 1 << 30
	}
	if o.Sources == 0 {
		o.Sources = 1024
	}
	return o
}

// Timeouts are the kernel's (kernel: net/netfilter/ipvs/ip_vs_proto_tcp.c,
// tcp_timeouts, and ip_vs_proto_udp.c).
var Timeouts = map[bpf.KernelConnState]time.Duration{
	bpf.KernelConnStateSTATE_NONE:        2 * time.Second,
	bpf.KernelConnStateSTATE_ESTABLISHED: 15 * time.Minute,
	bpf.KernelConnStateSTATE_SYN_SENT:    2 * time.Minute,
	bpf.KernelConnStateSTATE_SYN_RECV:    time.Minute,
	bpf.KernelConnStateSTATE_FIN_WAIT:    2 * time.Minute,
	bpf.KernelConnStateSTATE_TIME_WAIT:   2 * time.Minute,
	bpf.KernelConnStateSTATE_CLOSE:       10 * time.Second,
	bpf.KernelConnStateSTATE_CLOSE_WAIT:  time.Minute,
	bpf.KernelConnStateSTATE_LAST_ACK:    30 * time.Second,
	bpf.KernelConnStateSTATE_LISTEN:      2 * time.Minute,
	bpf.KernelConnStateSTATE_SYNACK:      2 * time.Minute,
	bpf.KernelConnStateSTATE_UDP:         5 * time.Minute,
}

// Fixture is a loaded plane with what the test wrote into it. Its methods fail
// the test where the kernel refuses something. Not safe for concurrent use.
type Fixture struct {
	Plane *bpf.Plane
	// Outside and Inside are the interfaces of the plane: towards the clients,
	// and towards the servers in two-armed tests. In one-armed ones there is
	// only Outside.
	Outside, Inside uint32

	t         testing.TB // the test that made it; see T
	namespace *namespace
	pinDir    string
	soil      soil
	filter    bpf.KernelFilter
	next      indices
	servers   map[uint32]*Server
	wide      []*Service                    // those in force that have several addresses or ports
	events    [bpf.KernelEventEVENTS]uint64 // at the last call of Events
}

// indices are the next free ones; nothing is used twice.
type indices struct{ service, server, word, hop uint32 }

// New lends the test a plane over empty maps, pinned in a directory of its own. It has
// been loaded for an earlier test that asked for the same sizes and is done with it,
// or is loaded now: by nothing that is in the maps or in Go can a test tell, but by
// the programs' numbers and the hash seeds.
func New(t testing.TB, o Options) *Fixture {
	t.Helper()
	Privileged(t)
	o = o.withDefaults()
	f := newFixture(t)
	f.lend(o)
	f.set(o)
	return f
}

// NewAt loads the fast path over new maps pinned in a directory of PinDir's; all is gone
// at the end of the test.
func NewAt(t testing.TB, pinDir string, o Options) *Fixture {
	t.Helper()
	o = o.withDefaults()
	f := newFixture(t)
	f.pinDir = pinDir
	f.open(o)
	t.Cleanup(func() { f.must(f.remove()) })
	f.set(o)
	return f
}

// newFixture returns one without a plane.
func newFixture(t testing.TB) *Fixture {
	t.Helper()
	n := newNamespace(t)
	return &Fixture{
		t: t, namespace: n, Outside: n.outside, Inside: n.inside,
		// Index 0 means none.
		next:    indices{service: 1, server: 1, word: 1, hop: 1},
		servers: map[uint32]*Server{},
	}
}

// set writes the settings and the ports.
func (f *Fixture) set(o Options) {
	f.t.Helper()
	for _, index := range []uint32{f.Outside, f.Inside} {
		f.AddPort(index)
	}
	f.ChangeSettings(func(s *bpf.KernelSettings) {
		s.Midstream, s.IcmpPerTick = uint32(o.Midstream), o.AnswersPerTick
		for state, timeout := range Timeouts {
			s.Timeout[state] = f.Plane.Clock.Ticks(timeout)
		}
	})
	f.ChangePacketOptions(func(o *bpf.KernelPacketOptions) {
		o.FragmentTicks, o.PathTicks = f.Plane.Clock.Ticks(30*time.Second), f.Plane.Clock.Ticks(10*time.Minute)
	})
}

func (f *Fixture) open(o Options) {
	f.t.Helper()
	var err error
	f.Do(func() {
		f.Plane, err = bpf.Open(f.pinDir, bpf.Limits{
			Connections4: o.Connections, Connections6: o.Connections,
			Services: 1024, Servers: 4096, Words: 1 << 20,
			CountConnections: o.CountConnections, Sources: o.Sources, Fragments: 1024,
		})
	})
	f.must(err)
}

// AddPort lets packets be redirected to the interface.
func (f *Fixture) AddPort(index uint32) {
	f.t.Helper()
	var err error
	f.Do(func() { err = f.Plane.Ports.Put(index, index) })
	f.must(err)
}

// Reopen is a restart: it lets go of everything and takes up what is pinned, as it
// was asked to before.
func (f *Fixture) Reopen() {
	f.t.Helper()
	f.ReopenAs(Options{CountConnections: f.Plane.Limits.CountConnections})
}

// ReopenAs is Reopen with other options; what is pinned keeps its sizes.
func (f *Fixture) ReopenAs(o Options) {
	f.t.Helper()
	f.must(f.Plane.Close())
	f.open(o)
	if !f.Plane.Adopted {
		f.t.Fatal("what was pinned was not adopted")
	}
}

// T makes a subtest the one that the fixture's errors fail.
func (f *Fixture) T(t testing.TB) *Fixture {
	parent := f.t
	f.t = t
	t.Cleanup(func() { f.t = parent })
	return f
}

// Do runs a function on a thread in the fixture's network namespace.
func (f *Fixture) Do(function func()) { f.namespace.do(function) }

// ChangeSettings edits the settings.
func (f *Fixture) ChangeSettings(change func(*bpf.KernelSettings)) {
	f.t.Helper()
	f.must(f.Plane.ChangeSettings(change))
}

// ChangePacketOptions edits what odd packets are handled by.
func (f *Fixture) ChangePacketOptions(change func(*bpf.KernelPacketOptions)) {
	f.t.Helper()
	o, err := f.Plane.PacketOptions()
	f.must(err)
	change(&o)
	f.must(f.Plane.SetPacketOptions(&o))
}

func (f *Fixture) must(err error) {
	if err != nil {
		f.t.Helper()
		f.t.Fatal(err)
	}
}
