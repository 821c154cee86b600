package director_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/realserver"
)

// ordered offers servers that are ordered down at weight 0.
type ordered struct {
	state director.State
	down  netip.AddrPort // besides
}

func (o *ordered) Offers(service, _ *director.Service) director.Offers {
	servers := make(map[netip.AddrPort]director.Offer)
	for _, s := range service.Servers {
		if order, ok := o.state.Override(service.Key, s.Address); ok && !order.Up || s.Address == o.down {
			servers[s.Address] = director.Offer{}
		}
	}
	return director.Offers{Servers: servers}
}

func (o *ordered) Desired(s director.State) { o.state = s }

// offering is a director with the Offerer over the fakes of r, not started.
func (r *rig) offering(o director.Offerer) *rig {
	events := event.NewStream(slog.New(slog.DiscardHandler), 0)
	d := director.New(r.fake, r.store, director.Options{Log: slog.New(slog.DiscardHandler), Events: events, Offerer: o})
	return &rig{Director: d, fake: r.fake, store: r.store, events: events}
}

func (r *rig) weight(t *testing.T, addr netip.AddrPort) uint32 {
	t.Helper()
	service := r.held(t).Services[0]
	i := service.Server(addr)
	if i < 0 {
		t.Fatalf("the data plane has no server %s", addr)
	}
	return service.Servers[i].Weight
}

func TestSetOverride(t *testing.T) {
	r := newRig(nil, nil).offering(&ordered{})
	if err := r.Start(t.Context(), director.State{Services: []director.Service{web()}}, by); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Hour)
	order := director.Override{Service: web().Key, Server: first, Until: until, Why: "disk"}
	outcome, err := r.SetOverride(t.Context(), by, order)
	if err != nil {
		t.Fatal(err)
	}
	at := until.UTC().Truncate(time.Second).Format(time.RFC3339)
	want(t, "steps", []string{
		"edit override of server 10.0.0.1:8080 of tcp://192.0.2.1:80: override none → down, override until none → " + at + ", override why none → disk",
	}, stepTexts(outcome.Steps))
	kept, ok := r.State().Override(web().Key, first)
	if !ok || kept.Up || kept.Who != by.Who || kept.Why != "disk" || kept.Since.IsZero() {
		t.Errorf("override %+v, %t", kept, ok)
	}
	if w := r.weight(t, first); w != 0 {
		t.Errorf("ordered down, but the data plane has weight %d", w)
	}

	// Neither a file nor an earlier revision withdraws it; a new one replaces it.
	if _, err := r.Apply(t.Context(), by, director.State{Services: []director.Service{web()}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rollback(t.Context(), by, 1); err != nil {
		t.Fatal(err)
	}
	if all := r.State().Overrides; len(all) != 1 || !all[0].Equal(kept) {
		t.Errorf("overrides %+v", all)
	}

	// It outlives the daemon, and what it says is in the first plan.
	again := r.offering(&ordered{})
	r.fake.Meddle(func(s *director.State) { s.Services = nil })
	r.fake.Operations()
	if err := again.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	for _, op := range r.fake.Operations() {
		if add, ok := op.(director.AddServer); ok && add.Server.Address == first && add.Server.Weight != 0 {
			t.Errorf("%s with weight %d, though it is ordered down", op, add.Server.Weight)
		}
	}
	if _, err := again.ClearOverride(t.Context(), by, web().Key, first); err != nil {
		t.Fatal(err)
	}
	if w := again.weight(t, first); w != 1 {
		t.Errorf("withdrawn, but the data plane has weight %d", w)
	}
	if drift := again.Drift(); drift.Found != 0 && drift.Repaired == 0 {
		t.Errorf("orders count as drift: %+v", drift)
	}
	if _, err := again.ClearOverride(t.Context(), by, web().Key, first); !errors.Is(err, director.ErrNotFound) {
		t.Errorf("withdrawn twice: %v", err)
	}
	order.Until = time.Now().Add(-time.Minute)
	if _, err := again.SetOverride(t.Context(), by, order); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("an order that has ended: %v", err)
	}
}

func TestOverrideEndsWithItsServer(t *testing.T) {
	r := start(t, web())
	if _, err := r.SetOverride(t.Context(), by, director.Override{Service: web().Key, Server: first, Up: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RemoveServer(t.Context(), by, web().Key, first); err != nil {
		t.Fatal(err)
	}
	if _, err := r.AddServer(t.Context(), by, web().Key, server("10.0.0.1:8080", realserver.NAT, 1)); err != nil {
		t.Fatal(err)
	}
	if all := r.State().Overrides; len(all) > 0 {
		t.Errorf("overrides %+v", all)
	}
}

// A change of what is offered is no drift, whoever carries it to the kernel.
func TestOffersAreNoDrift(t *testing.T) {
	offerer := &ordered{}
	r := newRig(nil, nil).offering(offerer)
	if err := r.Start(t.Context(), director.State{Services: []director.Service{web()}}, by); err != nil {
		t.Fatal(err)
	}
	offerer.down = first
	r.reconcile(t)
	if w, drift := r.weight(t, first), r.Drift(); w != 0 || drift.Found != 0 || drift.Repaired != 0 {
		t.Errorf("weight %d, drift %+v", w, drift)
	}
	r.meddle(web().Key, func(s *director.Service) { s.Servers[0].Weight = 9 })
	r.reconcile(t)
	if drift := r.Drift(); drift.Found != 1 || drift.Repaired != 1 {
		t.Errorf("somebody's change: drift %+v", drift)
	}
	// What cannot be done for one service does not keep others from being offered.
	r.fake.FailIf(func(op director.Operation) error {
		if _, ok := op.(director.SetTimeouts); ok {
			return directortest.ErrInjected
		}
		return nil
	})
	r.fake.Meddle(func(s *director.State) { s.Timeouts.TCP = time.Hour })
	again := r.offering(offerer)
	if err := again.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	offerer.down = netip.AddrPort{}
	if err := again.Reoffer(t.Context(), web().Key); err != nil {
		t.Fatal(err)
	}
	if w := again.weight(t, first); w != 1 {
		t.Errorf("weight %d while the timeouts cannot be set", w)
	}
}
