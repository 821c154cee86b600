package xdp

import (
	"context"
	"errors"
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

	"github.com/cilium/ebpf"
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
		s.ok(s.bringOver())
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

// --- what happens ------------------------------------------------------------------

// clientPorts are few, so that flows meet.
func (s *stateMachine) client() netip.AddrPort {
	host := rapid.IntRange(0, 5).Draw(s.rt, "client")
	text := fmt.Sprintf(stateFamilies[flag(s.v6)].client, 100+host/3, 1+host%3)
	return netip.AddrPortFrom(netip.MustParseAddr(text), uint16(4000+rapid.IntRange(0, 1).Draw(s.rt, "port")))
}

func (s *stateMachine) service() (int, *modelService) {
	n := rapid.IntRange(0, len(s.m.services)-1).Draw(s.rt, "service")
	return n, s.m.services[n]
}

func (s *stateMachine) flow() flowKey {
	_, service := s.service()
	to := service.Key.Address
	if service.Key.LastPort != 0 {
		to = netip.AddrPortFrom(to.Addr(), to.Port()+uint16(rapid.IntRange(0, 2).Draw(s.rt, "virtual port")))
	}
	return flowKey{uint8(service.Key.Protocol), s.client(), to}
}

// one is a flow that there is, or any where there is none.
func (s *stateMachine) one(wanted func(flowKey, modelFlow) bool) flowKey {
	var keys []flowKey
	for key, f := range s.m.flows {
		if wanted(key, f) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return s.flow()
	}
	slices.SortFunc(keys, func(a, b flowKey) int {
		if c := a.from.Compare(b.from); c != 0 {
			return c
		}
		return a.to.Compare(b.to)
	})
	return rapid.SampledFrom(keys).Draw(s.rt, "flow")
}

func anyFlow(flowKey, modelFlow) bool { return true }

func isTCP(key flowKey, _ modelFlow) bool { return key.protocol == bpftest.TCP }

// request is a client's packet.
func (s *stateMachine) request(key flowKey, flags string) bpftest.Packet {
	return bpftest.Packet{
		Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside,
		From: key.from, To: key.to, Protocol: key.protocol, Flags: flags, Seq: 1000, Ack: s.numbers[key] + 1,
	}
}

// answer is the packet of the flow's server; of any where there is no flow.
func (s *stateMachine) answer(key flowKey, flags string) bpftest.Packet {
	from := s.m.services[s.m.serviceOf(key)].members[0].at(key.to.Port())
	if f, ok := s.m.flows[key]; ok {
		from = f.server
	}
	return bpftest.Packet{
		Source: bpftest.ServerMAC, Destination: bpftest.DirectorInside,
		From: from, To: key.from, Protocol: key.protocol, Flags: flags, Seq: s.numbers[key], Ack: 1001,
	}
}

func (s *stateMachine) open() {
	key := s.flow()
	s.numbers[key] = rapid.Uint32().Draw(s.rt, "number")
	s.packet(s.request(key, "S"))
}

// handshake answers a first segment, and acknowledges that rightly or wrongly.
func (s *stateMachine) handshake() {
	key := s.one(func(key flowKey, f modelFlow) bool { return isTCP(key, f) && f.state == conntrack.SynRecv })
	switch rapid.IntRange(0, 5).Draw(s.rt, "part") {
	case 0:
		s.packet(s.answer(key, "SA"))
	case 1:
		ack := s.request(key, "A")
		ack.Ack = rapid.Uint32().Draw(s.rt, "ack")
		s.packet(ack)
	case 2:
		s.packet(s.request(key, "A"))
	default:
		s.packet(s.answer(key, "SA"))
		s.packet(s.request(key, "A"))
	}
}

func (s *stateMachine) data() {
	key := s.one(anyFlow)
	p := s.request(key, "A")
	if rapid.Bool().Draw(s.rt, "reply") {
		p = s.answer(key, "A")
	}
	if rapid.Bool().Draw(s.rt, "payload") {
		p.Payload = []byte("something")
	}
	s.packet(p)
}

func (s *stateMachine) fin() { s.either(s.one(isTCP), "FA") }

func (s *stateMachine) rst() { s.either(s.one(isTCP), "RA") }

func (s *stateMachine) either(key flowKey, flags string) {
	if rapid.Bool().Draw(s.rt, "reply") {
		s.packet(s.answer(key, flags))
	} else {
		s.packet(s.request(key, flags))
	}
}

func (s *stateMachine) any() {
	s.either(s.one(anyFlow), rapid.SampledFrom([]string{"S", "SA", "A", "F", "FA", "R", "RA", ""}).Draw(s.rt, "flags"))
}

func (s *stateMachine) retransmit() {
	if len(s.sent) > 0 {
		s.packet(rapid.SampledFrom(s.sent).Draw(s.rt, "packet"))
	}
}

// reorder sends the end of a connection before what comes before it.
func (s *stateMachine) reorder() {
	key := s.one(isTCP)
	all := []bpftest.Packet{s.request(key, "A"), s.answer(key, "A"), s.request(key, "FA"), s.answer(key, "FA"), s.answer(key, "SA")}
	for _, p := range rapid.Permutation(all).Draw(s.rt, "order")[:3] {
		s.packet(p)
	}
}

// reuse is a first segment of a connection that is over.
func (s *stateMachine) reuse() {
	key := s.one(func(key flowKey, f modelFlow) bool {
		return isTCP(key, f) && (f.state == conntrack.TimeWait || f.state == conntrack.Close)
	})
	s.packet(s.request(key, "S"))
}

// collide has a client that one of two services with the same servers knows ask the other.
func (s *stateMachine) collide() {
	key := s.one(func(_ flowKey, f modelFlow) bool {
		return f.service == ofNAT || f.service == ofNATToo || f.service == ofWide
	})
	switch s.m.serviceOf(key) {
	case ofNAT:
		key.to = s.m.services[ofNATToo].Key.Address
	case ofNATToo:
		key.to = s.m.services[ofNAT].Key.Address
	case ofWide:
		first := s.m.services[ofWide].Key.Address
		key.to = netip.AddrPortFrom(first.Addr(), first.Port()+(key.to.Port()-first.Port()+1)%3)
	}
	s.packet(s.request(key, "S"))
}

func (s *stateMachine) time() {
	s.pass(time.Duration(rapid.SampledFrom([]int{1, 1, 2, 5, 11}).Draw(s.rt, "seconds")) * time.Second)
}

func (s *stateMachine) longTime() {
	s.pass(time.Duration(rapid.SampledFrom([]int{31, 61, 121, 301, 901}).Draw(s.rt, "seconds")) * time.Second)
}

func (s *stateMachine) pass(d time.Duration) {
	s.note("%v passes", d)
	r := differentialRig{rig: s.rig}
	r.age(d)
	s.m.age(s.plane.Clock.Ticks(d))
	s.compare()
}

func (s *stateMachine) sweep() {
	s.note("sweep")
	s.eitherTick(func() { s.ok(s.stateRig.sweep(s.t.Context())) }, func(m *stateModel, tick uint32) error { m.sweep(tick); return nil })
}

func (s *stateMachine) member() (*modelService, *modelServer) {
	_, service := s.service()
	return service, &service.members[rapid.IntRange(0, len(service.members)-1).Draw(s.rt, "server")]
}

func (s *stateMachine) weight() {
	service, server := s.member()
	server.Weight = uint32(rapid.SampledFrom([]int{0, 1, 1, 3}).Draw(s.rt, "weight"))
	s.note("%s: weight %d of %s", service.Key, server.Weight, server.Address)
	if !server.removed {
		s.edit(director.EditServer{Key: service.Key, Server: server.Server})
	}
	s.compare()
}

func (s *stateMachine) removeOrAdd() {
	service, server := s.member()
	s.note("%s: server %s removed: %t", service.Key, server.Address, !server.removed)
	if server.removed {
		s.edit(director.AddServer{Key: service.Key, Server: server.Server})
	} else {
		s.edit(director.RemoveServer{Key: service.Key, Address: server.Address})
	}
	server.removed = !server.removed
	s.compare()
}

func (s *stateMachine) editService() {
	_, service := s.service()
	service.Timeouts = conntrack.Timeouts{}
	if rapid.Bool().Draw(s.rt, "own timeouts") {
		service.Timeouts = conntrack.Timeouts{TCP: 30 * time.Second, UDP: 4 * time.Second}
	}
	service.Limits = director.Limits{Connections: uint32(rapid.SampledFrom([]int{0, 0, 3}).Draw(s.rt, "limit"))}
	s.note("%s: timeouts %v, limit %d", service.Key, service.Timeouts, service.Limits.Connections)
	s.edit(director.EditService{Service: service.Service})
	s.compare()
}

func (s *stateMachine) kill()  { s.endSome("killed", s.Kill, false) }
func (s *stateMachine) reset() { s.endSome("reset", s.Reset, true) }

// endSome ends the connections of a service, or of a client network with its templates.
func (s *stateMachine) endSome(word string, end func(context.Context, director.ConnectionFilter) (uint64, error), withResets bool) {
	var filter director.ConnectionFilter
	number, network := -1, netip.Addr{}
	if rapid.Bool().Draw(s.rt, "by client") {
		network = networkOf(s.client().Addr())
		bits := 24
		if s.v6 {
			bits = 64
		}
		filter.Client = netip.PrefixFrom(network, bits)
	} else {
		var service *modelService
		number, service = s.service()
		filter.Service = service.Key
	}
	s.note("%s: %+v", word, filter)
	s.eitherTick(func() { s.ok(ignore(end(s.t.Context(), filter))) }, func(m *stateModel, tick uint32) error {
		m.kill(number, network, withResets, tick)
		return nil
	})
}

func (s *stateMachine) size() uint64 {
	s.big = !s.big
	if s.big {
		return 2000
	}
	return 512
}

func (s *stateMachine) resize() {
	s.note("resize")
	size := s.size()
	s.ok(s.Resize(s.t.Context(), size, size))
	s.readEvents()
	s.compare()
}

// carry has packets meet connections that have not come over yet.
func (s *stateMachine) carry() {
	size := s.size()
	s.note("resize, and before it ends:")
	change, err := s.plane.PrepareResize(size, size)
	s.ok(err)
	s.ok(s.commit(change, true))
	s.readEvents()
	for key, f := range s.m.clone().flows {
		if s.m.isOver(f, s.now()+4) {
			continue // a packet may begin another, whose server the tables cannot tell now
		}
		p := s.request(key, "A")
		if f.method == realserver.NAT && rapid.Bool().Draw(s.rt, "reply") {
			p = s.answer(key, "A")
		}
		s.packetAmid(p)
	}
	s.ok(s.bringOver())
	s.readEvents()
	s.compare()
}

func (s *stateMachine) restart() {
	s.note("restart")
	s.ok(s.Close())
	s.stateRig.open()
	s.compare()
}

// finish closes everything, and looks what is left.
func (s *stateMachine) finish() {
	for range 3 { // the first may give a template a minute more, the second leaves one that has just lost its last connection
		s.pass(time.Hour)
		s.sweep()
	}
	if n := len(s.m.flows) + len(s.m.templates); n > 0 {
		s.fail("%d connections and templates are left", n)
	}
	stats, err := s.Stats(s.t.Context())
	s.ok(err)
	for _, service := range stats.Services {
		for _, server := range service.Servers {
			if server.Active != 0 || server.Inactive != 0 {
				s.fail("%s: %s has %d active, %d inactive connections", service.Key, server.Server.Address, server.Active, server.Inactive)
			}
		}
	}
	s.check()
}

func (s *stateMachine) check() {
	faults, err := s.checkTables(s.t.Context(), 20*time.Microsecond)
	s.ok(err)
	if len(faults) > 0 {
		s.fail("faults: %+v", faults)
	}
}

// --- the comparison -----------------------------------------------------------------

// packet sends a packet and compares all that becomes of it.
func (s *stateMachine) packet(p bpftest.Packet) {
	s.sent = append(s.sent, p)
	if len(s.sent) > 8 {
		s.sent = s.sent[1:]
	}
	s.note("%d %s -> %s %q seq %#x ack %#x, %d octets", p.Protocol, p.From, p.To, p.Flags, p.Seq, p.Ack, len(p.Payload))
	var got outcome
	s.eitherTick(func() { got = s.run(p) }, func(m *stateModel, tick uint32) error {
		want, err := m.packet(p, tick, s.chosen(p))
		if err != nil {
			return err
		}
		return got.differs(want)
	})
}

// packetAmid is packet while the tables cannot be read: of a connection that there is.
func (s *stateMachine) packetAmid(p bpftest.Packet) {
	s.note("  %d %s -> %s %q", p.Protocol, p.From, p.To, p.Flags)
	before := s.now()
	got := s.run(p)
	var errs []error
	for _, tick := range []uint32{before, s.now()} {
		m := s.m.clone()
		want, err := m.packet(p, tick, choice{})
		if err == nil {
			want.events = strings.TrimSpace(want.events + " carried")
			err = got.differs(want)
		}
		if err == nil {
			s.m = m
			return
		}
		errs = append(errs, err)
	}
	s.fail("%v", errors.Join(errs...))
}

// run sends a packet; what becomes of it.
func (s *stateMachine) run(p bpftest.Packet) (o outcome) {
	run := ebpf.RunOptions{Data: p.Bytes(), DataOut: make([]byte, 2048)}
	action, err := s.plane.ShuntRoot.Run(&run)
	s.ok(err)
	o.action, o.events = bpftest.Action(action), s.readEvents()
	if o.action != bpftest.TX && o.action != bpftest.Redirect {
		return o
	}
	if err := bpftest.Verify(run.DataOut); err != nil && !errors.Is(err, bpftest.ErrNotChecked) {
		s.fail("%v", err)
	}
	o.from, o.to = endsOf(run.DataOut)
	return o
}

// endsOf are the addresses and ports of a frame without tags and options.
func endsOf(frame []byte) (from, to netip.AddrPort) {
	source, length, ports := 14+12, 4, 14+20
	if frame[14]>>4 == 6 {
		source, length, ports = 14+8, 16, 14+40
	}
	end := func(n int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(frame[source+n*length : source+(n+1)*length])
		return netip.AddrPortFrom(a, uint16(frame[ports+2*n])<<8|uint16(frame[ports+2*n+1]))
	}
	return end(0), end(1)
}

// differs compares what became of a packet with what the model says.
func (o outcome) differs(want outcome) error {
	const perhaps = "collision-avoided?"
	if strings.Contains(want.events, perhaps) {
		want.events = strings.Join(strings.Fields(strings.ReplaceAll(want.events, perhaps, "")), " ")
		o.events = strings.Join(strings.Fields(strings.ReplaceAll(o.events, "collision-avoided", "")), " ")
	}
	if !want.from.IsValid() {
		o.from, o.to = netip.AddrPort{}, netip.AddrPort{}
	}
	if o != want {
		return fmt.Errorf("the packet: %+v, want %+v", o, want)
	}
	return nil
}

// readEvents returns the names of the events since the last call.
func (s *stateMachine) readEvents() string {
	counts, err := s.plane.EventCounts()
	s.ok(err)
	var names []string
	for i, n := range counts {
		if name := bpf.Events[i].Name; n != s.events[i] && name != "not-ours" && name != "icmp" { // neighbours look for one another
			names = append(names, name)
		}
	}
	s.events = counts
	slices.Sort(names)
	return strings.Join(names, " ")
}

// tableView is what the tables hold.
type tableView struct {
	flows     map[flowKey]bpf.Entry
	replies   map[flowKey]bpf.Entry
	templates map[netip.Addr]bpf.Entry
	servers   map[uint32]netip.AddrPort // by index
}

func (s *stateMachine) view() *tableView {
	v := &tableView{map[flowKey]bpf.Entry{}, map[flowKey]bpf.Entry{}, map[netip.Addr]bpf.Entry{}, map[uint32]netip.AddrPort{}}
	for _, service := range s.Dataplane.model.services {
		for address, server := range service.members {
			v.servers[server.index] = address
		}
	}
	for e, err := range s.plane.Entries(s.v6) {
		s.ok(err)
		key := flowKey{e.Protocol, e.Source, e.Destination}
		switch {
		case e.Template:
			v.templates[e.Source.Addr()] = e
		case e.Reply:
			v.replies[key] = e
		default:
			v.flows[key] = e
		}
	}
	return v
}

// chosen is what the tables have of a client's packet.
func (s *stateMachine) chosen(p bpftest.Packet) (c choice) {
	v := s.view()
	if e, ok := v.flows[flowKey{p.Protocol, p.From, p.To}]; ok {
		c.server = v.servers[e.Server]
	}
	if e, ok := v.templates[networkOf(p.From.Addr())]; ok {
		c.template = v.servers[e.Server]
	}
	return c
}

// eitherTick does something to the tables, and to the model as of the tick before it
// or the one after it: one of the two must agree.
func (s *stateMachine) eitherTick(do func(), with func(*stateModel, uint32) error) {
	s.T.Helper()
	before := s.now()
	do()
	s.readEvents() // packets have read theirs
	var errs []error
	view := s.view()
	for _, tick := range []uint32{before, s.now()} {
		m := s.m.clone()
		err := with(m, tick)
		if err == nil {
			err = m.differs(view, tick)
		}
		if err == nil {
			s.m = m
			s.sometimesCheck()
			return
		}
		errs = append(errs, err)
	}
	s.fail("%v", errors.Join(errs...))
}

// compare compares the tables with the model as it is.
func (s *stateMachine) compare() {
	s.T.Helper()
	if err := s.m.differs(s.view(), s.now()); err != nil {
		s.fail("%v", err)
	}
	s.sometimesCheck()
}

const checkInterval = 10 // steps

func (s *stateMachine) sometimesCheck() {
	if s.steps++; s.steps%checkInterval == 0 {
		s.check()
	}
}

// differs compares connections and templates with the tables'. Of times the model
// takes the tables' word, if that is as exact as it is to be.
func (m *stateModel) differs(v *tableView, tick uint32) error {
	for key, e := range v.flows {
		f, ok := m.flows[key]
		if !ok {
			return fmt.Errorf("%v is in the table: %+v", key, e)
		}
		server := v.servers[e.Server]
		if server.Addr() != f.server.Addr() || server.Port() != f.server.Port() && server.Port() != 0 || conntrack.State(e.State) != f.state ||
			e.Proven != f.proof.Proven || e.UnderTemplate != f.controlled || realserver.Method(e.Method) != f.method {
			return fmt.Errorf("%v: %s, %+v, want %+v", key, server, e, f)
		}
		if late := int32(f.last - e.Seen); late < -1 || late > 2*int32(m.refresh)+1 {
			return fmt.Errorf("%v was last seen at %d, its last packet was at %d", key, e.Seen, f.last)
		}
		f.seen = e.Seen
		m.flows[key] = f
	}
	for key, f := range m.flows {
		if _, ok := v.flows[key]; !ok {
			return fmt.Errorf("%v is not in the table, want %+v", key, f)
		}
	}
	for key := range m.replies {
		if _, ok := v.replies[key]; !ok {
			return fmt.Errorf("the reply key %v is not in the table", key)
		}
	}
	if len(v.replies) != len(m.replies) {
		return fmt.Errorf("%d reply keys, want %d", len(v.replies), len(m.replies))
	}
	return m.templatesDiffer(v, tick)
}

func (m *stateModel) templatesDiffer(v *tableView, tick uint32) error {
	for network, e := range v.templates {
		t, ok := m.templates[network]
		if !ok || t.server != v.servers[e.Server] || t.controlled != int(e.Controlled) {
			return fmt.Errorf("template of %s: %s, %+v, want %+v", network, v.servers[e.Server], e, t)
		}
		t.seen, t.prolonged = e.Seen, e.Prolonged
		m.templates[network] = t
	}
	service := m.services[ofPersistence]
	for network, t := range m.templates {
		if _, ok := v.templates[network]; ok {
			continue
		}
		if t.controlled > 0 || !m.isTemplateOver(service, t, tick) {
			return fmt.Errorf("there is no template of %s, want %+v", network, t)
		}
		delete(m.templates, network) // the sweep's
	}
	return nil
}
