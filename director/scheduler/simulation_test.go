package scheduler_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
	"github.com/shunt-lb/shunt/realserver"
)

// fataler is a test, or a run of one under rapid.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

// simulate returns a service with servers as entries makes them, reached by NAT.
// What is not said is TCP, wlc and vip4.
func simulate(t fataler, service director.Service, weights ...uint32) *scheduler.Simulation {
	t.Helper()
	if !service.Key.Address.IsValid() {
		service.Key.Address = vip4
	}
	if service.Key.Protocol == 0 {
		service.Key.Protocol = conntrack.TCP
	}
	if service.Scheduler == "" {
		service.Scheduler = director.WeightedLeastConnection
	}
	for i := len(weights) - 1; i >= 0; i-- {
		e := entries(weights...)[i]
		service.Servers = append(service.Servers, realserver.Server{Address: e.Address, Weight: e.Weight})
	}
	s, err := scheduler.NewSimulation(service, scheduler.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// numbered is client number i, of a network of its own.
func numbered(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)}), 40000)
}

// server is the address of the server that entries numbers i.
func server(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
}

// text is a choice in a word or two: "scheduler 2" or "nothing no-server".
func text(c scheduler.Choice) string {
	if !c.Server.IsValid() {
		return fmt.Sprint(c.By, " ", c.Event)
	}
	return fmt.Sprint(c.By, " ", c.Server.Addr().AsSlice()[3])
}

func wantChoice(t *testing.T, want string, got scheduler.Choice) {
	t.Helper()
	if text(got) != want {
		t.Errorf("chose %s, want %s", text(got), want)
	}
}

// load is a server's, by its number.
func load(s *scheduler.Simulation, i int) scheduler.Load {
	for _, state := range s.Servers() {
		if state.Server.Address == server(i) {
			return state.Load
		}
	}
	return scheduler.Load{Active: -1}
}

func TestSimulationRefuses(t *testing.T) {
	_, err := scheduler.NewSimulation(director.Service{Scheduler: "sip"}, scheduler.Options{})
	if !errors.Is(err, director.ErrInvalid) {
		t.Errorf("%v, want invalid", err)
	}
}

// A connection's life in its server's counts.
func TestSimulationStates(t *testing.T) {
	s := simulate(t, director.Service{}, 1)
	step := func(what string, active, inactive int64) {
		t.Helper()
		if diff := cmp.Diff(scheduler.Load{Active: active, Inactive: inactive}, load(s, 1)); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", what, diff)
		}
	}
	wantChoice(t, "scheduler 1", s.Open(numbered(1), vip4))
	step("SYN", 1, 0)
	wantChoice(t, "connection 1", s.Open(numbered(1), vip4))
	step("the SYN again", 1, 0)
	s.Establish(numbered(1), vip4)
	step("the handshake", 1, 0)
	s.Advance(15*time.Minute - time.Second)
	wantChoice(t, "connection 1", s.Packet(numbered(1), vip4, conntrack.Ack))
	s.Advance(14 * time.Minute)
	step("14 minutes of silence", 1, 0)
	s.Close(numbered(1), vip4)
	step("the FINs", 0, 1)
	s.Advance(2*time.Minute - time.Second)
	step("most of TIME_WAIT", 0, 1)
	s.Advance(time.Second)
	step("TIME_WAIT", 0, 0)
	wantChoice(t, "nothing midstream", s.Packet(numbered(1), vip4, conntrack.Ack))
}

// A client's first segment that meets an old connection, by the rules.
func TestSimulationReuse(t *testing.T) {
	nodest := director.Rules{ExpireNoDestConn: true}
	for name, tt := range map[string]struct {
		rules  director.Rules
		method realserver.Method
		close  bool
		drain  bool   // the server that has it
		weight uint32 // of that server
		want   string
	}{
		"established":                     {want: "connection 1", weight: 1},
		"closed":                          {close: true, want: "scheduler 2", weight: 1},
		"closed_but_never":                {close: true, rules: director.Rules{ConnReuse: director.ReuseNever}, want: "connection 1", weight: 1},
		"fin_wait_of_dr":                  {method: realserver.DR, close: true, want: "connection 1", weight: 1},
		"fin_wait_of_dr_by_rule":          {method: realserver.DR, close: true, rules: director.Rules{ConnReuse: director.ReuseFinWait}, want: "scheduler 2", weight: 1},
		"quiescent":                       {want: "connection 1"},
		"quiescent_by_rule":               {rules: nodest, want: "scheduler 2"},
		"quiescent_by_rule_but_never":     {rules: director.Rules{ExpireNoDestConn: true, ConnReuse: director.ReuseNever}, want: "scheduler 2"},
		"not_quiescent_for_all_the_rules": {rules: nodest, want: "connection 1", weight: 1},
		"draining":                        {drain: true, want: "scheduler 2", weight: 1},
		"draining_and_closed_but_never":   {drain: true, close: true, rules: director.Rules{ConnReuse: director.ReuseNever}, want: "scheduler 2", weight: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := simulate(t, director.Service{Rules: tt.rules, Scheduler: director.RoundRobin})
			s.AddServer(realserver.Server{Address: server(2), Weight: 1})
			s.AddServer(realserver.Server{Address: server(1), Weight: 1, Method: tt.method})
			wantChoice(t, "scheduler 1", s.Open(numbered(1), vip4))
			s.Establish(numbered(1), vip4)
			if tt.close {
				s.Close(numbered(1), vip4)
			}
			s.EditServer(realserver.Server{Address: server(1), Weight: tt.weight, Method: tt.method, Draining: tt.drain})
			wantChoice(t, tt.want, s.Open(numbered(1), vip4))
			total := load(s, 1).Active + load(s, 1).Inactive + load(s, 2).Active + load(s, 2).Inactive
			if total != 1 {
				t.Errorf("%d connections, want 1", total)
			}
		})
	}
}

