package scheduler

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Simulation is one service as the kernel's IPVS runs it, without packets: a
// scheduler with connections in their states, persistence templates, thresholds
// and servers that come, go and come back. The same events in the same order give
// the same choices. Not safe for concurrent use.
//
// It knows no limits of memory, and no servers without a next hop: those are to
// be given weight 0, as the data plane offers them.
type Simulation struct {
	model       Model
	service     director.Service // without servers
	timeouts    conntrack.Timeouts
	now         time.Time
	servers     []*simulatedServer // in the kernel's order: last added first
	gone        map[netip.AddrPort]*simulatedServer
	loads       Loads // of all of them
	connections map[Request]*simulatedConnection
	templates   map[netip.Prefix]*simulatedTemplate
	timers      timers
	made        int // connections so far
}

// Choice is what becomes of a client's packet.
type Choice struct {
	By     director.DecisionBy
	Server netip.AddrPort // not valid if there is none
	// Event says why there is no server, in the words of the drops: no-server,
	// server-removed, midstream or ftp-data.
	Event string
}

// The events of choices without a server.
const (
	NoServer      = "no-server"
	serverRemoved = "server-removed"
	midstream     = "midstream"
	fromFTPData   = "ftp-data"
)

// ftpData is the port that no client connects from (kernel: ip_vs_core.c,
// ip_vs_schedule, FTPDATA).
const ftpData = 20

// NewSimulation returns the service with its servers, at the zero time. What
// is said of the service's scheduler and flags holds; those in options do not.
// A nil Now is the simulation's own clock.
func NewSimulation(service director.Service, options Options) (*Simulation, error) {
	s := &Simulation{
		service:     service,
		timeouts:    conntrack.DefaultTimeouts().Merge(service.Timeouts),
		gone:        make(map[netip.AddrPort]*simulatedServer),
		loads:       make(Loads),
		connections: make(map[Request]*simulatedConnection),
		templates:   make(map[netip.Prefix]*simulatedTemplate),
	}
	options.Flags = service.Flags
	if options.Now == nil {
		options.Now = func() time.Time { return s.now }
	}
	var err error
	if s.model, err = New(service.Scheduler, options); err != nil {
		return nil, fmt.Errorf("simulate %s: %w", service.Key, err)
	}
	s.service.Servers = nil
	for _, server := range service.Servers {
		s.AddServer(server)
	}
	return s, nil
}

// SetRules sets what the kernel has as sysctls, from now on.
func (s *Simulation) SetRules(rules director.Rules) { s.service.Rules = rules }

// Open is a client's first packet: a SYN or a datagram.
func (s *Simulation) Open(client, virtual netip.AddrPort) Choice {
	return s.Packet(client, virtual, conntrack.Syn)
}

// Packet is a packet from the client; the event is TCP's alone.
func (s *Simulation) Packet(client, virtual netip.AddrPort, event conntrack.Event) Choice {
	key := Request{client, virtual}
	c := s.connections[key]
	var replaced *simulatedConnection
	if c != nil && s.isFirst(event) && s.isReplaced(c) {
		replaced, c = c, nil
	}
	if c != nil && !c.server.available {
		if !s.service.Rules.ExpireNoDestConn {
			return Choice{By: director.ByNothing, Event: serverRemoved}
		}
		replaced, c = c, nil
	}
	choice := Choice{By: director.ByConnection}
	if c == nil {
		choice, c = s.schedule(key, event)
	} else {
		choice.Server = c.server.address
	}
	if replaced != nil {
		// The kernel does it a moment later: the scheduler still counted it.
		s.remove(replaced)
	}
	if c != nil {
		s.move(c, conntrack.Input, event)
	}
	return choice
}

// Reply is a packet from a connection's server to the client, as the director
// sees it where replies pass it; one of no connection is ignored.
func (s *Simulation) Reply(client, virtual netip.AddrPort, event conntrack.Event) {
	if c := s.connections[Request{client, virtual}]; c != nil {
		s.move(c, conntrack.Output, event)
	}
}

// Establish completes a TCP connection's handshake.
func (s *Simulation) Establish(client, virtual netip.AddrPort) {
	s.exchange(client, virtual, func(reply, packet func(conntrack.Event)) {
		reply(conntrack.Syn)
		packet(conntrack.Ack)
	})
}

