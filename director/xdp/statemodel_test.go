package xdp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// stateModel is the connection table in plain Go: connections and templates by their
// keys, without slots, halves or claims. Times are ticks.
type stateModel struct {
	refresh  uint32
	ticks    func(service *modelService, state conntrack.State) uint32
	services []*modelService
	flows    map[flowKey]modelFlow
	replies  map[flowKey]flowKey // NAT's, by the server's side
	// templates are of the one persistent service, by the client's network.
	templates map[netip.Addr]modelTemplate
}

// flowKey is a packet's addresses.
type flowKey struct {
	protocol uint8
	from, to netip.AddrPort
}

func (k flowKey) String() string { return fmt.Sprintf("%d %s -> %s", k.protocol, k.from, k.to) }

// modelService is a service and its servers, those that were removed included.
type modelService struct {
	director.Service
	members []modelServer
}

type modelServer struct {
	realserver.Server
	removed bool
}

// modelFlow is a connection.
type modelFlow struct {
	service    int
	server     netip.AddrPort
	method     realserver.Method
	state      conntrack.State
	proof      conntrack.Proof
	controlled bool // by a template
	killed     bool
	// told: the client's packets, the server's, are answered and not sent on any more.
	told, replyTold bool
	seen            uint32 // as the table has it: how exact, the comparison knows
	last            uint32 // tick of its last packet
}

type modelTemplate struct {
	server     netip.AddrPort
	controlled int
	prolonged  bool
	seen       uint32
}

// outcome is what becomes of a packet. Of a new connection the model says which
// servers it may have, and takes the one that it was given.
type outcome struct {
	action bpftest.Action
	events string         // names, sorted
	from   netip.AddrPort // it leaves with, if it is sent on by NAT; zero: as it came
	to     netip.AddrPort
}

const persistentTimeout = 300 // seconds

func (m *stateModel) clone() *stateModel {
	c := *m
	c.flows, c.replies, c.templates = maps.Clone(m.flows), maps.Clone(m.replies), maps.Clone(m.templates)
	return &c
}

// after is whether more ticks than timeout have passed since seen.
func after(seen, tick, timeout uint32) bool { return int32(tick-seen) > int32(timeout) }

func (m *stateModel) isOver(f modelFlow, tick uint32) bool {
	return after(f.seen, tick, m.ticks(m.services[f.service], f.state))
}

func (m *stateModel) member(f modelFlow) *modelServer {
	return m.services[f.service].member(f.server)
}

// member finds a server by where it gets packets: a wide service's has no port of its own.
func (s *modelService) member(address netip.AddrPort) *modelServer {
	for i := range s.members {
		own := s.members[i].Address
		if own == address || own.Port() == 0 && own.Addr() == address.Addr() {
			return &s.members[i]
		}
	}
	return nil
}

// at is the server's address for a connection that was sent to a port.
func (s *modelServer) at(port uint16) netip.AddrPort {
	if s.Address.Port() != 0 {
		return s.Address
	}
	return netip.AddrPortFrom(s.Address.Addr(), port)
}

// serviceOf finds the service that has packets to an address; -1: none.
func (m *stateModel) serviceOf(key flowKey) int {
	return slices.IndexFunc(m.services, func(s *modelService) bool {
		a, last := s.Key.Address, max(s.Key.LastPort, s.Key.Address.Port())
		return uint8(s.Key.Protocol) == key.protocol && a.Addr() == key.to.Addr() &&
			a.Port() <= key.to.Port() && key.to.Port() <= last
	})
}

func replyOf(key flowKey, server netip.AddrPort) flowKey {
	return flowKey{key.protocol, server, key.from}
}

func (m *stateModel) end(key flowKey) {
	f, ok := m.flows[key]
	if !ok {
		return
	}
	delete(m.flows, key)
	if f.method == realserver.NAT {
		delete(m.replies, replyOf(key, f.server))
	}
	m.release(key, f)
}

// release takes a connection from its template's count.
func (m *stateModel) release(key flowKey, f modelFlow) {
	network := networkOf(key.from.Addr())
	if t, ok := m.templates[network]; ok && f.controlled && t.server == f.server {
		t.controlled--
		m.templates[network] = t
	}
}

