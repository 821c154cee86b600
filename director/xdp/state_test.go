package xdp

import (
	options "flag" // flag is a function of this package
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Whatever packets, time and operators do to a few connections, the tables and the
// verdicts are those of the model; and when all is over nothing is left.
func TestTablesFollowTheModel(t *testing.T) {
	r := newStateRig(t, Options{MaxConnections: 512, MaxConnectionsIPv6: 512})
	setFlag(t, "rapid.checks", strconv.Itoa(bpftest.Rounds(8)))
	setFlag(t, "rapid.steps", "100")
	setFlag(t, "rapid.nofailfile", "true")
	if options.Lookup("rapid.seed").Value.String() == "0" && os.Getenv("SHUNT_STRESS") == "" {
		setFlag(t, "rapid.seed", "6") // CI does the same each time; make stress does not
	}
	done := map[string]int{}
	checks := 0
	rapid.Check(t, func(rt *rapid.T) {
		checks++
		s := newStateMachine(r, rt)
		some := func(name string, of int, do func()) func(*rapid.T) {
			return func(rt *rapid.T) {
				s.rt, s.T = rt, rt
				name, do := name, do
				if of == rarely && s.spent() || of > 1 && of != rarely && rapid.IntRange(1, of).Draw(rt, "of") > 1 {
					do, name = s.data, "data"
				}
				done[name]++
				do()
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"open": some("open", 1, s.open), "open again": some("open", 1, s.open),
			"handshake": some("handshake", 1, s.handshake), "handshake again": some("handshake", 1, s.handshake),
			"data": some("data", 1, s.data), "data again": some("data", 1, s.data), "more data": some("data", 1, s.data),
			"fin": some("fin", 1, s.fin), "rst": some("rst", 2, s.rst), "any": some("any segment", 1, s.any),
			"retransmit": some("retransmission", 1, s.retransmit), "reorder": some("reordering", 1, s.reorder),
			"reuse": some("port reuse", 1, s.reuse), "collide": some("collision", 1, s.collide),
			"time": some("time", 1, s.time), "long time": some("long time", 4, s.longTime),
			"sweep": some("sweep", 2, s.sweep), "weight": some("weight", 2, s.weight),
			"remove": some("server removed or back", 2, s.removeOrAdd), "service": some("service edit", 2, s.editService),
			"kill": some("kill", 4, s.kill), "reset": some("kill with resets", 3, s.reset),
			"resize": some("resize", rarely, s.resize), "carry": some("packets amid a resize", rarely, s.carry),
			"restart": some("restart", rarely, s.restart),
		})
		s.finish()
	})
	total := 0
	for _, name := range slices.Sorted(maps.Keys(done)) {
		total += done[name]
		t.Logf("%6d %s", done[name], name)
	}
	t.Logf("%d runs, %d steps", checks, total)
}

// rarely is how often what loads programs is done: twice in a run for which there is
// time, and never where each takes seconds.
const rarely = 100

// spent says whether such a thing must not be done now.
func (s *stateMachine) spent() bool {
	s.heavy++
	return s.heavy%rarely != 1
}

// setFlag sets a flag of rapid's for this test.
func setFlag(t *testing.T, name, value string) {
	t.Helper()
	f := options.Lookup(name)
	before := f.Value.String()
	if err := f.Value.Set(value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Value.Set(before); err != nil {
			t.Error(err)
		}
	})
}

// stateRig is a data plane with services of all kinds in both families.
type stateRig struct {
	*rig
	services [2][]director.Service
	heavy    int  // how often something rare was drawn
	big      bool // the tables were resized to more connections
}

// The services, by their numbers.
const (
	ofNAT    = iota
	ofNATToo // with the servers of ofNAT: their reply keys collide
	ofDR
	ofUDP
	ofUDPByDR
	ofWide
	ofPersistence
)

var stateFamilies = [2]struct{ virtual, server, client string }{
	{"192.0.2.%d", "10.0.1.%d", "198.51.%d.%d"},
	{"2001:db8::%d", "fd00:1::%d", "2001:db8:c:%d::%d"},
}

func newStateRig(t *testing.T, opts Options) *stateRig {
	t.Helper()
	opts.ICMPRate = 1_000_000_000
	r := &stateRig{rig: newRig(t, opts)}
	for _, own := range []string{"10.0.1.254/24", "fd00:1::ffff/96"} {
		if err := r.ns.AddAddress("eth0", netip.MustParsePrefix(own)); err != nil {
			t.Fatal(err)
		}
	}
	for v6, family := range stateFamilies {
		for n := 1; n <= 2; n++ {
			address := netip.MustParseAddr(fmt.Sprintf(family.server, n))
			if err := r.peer.AddAddress("eth0", netip.PrefixFrom(address, address.BitLen()*3/4)); err != nil {
				r.t.Fatal(err)
			}
		}
		r.services[v6] = stateServices(v6)
		for _, s := range r.services[v6] {
			r.must(added(s)...)
		}
	}
	r.eventually("the servers are reachable", func() bool {
		for _, family := range r.services {
			for _, s := range family {
				if slices.ContainsFunc(r.stats(s.Key).Servers, func(s director.ServerStats) bool { return !s.Reachable }) {
					return false
				}
			}
		}
		return true
	})
	return r
}

