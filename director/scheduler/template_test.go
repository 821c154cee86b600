package scheduler_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
	"github.com/shunt-lb/shunt/realserver"
)

const second = time.Second

// waits are times after which something of a simulation is over.
var waits = []time.Duration{10 * second, time.Minute, 90 * second, 3 * time.Minute, 16 * time.Minute}

// persistent is a service by rr whose templates live five minutes.
func persistent(t *testing.T, prefix uint8, rules director.Rules) *scheduler.Simulation {
	t.Helper()
	return simulate(t, director.Service{
		Scheduler: director.RoundRobin, Rules: rules,
		Persistence: director.Persistence{Timeout: 5 * time.Minute, Prefix: prefix},
	}, 1, 1)
}

func from(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
}

// A template is followed by the client's whole network.
func TestTemplateNetwork(t *testing.T) {
	s := persistent(t, 24, director.Rules{})
	wantChoice(t, "scheduler 2", s.Open(from("198.51.100.1", 1), vip4))
	wantChoice(t, "template 2", s.Open(from("198.51.100.200", 1), vip4))
	wantChoice(t, "scheduler 1", s.Open(from("198.51.101.1", 1), vip4))
	everyone := persistent(t, 0, director.Rules{})
	wantChoice(t, "scheduler 2", everyone.Open(from("198.51.100.1", 1), vip4))
	wantChoice(t, "template 2", everyone.Open(from("203.0.113.1", 1), vip4))
	if n := everyone.Servers()[0].Templates; n != 1 {
		t.Errorf("%d templates, want 1", n)
	}
}

// A template lives its time after the last new connection; as long as it has one
// it gets another minute, and then new connections give it no more either.
func TestTemplateTimeout(t *testing.T) {
	t.Run("after_the_last_new_connection", func(t *testing.T) {
		s := persistent(t, 32, director.Rules{})
		s.Open(from("198.51.100.1", 1), vip4) // SYN_RECV: a minute
		s.Advance(4 * time.Minute)
		wantChoice(t, "template 2", s.Open(from("198.51.100.1", 2), vip4))
		s.Advance(5*time.Minute - second)
		wantChoice(t, "template 2", s.Open(from("198.51.100.1", 3), vip4))
		s.Advance(5 * time.Minute)
		wantChoice(t, "scheduler 1", s.Open(from("198.51.100.1", 4), vip4))
	})
	t.Run("prolonged_by_a_minute", func(t *testing.T) {
		s := persistent(t, 32, director.Rules{})
		s.Open(from("198.51.100.1", 1), vip4)
		s.Establish(from("198.51.100.1", 1), vip4) // 15 minutes
		s.Advance(14*time.Minute + 30*second)
		wantChoice(t, "template 2", s.Open(from("198.51.100.1", 2), vip4)) // until 15:30, as its connection: one more minute
		s.Advance(2*time.Minute + second)
		wantChoice(t, "scheduler 1", s.Open(from("198.51.100.1", 3), vip4))
	})
}

// Weight 0 and overload do not end persistence, but by the rule; a drain does.
func TestTemplateFollowed(t *testing.T) {
	for name, tt := range map[string]struct {
		rules  director.Rules
		server realserver.Server
		want   string
	}{
		"weight_0":         {want: "template 2"},
		"weight_0_by_rule": {rules: director.Rules{ExpireQuiescentTemplate: true}, want: "scheduler 1"},
		"draining":         {server: realserver.Server{Weight: 1, Draining: true}, want: "scheduler 1"},
		"overloaded":       {server: realserver.Server{Weight: 1, Upper: 1}, want: "template 2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := persistent(t, 32, tt.rules)
			wantChoice(t, "scheduler 2", s.Open(from("198.51.100.1", 1), vip4))
			tt.server.Address = server(2)
			s.EditServer(tt.server)
			wantChoice(t, tt.want, s.Open(from("198.51.100.1", 2), vip4))
			// And from then on to the same one.
			again := s.Open(from("198.51.100.1", 3), vip4)
			if again.By != director.ByTemplate || text(again)[len("template "):] != tt.want[len(tt.want)-1:] {
				t.Errorf("then %s, after %s", text(again), tt.want)
			}
		})
	}
}

// A template of a removed server is not followed; one nobody tried meanwhile is
// good again when the server is back.
func TestTemplateOfRemovedServer(t *testing.T) {
	s := persistent(t, 32, director.Rules{})
	wantChoice(t, "scheduler 2", s.Open(from("198.51.100.1", 1), vip4))
	wantChoice(t, "scheduler 1", s.Open(from("198.51.100.2", 1), vip4))
	wantChoice(t, "scheduler 2", s.Open(from("198.51.100.3", 1), vip4))
	s.RemoveServer(server(2))
	wantChoice(t, "scheduler 1", s.Open(from("198.51.100.1", 2), vip4))
	s.AddServer(realserver.Server{Address: server(2), Weight: 1})
	wantChoice(t, "template 1", s.Open(from("198.51.100.1", 3), vip4))
	wantChoice(t, "template 2", s.Open(from("198.51.100.3", 2), vip4))
	s.SetRules(director.Rules{ExpireNoDestConn: true})
	s.RemoveServer(server(2))
	s.AddServer(realserver.Server{Address: server(2), Weight: 1})
	if got := s.Servers()[0]; got.Templates != 0 || got.Load != (scheduler.Load{}) {
		t.Errorf("by the rule it is back with %+v, want nothing", got)
	}
}

// Connections under a template are not replaced in TIME_WAIT: they are the
// template's to place.
func TestTemplateKeepsClosedConnections(t *testing.T) {
	s := persistent(t, 32, director.Rules{})
	wantChoice(t, "scheduler 2", s.Open(from("198.51.100.1", 1), vip4))
	s.Establish(from("198.51.100.1", 1), vip4)
	s.Close(from("198.51.100.1", 1), vip4)
	wantChoice(t, "connection 2", s.Open(from("198.51.100.1", 1), vip4))
}