// networkOf is the client's network as the persistent service has it.
func networkOf(client netip.Addr) netip.Addr {
	bits := 24
	if client.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(client, bits).Masked().Addr()
}

// choice is what the table has of a packet's connection and template after it.
type choice struct{ server, template netip.AddrPort }

// packet runs a packet through the model.
func (m *stateModel) packet(p bpftest.Packet, tick uint32, chosen choice) (outcome, error) {
	key := flowKey{p.Protocol, p.From, p.To}
	if forward, ok := m.replies[key]; ok {
		return m.reply(p, forward, tick), nil
	}
	f, ok := m.flows[key]
	if !ok {
		if m.serviceOf(key) < 0 {
			return passed("no-service"), nil
		}
		return m.admit(p, key, tick, chosen, false)
	}
	syn := p.Protocol == bpftest.TCP && strings.Contains(p.Flags, "S")
	ended := f.state == conntrack.TimeWait || f.state == conntrack.Close
	server := m.member(f)
	switch {
	case m.isOver(f, tick):
		m.end(key)
		o, err := m.admit(p, key, tick, chosen, false)
		return o.with("expired-hit"), err
	case syn && (f.killed || ended && !f.controlled):
		return m.admit(p, key, tick, chosen, true)
	case f.killed:
		return m.meetKilled(p, key, f), nil
	case server.removed:
		return dropped("server-removed"), nil
	}
	direction := conntrack.InputOnly
	if f.method == realserver.NAT {
		direction = conntrack.Input
	}
	f = m.move(p, f, direction, tick)
	f.seen = tick
	m.flows[key] = f
	return m.sentOn(p, f), nil
}

// move is the connection after a packet that is followed.
func (m *stateModel) move(p bpftest.Packet, f modelFlow, direction conntrack.Direction, tick uint32) modelFlow {
	spaced := int32(tick-f.seen) >= int32(m.refresh)
	flags := flagsOf(p.Flags)
	if p.Protocol == bpftest.TCP {
		f.state = conntrack.Next(direction, conntrack.EventOf(flags), f.state)
	}
	f.proof = f.proof.After(direction, conntrack.Segment{Flags: flags, Seq: p.Seq, Ack: p.Ack, Spaced: spaced}, f.state)
	f.last = tick
	return f
}

func (m *stateModel) sentOn(p bpftest.Packet, f modelFlow) outcome {
	switch f.method {
	case realserver.Local:
		return passed("local")
	case realserver.DR:
		return outcome{action: bpftest.Redirect, from: p.From, to: p.To}
	default:
		return outcome{action: bpftest.Redirect, from: p.From, to: f.server}
	}
}

func (m *stateModel) reply(p bpftest.Packet, key flowKey, tick uint32) outcome {
	f := m.flows[key]
	switch {
	case m.isOver(f, tick):
		m.end(key)
		return passed("no-service").with("expired-hit")
	case f.killed:
		return m.meetKilled(p, key, f)
	case m.member(f).removed:
		return dropped("server-removed")
	}
	hasNoHop := f.proof.Wide && f.proof.Awaited
	f = m.move(p, f, conntrack.Output, tick)
	if early := tick - m.refresh; int32(f.seen-early) < 0 {
		f.seen = early
	}
	m.flows[key] = f
	if hasNoHop {
		return dropped("no-route")
	}
	return outcome{action: bpftest.TX, from: key.to, to: key.from}
}

// meetKilled is a packet of a connection that ends with resets.
func (m *stateModel) meetKilled(p bpftest.Packet, key flowKey, f modelFlow) outcome {
	told, otherTold, goesOn := &f.told, &f.replyTold, m.sentOn(p, f)
	if p.From != key.from {
		told, otherTold = otherTold, told
		goesOn = outcome{action: bpftest.TX, from: key.to, to: key.from}
		if f.proof.Wide && f.proof.Awaited {
			goesOn = dropped("no-route")
		}
	}
	if m.member(f).removed {
		goesOn = dropped("server-removed")
	}
	isRetried := strings.ContainsAny(p.Flags, "SF") || len(p.Payload) > 0
	switch {
	case strings.Contains(p.Flags, "R"):
	case isRetried && !*told:
		*told = true
		goesOn = goesOn.with("killed-forwarded")
	default:
		*otherTold = *otherTold || f.method == realserver.NAT
		goesOn = outcome{action: bpftest.TX, events: "killed", from: p.To, to: p.From}
	}
	m.flows[key] = f
	return goesOn
}

