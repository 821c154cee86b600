package director_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/realserver"
)

// large returns a state of so many services with ten servers each.
func large(services int) director.State {
	state := director.State{Timeouts: conntrack.DefaultTimeouts()}
	for i := range services {
		service := director.Service{
			Key: director.ServiceKey{
				Protocol: conntrack.TCP,
				Address:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 80),
			},
			Name: fmt.Sprintf("s%d", i), Scheduler: director.WeightedRoundRobin, VIP: director.VIPManaged,
		}
		for n := range 10 {
			addr := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(n + 1)})
			service.Servers = append(service.Servers, realserver.Server{Address: netip.AddrPortFrom(addr, 8080), Weight: 1})
		}
		state.Services = append(state.Services, service)
	}
	return state
}

// quiet is a data plane that takes no time: it says it holds what it was told,
// and believes every operation, so that what is measured is the director.
type quiet struct {
	*directortest.Fake
	state director.State
}

func (q *quiet) Found(context.Context) (director.State, error) { return q.state, nil }

func (q *quiet) Apply(context.Context, []director.Operation) error { return nil }

// forgetful is a store that keeps nothing but the head.
type forgetful struct{ directortest.Store }

func (*forgetful) Append(director.Revision) error { return nil }

func benchDirector(b *testing.B, state director.State) *director.Director {
	b.Helper()
	log := slog.New(slog.DiscardHandler)
	d := director.New(&quiet{new(directortest.Fake), state.Clone()}, &forgetful{}, director.Options{Log: log, Events: event.NewStream(log, 0)})
	if err := d.Start(b.Context(), state, director.Request{}); err != nil {
		b.Fatal(err)
	}
	return d
}

// BenchmarkEdit is the director's share of one weight's change.
func BenchmarkEdit(b *testing.B) {
	state := large(1000)
	d := benchDirector(b, state)
	key, addr := state.Services[500].Key, state.Services[500].Servers[5].Address
	weight := uint32(1)
	for b.Loop() {
		weight++
		_, err := d.EditServer(b.Context(), director.Request{}, key, addr, func(s *realserver.Server) error {
			s.Weight = 1 + weight%1000
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApply is the director's share of a change of every server.
func BenchmarkApply(b *testing.B) {
	state := large(1000)
	d := benchDirector(b, state)
	weight := uint32(1)
	for b.Loop() {
		weight++
		for i := range state.Services {
			for j := range state.Services[i].Servers {
				state.Services[i].Servers[j].Weight = 1 + weight%1000
			}
		}
		if _, err := d.Apply(b.Context(), director.Request{}, state); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReconcile is the director's share of a look that finds nothing.
func BenchmarkReconcile(b *testing.B) {
	d := benchDirector(b, large(1000))
	for b.Loop() {
		if err := d.Reconcile(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if drift := d.Drift(); drift.Found != 0 {
		b.Fatalf("%d differences found, want none", drift.Found)
	}
}