func stateServices(v6 int) (all []director.Service) {
	family := stateFamilies[v6]
	for i, of := range []struct {
		protocol conntrack.Protocol
		port     uint16
		method   realserver.Method
		to       uint16 // the servers' port
	}{
		ofNAT: {conntrack.TCP, 80, realserver.NAT, 8080}, ofNATToo: {conntrack.TCP, 80, realserver.NAT, 8080},
		ofDR: {conntrack.TCP, 80, realserver.DR, 80}, ofUDP: {conntrack.UDP, 53, realserver.NAT, 5353},
		ofUDPByDR: {conntrack.UDP, 53, realserver.DR, 53}, ofWide: {conntrack.TCP, 8000, realserver.NAT, 9000},
		ofPersistence: {conntrack.TCP, 80, realserver.NAT, 8081},
	} {
		s := director.Service{Scheduler: director.RoundRobin, VIP: director.VIPExternal, Key: director.ServiceKey{
			Protocol: of.protocol, Address: netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(family.virtual, i+1)), of.port),
		}}
		switch i {
		case ofWide:
			s.Key.LastPort = of.port + 2
		case ofPersistence:
			s.Persistence = director.Persistence{Timeout: persistentTimeout * time.Second, Prefix: 24}
			if v6 == 1 {
				s.Persistence.Prefix = 64
			}
		}
		for n := 1; n <= 2; n++ {
			s.Servers = append(s.Servers, realserver.Server{
				Address: netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(family.server, n)), of.to), Method: of.method, Weight: 1,
			})
		}
		all = append(all, s)
	}
	return all
}

// stateMachine runs the same through the rig and the model.
type stateMachine struct {
	*stateRig
	T       rapid.TB
	rt      *rapid.T
	v6      bool
	m       *stateModel
	sent    []bpftest.Packet // the latest, for retransmissions
	numbers map[flowKey]uint32
	events  [bpf.KernelEventEVENTS]uint64
	steps   int
	log     []string
}

func newStateMachine(r *stateRig, rt *rapid.T) *stateMachine {
	s := &stateMachine{stateRig: r, T: rt, rt: rt, v6: rapid.Bool().Draw(rt, "v6"), numbers: map[flowKey]uint32{}}
	clock := r.plane.Clock
	s.m = &stateModel{
		refresh: clock.Ticks(time.Second), flows: map[flowKey]modelFlow{}, replies: map[flowKey]flowKey{}, templates: map[netip.Addr]modelTemplate{},
		ticks: func(service *modelService, state conntrack.State) uint32 {
			if state == templateState {
				return clock.Ticks(persistentTimeout * time.Second)
			}
			return clock.Ticks(conntrack.DefaultTimeouts().Merge(service.Timeouts).Of(state))
		},
	}
	s.clear()
	for _, of := range r.services[flag(s.v6)] {
		service := &modelService{Service: of}
		s.edit(director.EditService{Service: of})
		for _, server := range of.Servers {
			s.edit(director.AddServer{Key: of.Key, Server: server})
			s.edit(director.EditServer{Key: of.Key, Server: server})
			service.members = append(service.members, modelServer{Server: server})
		}
		s.m.services = append(s.m.services, service)
	}
	s.readEvents()
	s.compare()
	return s
}

// clear ends what a run before has left that failed.
func (s *stateMachine) clear() {
	if s.plane.Carrying() {
		counts, err := s.carryCounts()
		s.ok(err)
		_, err = s.bringOver(counts)
		s.ok(err)
	}
	s.ok(ignore(s.Kill(s.t.Context(), director.ConnectionFilter{})))
	s.ok(s.stateRig.sweep(s.t.Context()))
}

func ignore(_ uint64, err error) error { return err }

func (s *stateMachine) ok(err error) {
	s.T.Helper()
	if err != nil {
		s.fail("%v", err)
	}
}

func (s *stateMachine) fail(format string, args ...any) {
	s.T.Helper()
	s.T.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(s.log, "\n"))
}

func (s *stateMachine) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
	if len(s.log) > 40 {
		s.log = s.log[1:]
	}
}

func (s *stateMachine) edit(op director.Operation) {
	s.T.Helper()
	s.ok(s.Apply(s.t.Context(), []director.Operation{op}))
}

func (s *stateMachine) now() uint32 {
	s.T.Helper()
	tick, err := s.plane.Now()
	s.ok(err)
	return tick
}