// admit is a packet without a connection, or in the place of one that ends with it.
func (m *stateModel) admit(p bpftest.Packet, key flowKey, tick uint32, chosen choice, replaces bool) (outcome, error) {
	index := m.serviceOf(key)
	service := m.services[index]
	limit := int(service.Limits.Connections)
	if limit > 0 && replaces {
		limit++
	}
	switch {
	case p.Protocol == bpftest.TCP && (strings.Contains(p.Flags, "R") || !strings.Contains(p.Flags, "S")):
		m.endReplaced(key, replaces)
		return dropped("midstream"), nil
	case limit > 0 && m.count(index) >= limit:
		m.endReplaced(key, replaces)
		return dropped("service-connections"), nil
	}
	templateServer, o, ok := m.template(service, key, tick)
	if !ok {
		m.endReplaced(key, replaces)
		return o, nil
	}
	m.endReplaced(key, replaces)
	return m.create(p, key, index, templateServer, tick, chosen)
}

func (m *stateModel) endReplaced(key flowKey, replaces bool) {
	if replaces {
		m.end(key)
	}
}

func (m *stateModel) count(service int) (n int) {
	for _, f := range m.flows {
		if f.service == service {
			n++
		}
	}
	return n
}

// template is the server that the client's template names; the zero address if the
// scheduler has to choose. False if there is no server.
func (m *stateModel) template(service *modelService, key flowKey, tick uint32) (netip.AddrPort, outcome, bool) {
	if service.Persistence.Timeout != 0 {
		network := networkOf(key.from.Addr())
		t, ok := m.templates[network]
		if ok && m.isTemplateOver(service, t, tick) {
			if ok = t.controlled > 0; ok {
				t.prolonged, t.seen = true, tick
			} else {
				delete(m.templates, network)
			}
		}
		if ok && !service.member(t.server).removed {
			t.controlled++
			t.seen = tick
			m.templates[network] = t
			return t.server, outcome{}, true
		}
		delete(m.templates, network)
	}
	if len(service.offered()) == 0 {
		return netip.AddrPort{}, outcome{action: bpftest.TX, events: "no-server"}, false
	}
	return netip.AddrPort{}, outcome{}, true
}

func (m *stateModel) isTemplateOver(service *modelService, t modelTemplate, tick uint32) bool {
	if t.prolonged {
		return after(t.seen, tick, 60*m.refresh)
	}
	return after(t.seen, tick, m.ticks(service, templateState))
}

// templateState asks for the timeout of templates.
const templateState = conntrack.State(255)

// offered are the servers that the scheduler chooses from.
func (s *modelService) offered() (all []*modelServer) {
	for i := range s.members {
		if server := &s.members[i]; !server.removed && server.Weight > 0 {
			all = append(all, server)
		}
	}
	return all
}

