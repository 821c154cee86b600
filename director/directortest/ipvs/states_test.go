package ipvs_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
	"github.com/shunt-lb/shunt/realserver"
)

// step is a segment of a connection, from one of its ends.
type step struct {
	fromServer bool
	flags      string
}

func (s step) String() string {
	if s.fromServer {
		return "<" + s.flags
	}
	return ">" + s.flags
}

// segments are what a step may be: each event by itself, and flags together,
// where the kernel must look at the first of RST, SYN, FIN, ACK.
var segments = []string{"S", "F", "A", "R", "P", "SA", "SF", "FA", "RA", "RS"}

// scene is a service of one server, and how its connections are watched.
type scene struct {
	*ipvs.Kernel
	t       testing.TB
	service ipvs.Service
	server  realserver.Server
	port    uint16 // the next client's
}

func newScene(t *testing.T, protocol conntrack.Protocol, method realserver.Method) *scene {
	s := &scene{Kernel: ipvs.New(t), t: t, port: 1024}
	s.service = ipvs.Service{Protocol: protocol, Address: netip.MustParseAddrPort("192.0.2.1:80"), Scheduler: director.RoundRobin}
	s.server = realserver.Server{Address: netip.MustParseAddrPort("10.0.2.11:80"), Method: method, Weight: 1}
	s.AddService(s.service)
	s.AddServer(s.service, s.server)
	s.Set("sloppy_tcp", 1)         // so that a connection may begin with any segment
	s.Set("conn_reuse_mode", 0)    // so that a SYN moves the old connection
	s.Set("expire_nodest_conn", 0) // a server's weight stays as it is
	return s
}

func (s *scene) client() netip.AddrPort {
	s.port++
	return netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), s.port)
}

// send puts a segment on the wire.
func (s *scene) send(client netip.AddrPort, step step) {
	p := bpftest.Packet{From: client, To: s.service.Address, Flags: step.flags, Protocol: uint8(s.service.Protocol)}
	if step.fromServer {
		p.From, p.To = s.server.Address, client
	}
	s.Send(p)
}

// observed is what the kernel says of one connection.
type observed struct {
	State   string
	Timeout time.Duration // it began to run with the last packet
	Active  bool
}

// observe reads the client's connection; sent is before its last packet was.
func (s *scene) observe(client netip.AddrPort, timeout time.Duration, sent time.Time) observed {
	s.t.Helper()
	all := s.Connections()
	i := slices.IndexFunc(all, func(c kernel.Connection) bool { return c.Client == client })
	if i < 0 {
		return observed{State: "no connection"}
	}
	// The rest of the time is cut to seconds, and some of it may be over.
	o := observed{State: all[i].State, Timeout: all[i].Expires}
	if over := timeout - o.Timeout; over >= 0 && over <= time.Since(sent)+time.Second {
		o.Timeout = timeout
	}
	count := s.Counts(s.service)[0]
	o.Active = count.Active == 1
	if count.Active+count.Inactive != 1 {
		s.t.Fatalf("%d active and %d inactive connections, want one in all", count.Active, count.Inactive)
	}
	return o
}

// move is the model: the state after a segment. A connection whose method is not
// nat is followed by what the client sends alone, whatever passes of its server.
func move(method realserver.Method, state conntrack.State, s step) conntrack.State {
	direction := conntrack.Input
	switch {
	case s.fromServer && method != realserver.NAT:
		return state
	case s.fromServer:
		direction = conntrack.Output
	case method != realserver.NAT:
		direction = conntrack.InputOnly
	}
	return conntrack.Next(direction, conntrack.EventOf(flagsOf(s.flags)), state)
}

func flagsOf(letters string) (flags uint8) {
	for _, letter := range letters {
		flags |= map[rune]uint8{'F': 1, 'S': 2, 'R': 4, 'P': 8, 'A': 16}[letter]
	}
	return flags
}

