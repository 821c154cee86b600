package xdp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

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
	s.noneLost(s.Resize(s.t.Context(), size, size))
	s.readEvents()
	s.compare()
}

func (s *stateMachine) noneLost(report director.ResizeReport, err error) {
	s.T.Helper()
	s.ok(err)
	if report.Lost > 0 || report.Evicted > 0 {
		s.fail("the resize: %+v", report)
	}
}

// carry has packets meet connections that have not come over yet.
func (s *stateMachine) carry() {
	size := s.size()
	s.note("resize, and before it ends:")
	change, err := s.plane.PrepareResize(size, size)
	s.ok(err)
	counts, err := s.carryCounts()
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
	s.noneLost(s.bringOver(counts))
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