// Close ends a TCP connection in order, the client first: it becomes inactive.
func (s *Simulation) Close(client, virtual netip.AddrPort) {
	s.exchange(client, virtual, func(reply, packet func(conntrack.Event)) {
		packet(conntrack.Fin)
		reply(conntrack.Fin)
		packet(conntrack.Ack)
	})
}

// exchange moves a connection by packets of both sides; replies of a server that
// answers clients by itself are not seen.
func (s *Simulation) exchange(client, virtual netip.AddrPort, segments func(reply, packet func(conntrack.Event))) {
	c := s.connections[Request{client, virtual}]
	if c == nil || s.service.Key.Protocol != conntrack.TCP {
		return
	}
	segments(func(e conntrack.Event) {
		if !c.oneWay {
			s.move(c, conntrack.Output, e)
		}
	}, func(e conntrack.Event) { s.move(c, conntrack.Input, e) })
}

// Connections returns a server's connections, in the order they were made.
func (s *Simulation) Connections(server netip.AddrPort) []Request {
	var found []*simulatedConnection
	for _, c := range s.connections {
		if c.server.address == server {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b *simulatedConnection) int { return a.serial - b.serial })
	keys := make([]Request, len(found))
	for i, c := range found {
		keys[i] = c.key
	}
	return keys
}

// schedule finds a server for a client without a connection and makes one, unless
// the service has one packet at a time.
func (s *Simulation) schedule(key Request, event conntrack.Event) (Choice, *simulatedConnection) {
	none := Choice{By: director.ByNothing}
	tcp := s.service.Key.Protocol == conntrack.TCP
	switch {
	case tcp && event == conntrack.Rst, tcp && event != conntrack.Syn && !s.service.Rules.SloppyTCP:
		none.Event = midstream
		return none, nil
	case key.Client.Port() == ftpData:
		none.Event = fromFTPData
		return none, nil
	}
	choice := Choice{By: director.ByScheduler}
	var template *simulatedTemplate
	var server *simulatedServer
	if s.service.Persistence.Timeout != 0 {
		template = s.usableTemplate(key.Client.Addr())
	}
	if template != nil {
		choice.By, server = director.ByTemplate, template.server
	} else {
		address, ok := s.model.Pick(key.Client, key.Virtual, s.loads)
		if !ok {
			none.Event = NoServer
			return none, nil
		}
		server = s.serverAt(address)
		if s.service.Persistence.Timeout != 0 {
			template = s.addTemplate(key.Client.Addr(), server)
		}
	}
	choice.Server = server.address
	c := s.connect(key, server, template)
	if s.service.OnePacket && !tcp {
		s.remove(c)
		return choice, nil
	}
	return choice, c
}

// isFirst reports whether the packet begins a connection (kernel: ip_vs_core.c,
// is_new_conn). Every datagram may, but none of UDP's connections is replaced.
func (s *Simulation) isFirst(event conntrack.Event) bool {
	return s.service.Key.Protocol == conntrack.TCP && event == conntrack.Syn
}

// isReplaced reports whether a first packet that meets the connection makes
// another one of it (kernel: ip_vs_core.c, ip_vs_in and is_new_conn_expected). A
// draining server has the strict rule, whatever the service has.
func (s *Simulation) isReplaced(c *simulatedConnection) bool {
	rules := s.service.Rules
	switch {
	case c.server.Draining, rules.ExpireNoDestConn && c.server.Weight == 0:
		return true
	case rules.ConnReuse == director.ReuseNever, c.under != nil:
		return false
	case c.state == conntrack.TimeWait, c.state == conntrack.Close:
		return true
	default:
		return rules.ConnReuse == director.ReuseFinWait && c.state == conntrack.FinWait && c.oneWay
	}
}

// ServerState is what a simulated server has.
type ServerState struct {
	Server    realserver.Server
	Load      Load
	Templates int64
}

// Servers returns the servers in the kernel's order, last added first.
func (s *Simulation) Servers() []ServerState {
	states := make([]ServerState, len(s.servers))
	for i, server := range s.servers {
		states[i] = ServerState{server.Server, s.loads[server.address], int64(len(server.templates))}
	}
	return states
}
