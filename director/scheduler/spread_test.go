package scheduler_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
	"github.com/shunt-lb/shunt/realserver"
)

func requests(n int) []scheduler.Request {
	all := make([]scheduler.Request, n)
	for i := range all {
		all[i] = scheduler.Request{Client: numbered(i), Virtual: vip4}
	}
	return all
}

func TestSpread(t *testing.T) {
	s := simulate(t, director.Service{}, 3, 1, 0)
	got := s.Run(requests(8), scheduler.HoldOpen)
	want := scheduler.Spread{
		Chosen: got.Chosen,
		Servers: []scheduler.Share{
			{Server: server(1), Weight: 3, Connections: 6, Expected: 6},
			{Server: server(2), Weight: 1, Connections: 2, Expected: 2},
			{Server: server(3)},
		},
		Uneven: 1,
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if len(got.Chosen) != 8 || got.Chosen[0] != server(2) {
		t.Errorf("chosen: %v", got.Chosen)
	}
	// Those that are held closed are inactive, and count all the same.
	closed := simulate(t, director.Service{}, 3, 1)
	closed.Run(requests(8), scheduler.HoldClosed)
	if diff := cmp.Diff(scheduler.Load{Inactive: 6}, load(closed, 1)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// ovf: 4 and 2 until all are full. The second gets 1/3 instead of 1/4.
	full := simulate(t, director.Service{Scheduler: director.Overflow}, 3, 1).Run(requests(8), scheduler.HoldOpen)
	if full.Refused != 2 || full.Servers[0].Expected != 4.5 || full.Uneven != 2/1.5 || full.Chosen[7].IsValid() {
		t.Errorf("ovf: %+v", full)
	}
	// Datagrams neither establish nor close anything.
	udp := director.ServiceKey{Protocol: conntrack.UDP, Address: vip4}
	datagrams := simulate(t, director.Service{Key: udp}, 1)
	datagrams.Run(requests(2), scheduler.HoldOpen)
	if diff := cmp.Diff(scheduler.Load{Inactive: 2}, load(datagrams, 1)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Weight 0 moves the server's clients and no other ones, with mh; without a
// fallback they are refused, which is no reason to stay either.
func TestMoved(t *testing.T) {
	for name, tt := range map[string]struct {
		scheduler director.Scheduler
		change    func(*scheduler.Simulation)
		moved     func(spread scheduler.Spread) scheduler.Moved
	}{
		"nothing": {director.Maglev, func(*scheduler.Simulation) {}, func(scheduler.Spread) scheduler.Moved { return scheduler.Moved{} }},
		"weight_0": {
			director.Maglev,
			func(s *scheduler.Simulation) { s.EditServer(realserver.Server{Address: server(1)}) },
			func(s scheduler.Spread) scheduler.Moved { return scheduler.Moved{HadTo: s.Servers[0].Connections} },
		},
		"fo_gets_a_greater_one": {
			director.Failover,
			func(s *scheduler.Simulation) { s.AddServer(realserver.Server{Address: server(3), Weight: 9}) },
			func(scheduler.Spread) scheduler.Moved { return scheduler.Moved{WithoutNeed: 500} },
		},
		"all_go_and_one_comes": {
			director.RoundRobin,
			func(s *scheduler.Simulation) {
				s.RemoveServer(server(1))
				s.RemoveServer(server(2))
				s.AddServer(realserver.Server{Address: server(3), Weight: 1})
			},
			func(scheduler.Spread) scheduler.Moved { return scheduler.Moved{HadTo: 500} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			service := director.Service{Scheduler: tt.scheduler}
			before := simulate(t, service, 1, 1).Run(requests(500), scheduler.HoldOpen)
			changed := simulate(t, service, 1, 1)
			tt.change(changed)
			moved := before.MovedTo(changed.Run(requests(500), scheduler.HoldOpen))
			if diff := cmp.Diff(tt.moved(before), moved); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	// Refused before, served after: not moved.
	refused := simulate(t, director.Service{}).Run(requests(5), scheduler.HoldOpen)
	served := simulate(t, director.Service{}, 1).Run(requests(5), scheduler.HoldOpen)
	if moved := refused.MovedTo(served); moved != (scheduler.Moved{}) || refused.Uneven != 0 || refused.Chosen[0] != (netip.AddrPort{}) {
		t.Errorf("moved: %+v, spread: %+v", moved, refused)
	}
}
