package scheduler_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
	"github.com/shunt-lb/shunt/realserver"
)

// A server with thresholds beside a fallback of weight 1: the number of its
// connections at which it is closed and open again.
func TestThresholds(t *testing.T) {
	for name, tt := range map[string]struct {
		upper, lower uint32
		reopens      int64
	}{
		"three_quarters":         {8, 0, 5},
		"three_quarters_of_3":    {3, 0, 2},
		"lower":                  {8, 3, 2},
		"lower_as_high_as_upper": {4, 4, 3},
		"one":                    {1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := simulate(t, director.Service{Scheduler: director.Failover}, 1)
			s.AddServer(realserver.Server{Address: server(2), Weight: 2, Upper: tt.upper, Lower: tt.lower})
			for i := range int(tt.upper) {
				wantChoice(t, "scheduler 2", s.Open(numbered(i), vip4))
			}
			wantChoice(t, "scheduler 1", s.Open(numbered(1000), vip4))
			for i := range int(tt.upper) {
				// Closed ones block it until they are gone.
				s.Close(numbered(i), vip4)
			}
			wantChoice(t, "scheduler 1", s.Open(numbered(1001), vip4))
			for i := tt.upper; int64(i) > tt.reopens; i-- {
				if !load(s, 2).Overloaded {
					t.Fatalf("open again at %d, want %d", i, tt.reopens)
				}
				// A reset ends it at once, as far as TIME_WAIT's length goes.
				s.Packet(numbered(int(i)-1), vip4, conntrack.Rst)
				s.Advance(conntrack.DefaultTimeouts().Of(conntrack.Close))
			}
			if l := load(s, 2); l.Overloaded || l.Inactive != tt.reopens {
				t.Fatalf("%+v, want open at %d", l, tt.reopens)
			}
			wantChoice(t, "scheduler 2", s.Open(numbered(2000), vip4))
		})
	}
}

// Only an upper threshold that is raised or taken away opens a server at once;
// the next connection may close it again.
func TestThresholdEdits(t *testing.T) {
	for name, tt := range map[string]struct {
		edit       realserver.Server
		overloaded bool
	}{
		"raised":     {realserver.Server{Upper: 4}, false},
		"taken_away": {realserver.Server{}, false},
		"lowered":    {realserver.Server{Upper: 2}, true},
		"as_it_was":  {realserver.Server{Upper: 3, Lower: 1, Weight: 7}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := simulate(t, director.Service{}, 1)
			s.EditServer(realserver.Server{Address: server(1), Weight: 1, Upper: 3})
			for i := range 3 {
				s.Open(numbered(i), vip4)
			}
			wantChoice(t, "nothing no-server", s.Open(numbered(9), vip4))
			tt.edit.Address = server(1)
			s.EditServer(tt.edit)
			if got := load(s, 1).Overloaded; got != tt.overloaded {
				t.Errorf("overloaded: %t, want %t", got, tt.overloaded)
			}
		})
	}
}

// Under any events the counts are those of the connections there are, and every
// connection's packets go to its server.
func TestSimulationCounts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		service := director.Service{
			Scheduler: rapid.SampledFrom(scheduler.Names()).Draw(rt, "scheduler"),
			Rules: director.Rules{
				ExpireNoDestConn:        rapid.Bool().Draw(rt, "nodest"),
				ExpireQuiescentTemplate: rapid.Bool().Draw(rt, "quiescent"),
				ConnReuse:               director.ReuseMode(rapid.IntRange(0, 2).Draw(rt, "reuse")),
			},
		}
		if rapid.Bool().Draw(rt, "persistent") {
			service.Persistence = director.Persistence{Timeout: 90 * second, Prefix: 24}
		}
		s := simulate(rt, service, 1, 2)
		for range rapid.IntRange(1, 50).Draw(rt, "events") {
			i := rapid.IntRange(1, 4).Draw(rt, "server")
			client := numbered(rapid.IntRange(0, 5).Draw(rt, "client") * 100)
			switch rapid.SampledFrom([]string{"open", "open", "open", "establish", "close", "reset", "set", "remove", "time"}).Draw(rt, "event") {
			case "open":
				before := s.Servers()
				choice := s.Open(client, vip4)
				checkChoice(rt, before, choice, service)
			case "establish":
				s.Establish(client, vip4)
			case "close":
				s.Close(client, vip4)
			case "reset":
				s.Packet(client, vip4, conntrack.Rst)
			case "set":
				s.AddServer(realserver.Server{
					Address: server(i), Method: rapid.SampledFrom([]realserver.Method{realserver.NAT, realserver.DR}).Draw(rt, "method"),
					Weight: rapid.Uint32Range(0, 3).Draw(rt, "weight"), Upper: rapid.Uint32Range(0, 3).Draw(rt, "upper"),
					Lower: rapid.Uint32Range(0, 2).Draw(rt, "lower"), Draining: rapid.Bool().Draw(rt, "draining"),
				})
			case "remove":
				s.RemoveServer(server(i))
			case "time":
				s.Advance(rapid.SampledFrom(waits).Draw(rt, "wait"))
			}
			checkCounts(rt, s)
		}
		// All that is left ends, and the counts with it.
		s.Advance(100 * waits[len(waits)-1])
		for _, state := range s.Servers() {
			if l := state.Load; l.Active != 0 || l.Inactive != 0 || state.Templates != 0 || l.Overloaded {
				rt.Fatalf("after all: %+v", state)
			}
		}
	})
}

// checkChoice holds what is true of every choice of a server that is in the list.
func checkChoice(rt *rapid.T, before []scheduler.ServerState, choice scheduler.Choice, service director.Service) {
	for _, state := range before {
		if state.Server.Address != choice.Server {
			continue
		}
		switch {
		case choice.By == director.ByScheduler && (state.Server.Weight == 0 || state.Server.Draining):
			rt.Fatalf("scheduled to %+v", state.Server)
		case choice.By == director.ByScheduler && state.Load.Overloaded && service.Scheduler != director.LocalityLC:
			rt.Fatalf("scheduled to the overloaded %+v", state)
		case choice.By == director.ByTemplate && state.Server.Draining:
			rt.Fatalf("a template was followed to %+v", state.Server)
		}
	}
}

func checkCounts(rt *rapid.T, s *scheduler.Simulation) {
	for _, state := range s.Servers() {
		have := int64(len(s.Connections(state.Server.Address)))
		if l := state.Load; l.Active < 0 || l.Inactive < 0 || l.Active+l.Inactive != have || state.Templates < 0 {
			rt.Fatalf("%+v has %d connections", state, have)
		}
		if state.Server.Upper == 0 && state.Load.Overloaded {
			rt.Fatalf("%+v is overloaded", state)
		}
	}
}