// A server that is removed keeps its connections; they are dropped until it is
// back, with all its counts, unless the rule ends them.
func TestSimulationRemovedServer(t *testing.T) {
	s := simulate(t, director.Service{}, 1, 1)
	wantChoice(t, "scheduler 2", s.Open(numbered(1), vip4))
	wantChoice(t, "scheduler 1", s.Open(numbered(2), vip4))
	s.RemoveServer(server(2))
	wantChoice(t, "nothing server-removed", s.Packet(numbered(1), vip4, conntrack.Ack))
	s.AddServer(realserver.Server{Address: server(2), Weight: 1})
	wantChoice(t, "connection 2", s.Packet(numbered(1), vip4, conntrack.Ack))
	if got := load(s, 2); got.Active != 1 {
		t.Errorf("it has %+v, want its connection", got)
	}
	s.SetRules(director.Rules{ExpireNoDestConn: true})
	s.RemoveServer(server(2))
	wantChoice(t, "nothing midstream", s.Packet(numbered(1), vip4, conntrack.Ack))
	s.AddServer(realserver.Server{Address: server(2), Weight: 1})
	if got := load(s, 2); got != (scheduler.Load{}) {
		t.Errorf("by the rule it has %+v, want nothing", got)
	}
}

// Removed first, the rule set later: the packet itself ends the connection.
func TestSimulationExpiresNoDestByPacket(t *testing.T) {
	s := simulate(t, director.Service{}, 1, 1)
	s.Open(numbered(1), vip4)
	s.RemoveServer(server(2))
	s.SetRules(director.Rules{ExpireNoDestConn: true})
	wantChoice(t, "scheduler 1", s.Open(numbered(1), vip4))
	s.AddServer(realserver.Server{Address: server(2), Weight: 1})
	if got := load(s, 2); got != (scheduler.Load{}) {
		t.Errorf("it has %+v, want nothing", got)
	}
}

// What is not scheduled.
func TestSimulationGate(t *testing.T) {
	s := simulate(t, director.Service{}, 1)
	wantChoice(t, "nothing midstream", s.Packet(numbered(1), vip4, conntrack.Ack))
	wantChoice(t, "nothing ftp-data", s.Open(netip.AddrPortFrom(numbered(1).Addr(), 20), vip4))
	s.SetRules(director.Rules{SloppyTCP: true})
	wantChoice(t, "nothing midstream", s.Packet(numbered(1), vip4, conntrack.Rst))
	wantChoice(t, "scheduler 1", s.Packet(numbered(1), vip4, conntrack.Ack))
	s.EditServer(realserver.Server{Address: server(1)})
	wantChoice(t, "nothing no-server", s.Open(numbered(2), vip4))
}

// One packet at a time leaves no connection and no count, but the thresholds see
// it.
func TestSimulationOnePacket(t *testing.T) {
	udp := director.ServiceKey{Protocol: conntrack.UDP, Address: vip4}
	s := simulate(t, director.Service{Key: udp, OnePacket: true, Scheduler: director.RoundRobin}, 1, 1)
	for i, want := range []string{"scheduler 2", "scheduler 1", "scheduler 2", "scheduler 1"} {
		wantChoice(t, want, s.Open(numbered(1), vip4))
		if got := load(s, 1+i%2); got != (scheduler.Load{}) {
			t.Errorf("after packet %d: %+v", i, got)
		}
	}
	s.EditServer(realserver.Server{Address: server(2), Weight: 1, Upper: 1, Lower: 1})
	for _, want := range []string{"scheduler 2", "scheduler 1", "scheduler 2"} {
		wantChoice(t, want, s.Open(numbered(1), vip4))
	}
	whole := simulate(t, director.Service{Key: udp, Scheduler: director.RoundRobin}, 1, 1)
	for _, want := range []string{"scheduler 2", "connection 2"} {
		wantChoice(t, want, whole.Open(numbered(1), vip4))
	}
	if got := load(whole, 2); got != (scheduler.Load{Inactive: 1}) {
		t.Errorf("a datagram counts as %+v, want inactive", got)
	}
}

// Connections end all at once, templates do not.
func TestSimulationEndAll(t *testing.T) {
	s := persistent(t, 32, director.Rules{})
	wantChoice(t, "scheduler 2", s.Open(numbered(1), vip4))
	s.Open(numbered(2), vip4)
	s.EndAll()
	for _, state := range s.Servers() {
		if state.Load != (scheduler.Load{}) || state.Templates != 1 {
			t.Errorf("%+v, want one template and no connection", state)
		}
	}
	wantChoice(t, "template 2", s.Open(numbered(1), vip4))
}
