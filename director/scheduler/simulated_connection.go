package scheduler

import (
	"time"

	"github.com/shunt-lb/shunt/conntrack"
)

// simulatedConnection is one connection of a Simulation.
type simulatedConnection struct {
	key    Request
	serial int // in the order they were made
	server *simulatedServer
	under  *simulatedTemplate // nil: none
	state  conntrack.State
	active bool // as the server counts it
	oneWay bool // replies have not been seen and are not expected (IP_VS_CONN_F_NOOUTPUT)
	timer
}

// connect makes a connection in the state that no packet has moved yet.
func (s *Simulation) connect(key Request, server *simulatedServer, under *simulatedTemplate) *simulatedConnection {
	s.made++
	c := &simulatedConnection{
		key: key, serial: s.made, server: server, under: under, oneWay: !server.Method.Rewrites(),
	}
	c.expire = func() { s.remove(c) }
	s.bind(server, func(l *Load) { l.Inactive++ })
	if under != nil {
		under.controlled++
		s.timers.set(&under.timer, s.now.Add(under.timeout))
	}
	s.connections[key] = c
	return c
}

// move is what a packet does to a connection (kernel: ip_vs_proto_tcp.c,
// set_tcp_state; ip_vs_proto_udp.c, udp_state_transition).
func (s *Simulation) move(c *simulatedConnection, direction conntrack.Direction, event conntrack.Event) {
	if s.service.Key.Protocol == conntrack.UDP {
		c.state = conntrack.UDPNormal
	} else {
		switch {
		case direction == conntrack.Output:
			c.oneWay = false
		case c.oneWay:
			direction = conntrack.InputOnly
		}
		c.state = conntrack.Next(direction, event, c.state)
	}
	if active := c.state.Active(); active != c.active {
		c.active = active
		s.setLoad(c.server, func(l *Load) {
			if active {
				l.Active, l.Inactive = l.Active+1, l.Inactive-1
			} else {
				l.Active, l.Inactive = l.Active-1, l.Inactive+1
			}
		})
	}
	s.timers.set(&c.timer, s.now.Add(s.timeouts.Of(c.state)))
}

// remove ends a connection: its server and its template have one less.
func (s *Simulation) remove(c *simulatedConnection) {
	if s.connections[c.key] == c { // and not one that replaced it
		delete(s.connections, c.key)
	}
	s.timers.stop(&c.timer)
	if c.under != nil {
		c.under.controlled--
	}
	s.unbind(c.server, func(l *Load) {
		if c.active {
			l.Active--
		} else {
			l.Inactive--
		}
	})
}

// EndAll ends all connections at once. Templates stay, and so does what a scheduler
// remembers.
func (s *Simulation) EndAll() {
	for _, c := range s.connections {
		s.remove(c)
	}
}

// flush ends all connections and templates of a server that is gone (kernel:
// ip_vs_conn.c, ip_vs_expire_nodest_conn_flush).
func (s *Simulation) flush(server *simulatedServer) {
	for _, key := range s.Connections(server.address) {
		s.remove(s.connections[key])
	}
	for t := range server.templates {
		s.removeTemplate(t)
	}
}

// Advance lets time go by: what has been idle too long ends, and templates that
// still have connections are prolonged.
func (s *Simulation) Advance(d time.Duration) {
	until := s.now.Add(d)
	for {
		t := s.timers.due(until)
		if t == nil {
			break
		}
		s.now = t.at
		t.expire()
	}
	s.now = until
}