// paths returns the shortest way into every state that segments lead to.
func paths(method realserver.Method, steps []step) map[conntrack.State][]step {
	found := map[conntrack.State][]step{}
	var queue []conntrack.State
	for _, s := range steps {
		// The first is the client's and no reset: else there is no connection.
		if state := move(method, conntrack.None, s); !s.fromServer && flagsOf(s.flags)&4 == 0 && found[state] == nil {
			found[state] = []step{s}
			queue = append(queue, state)
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		for _, s := range steps {
			if state := move(method, queue[0], s); found[state] == nil {
				found[state] = append(slices.Clone(found[queue[0]]), s)
				queue = append(queue, state)
			}
		}
	}
	return found
}

// TestTCPTransitions compares conntrack's tables with the kernel's: every segment
// in every state that segments lead to. The other states stand in the kernel's
// table and no packet can bring a connection there: LISTEN and SYNACK of every
// connection, SYN_SENT and CLOSE_WAIT where the server is not heard.
func TestTCPTransitions(t *testing.T) {
	ipvs.Guest(t)
	timeouts := conntrack.DefaultTimeouts()
	for method, c := range map[realserver.Method]struct {
		ends   []bool // from the server
		states []conntrack.State
	}{
		realserver.NAT: {
			ends: []bool{false, true},
			states: []conntrack.State{
				conntrack.Established, conntrack.SynSent, conntrack.SynRecv, conntrack.FinWait,
				conntrack.TimeWait, conntrack.Close, conntrack.CloseWait, conntrack.LastAck,
			},
		},
		realserver.DR: {
			ends: []bool{false},
			states: []conntrack.State{
				conntrack.Established, conntrack.SynRecv, conntrack.FinWait, conntrack.TimeWait, conntrack.Close,
			},
		},
	} {
		var steps []step
		for _, fromServer := range c.ends {
			for _, flags := range segments {
				steps = append(steps, step{fromServer, flags})
			}
		}
		ways := paths(method, steps)
		var reached []conntrack.State
		for state := range ways {
			reached = append(reached, state)
		}
		slices.Sort(reached)
		// LAST_ACK is in the table as old state only.
		want := slices.DeleteFunc(c.states, func(s conntrack.State) bool { return ways[s] == nil && s == conntrack.LastAck })
		if diff := cmp.Diff(want, reached); diff != "" {
			t.Errorf("%s: states that are compared (-want +got):\n%s", method, diff)
		}
		for _, state := range reached {
			for _, last := range append([]step{{}}, steps...) {
				way := slices.Clone(ways[state])
				if last.flags != "" {
					way = append(way, last)
				}
				t.Run(fmt.Sprintf("%s/%s/%s", method, state, way), func(t *testing.T) {
					compare(newScene(t, conntrack.TCP, method), way, timeouts)
				})
			}
		}
	}
}

// compare sends the segments and looks at the connection after each.
func compare(s *scene, way []step, timeouts conntrack.Timeouts) {
	s.t.Helper()
	client, state := s.client(), conntrack.None
	for i, step := range way {
		state = move(s.server.Method, state, step)
		sent := time.Now()
		s.send(client, step)
		want := observed{State: state.String(), Timeout: timeouts.Of(state), Active: state.Active()}
		if diff := cmp.Diff(want, s.observe(client, want.Timeout, sent)); diff != "" {
			s.t.Errorf("after %v (-conntrack +kernel):\n%s", way[:i+1], diff)
		}
	}
}

// TestPassingServer: what passes of a server whose method is not nat moves
// nothing, and the client's segments go on by the table for them alone.
func TestPassingServer(t *testing.T) {
	s := newScene(t, conntrack.TCP, realserver.DR)
	client := s.client()
	for _, c := range []struct {
		step
		want conntrack.State
	}{
		{step{false, "S"}, conntrack.SynRecv},
		{step{true, "R"}, conntrack.SynRecv},
		{step{false, "A"}, conntrack.Established},
		{step{true, "F"}, conntrack.Established},
		{step{false, "F"}, conntrack.FinWait},
	} {
		s.send(client, c.step)
		if got := s.observe(client, 0, time.Now()).State; got != c.want.String() {
			t.Errorf("after %s: %s, want %s", c.step, got, c.want)
		}
	}
}

// TestUDP: one state, in which packets of either end renew the timeout.
func TestUDP(t *testing.T) {
	for _, method := range []realserver.Method{realserver.NAT, realserver.DR} {
		t.Run(method.String(), func(t *testing.T) {
			s := newScene(t, conntrack.UDP, method)
			client := s.client()
			for _, step := range []step{{}, {fromServer: true}, {}} {
				if step.fromServer && method != realserver.NAT {
					continue
				}
				sent := time.Now()
				s.send(client, step)
				want := observed{State: conntrack.UDPNormal.String(), Timeout: conntrack.DefaultTimeouts().Of(conntrack.UDPNormal)}
				if diff := cmp.Diff(want, s.observe(client, want.Timeout, sent)); diff != "" {
					t.Errorf("from server %v (-conntrack +kernel):\n%s", step.fromServer, diff)
				}
			}
		})
	}
}

// TestSettableTimeouts: --set changes the times of ESTABLISHED, FIN_WAIT and UDP,
// and of no other state.
func TestSettableTimeouts(t *testing.T) {
	timeouts := conntrack.Timeouts{TCP: 100 * time.Second, TCPFin: 40 * time.Second, UDP: 70 * time.Second}
	s := newScene(t, conntrack.TCP, realserver.NAT)
	s.SetTimeouts(timeouts)
	compare(s, []step{{false, "S"}, {true, "SA"}, {false, "A"}, {true, "F"}, {false, "F"}, {true, "A"}}, timeouts)

	u := newScene(t, conntrack.UDP, realserver.NAT)
	u.SetTimeouts(timeouts)
	client, sent := u.client(), time.Now()
	u.send(client, step{})
	want := observed{State: "UDP", Timeout: timeouts.UDP}
	if diff := cmp.Diff(want, u.observe(client, want.Timeout, sent)); diff != "" {
		t.Errorf("udp (-set +kernel):\n%s", diff)
	}
}
