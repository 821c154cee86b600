package director_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// hasLeft says what the first server has left.
func (r *rig) hasLeft(active, inactive, udp, templates uint64) {
	service := director.ServiceStats{Key: web().Key}
	for _, s := range web().Servers {
		stats := director.ServerStats{Server: s}
		if s.Address == first {
			stats.Active, stats.Inactive, stats.UDP, stats.Templates = active, inactive, udp, templates
		}
		service.Servers = append(service.Servers, stats)
	}
	r.fake.SetStats(director.Stats{Services: []director.ServiceStats{service}})
}

func (r *rig) connections(n int) {
	var all []conntrack.Connection
	for i := range n {
		client := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(1000+i))
		all = append(all, conntrack.Connection{Protocol: conntrack.TCP, Client: client, Server: first, Virtual: web().Key.Address})
	}
	r.fake.SetConnections(all...)
}

// drainNews returns the events of drains, without what all their messages begin with.
func (r *rig) drainNews() []string {
	var all []string
	for _, line := range r.news() {
		if name, text, ok := strings.Cut(line, ": drain of server "); ok {
			_, text, _ = strings.Cut(text, " of tcp://192.0.2.1:80: ")
			all = append(all, name+": "+text)
		}
	}
	return all
}

// following runs the drains' follower during a bubble's test.
func following(t *testing.T, r *rig) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // the one result
	go func() { done <- r.RunDrains(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestDrainTellsItsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, web())
		defer following(t, r)()
		r.hasLeft(5, 3, 1, 2)
		deadline := time.Now().Add(time.Minute)
		if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: web().Key, Server: first, Deadline: deadline}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		want(t, "begin", []string{"drain-started: begun: 8 connections left, due at " + deadline.UTC().Truncate(time.Second).Format(time.RFC3339)}, r.drainNews())
		drains, err := r.Drains(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range drains {
			drains[i].Drain = director.Drain{}
		}
		expected := []director.DrainStatus{{Phase: director.PhaseDraining, Active: 5, Inactive: 2, UDP: 1, Templates: 2}}
		if diff := cmp.Diff(expected, drains, cmpNetip); diff != "" {
			t.Errorf("drains (-want +got):\n%s", diff)
		}
		r.hasLeft(1, 2, 1, 2)
		time.Sleep(5 * time.Second)
		want(t, "too early for progress", nil, r.drainNews())
		time.Sleep(6 * time.Second)
		want(t, "progress", []string{"drain-progress: 3 connections left: 1 active, 1 inactive, 1 udp"}, r.drainNews())
		time.Sleep(time.Minute)
		want(t, "deadline", []string{"drain-overdue: overdue: 3 connections left at the deadline"}, r.drainNews())
		r.hasLeft(0, 0, 0, 2)
		time.Sleep(2 * time.Second)
		want(t, "end", []string{"drain-finished: finished: no connection is left"}, r.drainNews())
		if _, err := r.CancelDrain(t.Context(), by, web().Key, first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		want(t, "cancelled when through", nil, r.drainNews())
	})
}

// What is left at the deadline is removed, by the daemon that is there then.
func TestDrainKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, web())
		stop := following(t, r)
		r.hasLeft(3, 0, 0, 0)
		r.connections(3)
		deadline := time.Now().Add(time.Minute)
		if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: web().Key, Server: first, Deadline: deadline, Kill: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		stop()
		again := r.restart()
		if err := again.Start(t.Context(), director.State{}, by); err != nil {
			t.Fatal(err)
		}
		defer following(t, again)()
		time.Sleep(2 * time.Second)
		at := deadline.UTC().Truncate(time.Second).Format(time.RFC3339)
		want(t, "restart", []string{"drain-started: resumed: 3 connections left, to be removed at " + at}, again.drainNews())
		again.fake.FailKill(errors.New("no"))
		time.Sleep(time.Minute)
		want(t, "fails", []string{"drain-failed: remove what is left: no"}, again.drainNews())
		again.fake.FailKill(nil)
		time.Sleep(1500 * time.Millisecond)
		again.hasLeft(0, 0, 0, 0)
		time.Sleep(2 * time.Second)
		want(t, "deadline", []string{"drain-killed: connections and templates removed: 3", "drain-finished: finished: no connection is left"}, again.drainNews())
	})
}

func TestDrainKillsAtOnceWithoutDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, web())
		defer following(t, r)()
		r.hasLeft(1, 0, 0, 0)
		r.connections(1)
		if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: web().Key, Server: first, Kill: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		r.hasLeft(0, 0, 0, 0)
		time.Sleep(2 * time.Second)
		want(t, "events", []string{
			"drain-started: begun: 1 connection left", "drain-killed: connections and templates removed: 1", "drain-finished: finished: no connection is left",
		}, r.drainNews())
	})
}

// What a removal of a draining server cuts is told, as it was last seen, whichever
// way the server went.
func TestDrainCut(t *testing.T) {
	for name, remove := range map[string]func(*rig) (director.Outcome, error){
		"server":  func(r *rig) (director.Outcome, error) { return r.RemoveServer(t.Context(), by, web().Key, first) },
		"service": func(r *rig) (director.Outcome, error) { return r.RemoveService(t.Context(), by, web().Key) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, web())
				defer following(t, r)()
				r.hasLeft(4, 0, 0, 0)
				if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: web().Key, Server: first}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(1500 * time.Millisecond)
				r.hasLeft(2, 0, 0, 0)
				time.Sleep(time.Second)
				if _, err := remove(r); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				want(t, "events", []string{"drain-started: begun: 4 connections left", "drain-cut: cut: the server was removed with 2 connections left"}, r.drainNews())
			})
		})
	}
}

// All that a server of a UDP service has is UDP's, counted by the sweep or not.
func TestDrainOfUDP(t *testing.T) {
	r := start(t, dns())
	server := dns().Servers[0]
	r.fake.SetStats(director.Stats{Services: []director.ServiceStats{{
		Key: dns().Key, Servers: []director.ServerStats{{Server: server, Inactive: 3, UDP: 1}},
	}}})
	if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: dns().Key, Server: server.Address}); err != nil {
		t.Fatal(err)
	}
	drains, err := r.Drains(t.Context())
	if err != nil || len(drains) != 1 || drains[0].UDP != 3 || drains[0].Inactive != 0 {
		t.Errorf("%+v, %v", drains, err)
	}
}

func TestDrainCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, web())
		defer following(t, r)()
		r.hasLeft(4, 0, 0, 0)
		if _, err := r.DrainServer(t.Context(), by, director.Drain{Service: web().Key, Server: first}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		if _, err := r.CancelDrain(t.Context(), by, web().Key, first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		want(t, "events", []string{"drain-started: begun: 4 connections left", "drain-cancelled: cancelled with 4 connections left"}, r.drainNews())
	})
}