// create makes the connection: to the template's server or one of those offered, whose
// reply key is free.
func (m *stateModel) create(p bpftest.Packet, key flowKey, index int, template netip.AddrPort, tick uint32, chosen choice) (outcome, error) {
	service := m.services[index]
	first := service.offered()
	if template.IsValid() {
		first = []*modelServer{service.member(template)}
	}
	isPersistent := service.Persistence.Timeout != 0
	isFree := func(s *modelServer) bool {
		if s.Method != realserver.NAT {
			return true
		}
		other, taken := m.replies[replyOf(key, s.at(key.to.Port()))]
		return !taken || m.isOver(m.flows[other], tick)
	}
	free := slices.ContainsFunc(append(slices.Clone(first), service.offered()...), isFree)
	network := networkOf(key.from.Addr())
	if !free {
		if isPersistent {
			// Its template is made before the connection, and stays.
			if t, ok := m.templates[network]; ok {
				t.controlled--
				m.templates[network] = t
			} else {
				m.templates[network] = modelTemplate{server: chosen.template, seen: tick}
			}
		}
		return dropped("reply-collision").with("collision-avoided?"), nil // another one that was tried is counted too
	}
	if !chosen.server.IsValid() {
		return outcome{}, fmt.Errorf("there is no connection, and a server may have it")
	}
	server := service.member(chosen.server)
	isFirst := slices.Contains(first, server)
	avoids := slices.ContainsFunc(first, func(s *modelServer) bool { return !isFree(s) })
	if server == nil || !isFree(server) || !isFirst && !(avoids && slices.Contains(service.offered(), server)) {
		return outcome{}, fmt.Errorf("it has server %s, which it may not have", chosen.server)
	}
	if template.IsValid() && !isFirst && slices.ContainsFunc(first, isFree) {
		return outcome{}, fmt.Errorf("it has server %s, its template %s", chosen.server, template)
	}
	direction := conntrack.Input
	if server.Method != realserver.NAT {
		direction = conntrack.InputOnly
	}
	f := modelFlow{service: index, server: server.at(key.to.Port()), method: server.Method, state: conntrack.UDPNormal, seen: tick, last: tick}
	f.proof.Wide = service.Key.IsWide() && f.method == realserver.NAT
	if p.Protocol == bpftest.TCP {
		f.state = conntrack.Next(direction, conntrack.EventOf(flagsOf(p.Flags)), conntrack.None)
	}
	if isPersistent {
		t, ok := m.templates[network]
		switch {
		case !ok:
			t = modelTemplate{server: chosen.template, seen: tick}
			if f.controlled = t.server == f.server; f.controlled {
				t.controlled = 1
			} else if !avoids {
				return outcome{}, fmt.Errorf("it has server %s, its new template %s", f.server, t.server)
			}
		case t.server == f.server:
			f.controlled = true
		default: // another server was taken: not under the template
			t.controlled--
		}
		m.templates[network] = t
	}
	if f.method == realserver.NAT {
		reply := replyOf(key, f.server)
		if other, taken := m.replies[reply]; taken {
			m.end(other)
		}
		m.replies[reply] = key
	}
	m.flows[key] = f
	o := m.sentOn(p, f)
	if avoids {
		o.events = "collision-avoided?"
	}
	return o, nil
}

// sweep removes what is over. What becomes of templates that have just lost their last
// connection, this sweep or the next one knows.
func (m *stateModel) sweep(tick uint32) {
	for key, f := range m.flows {
		if m.isOver(f, tick) {
			m.end(key)
		}
	}
}

// kill ends connections by the service's number, or of a client network.
func (m *stateModel) kill(service int, network netip.Addr, withResets bool, tick uint32) {
	for key, f := range m.flows {
		if service >= 0 && f.service != service || network.IsValid() && networkOf(key.from.Addr()) != network {
			continue
		}
		if !withResets || key.protocol != bpftest.TCP {
			m.end(key)
			continue
		}
		if f.killed {
			continue
		}
		f.state, f.killed, f.told, f.replyTold, f.seen, f.last = conntrack.Close, true, false, false, tick, tick
		m.flows[key] = f
	}
	if service < 0 || m.services[service].Persistence.Timeout != 0 {
		maps.DeleteFunc(m.templates, func(n netip.Addr, _ modelTemplate) bool { return !network.IsValid() || n == network })
	}
}

func (m *stateModel) age(ticks uint32) {
	for key, f := range m.flows {
		f.seen, f.last = f.seen-ticks, f.last-ticks
		m.flows[key] = f
	}
	for network, t := range m.templates {
		t.seen -= ticks
		m.templates[network] = t
	}
}

func passed(event string) outcome  { return outcome{action: bpftest.Pass, events: event} }
func dropped(event string) outcome { return outcome{action: bpftest.Drop, events: event} }

func (o outcome) with(event string) outcome {
	names := append(strings.Fields(o.events), event)
	slices.Sort(names)
	o.events = strings.Join(names, " ")
	return o
}

// flagsOf are the bits of the flags' letters.
func flagsOf(letters string) (flags uint8) {
	for i, letter := range "FSRPA" {
		if strings.ContainsRune(letters, letter) {
			flags |= 1 << i
		}
	}
	return flags
}
