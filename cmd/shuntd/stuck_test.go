package main

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
	"github.com/shunt-lb/shunt/realserver/script"
)

// TestStuck: checks that are late are told of, those in their time are not.
func TestStuck(t *testing.T) {
	for _, test := range []struct {
		asking, deciding time.Duration
		want             string
	}{
		{0, 0, ""},
		{sickAfter, sickAfter, ""},
		{3 * time.Minute, 0, "servers have not been asked for 3m0s: the checks are stuck"},
		{0, 150 * time.Second, "what servers' checks found has not been carried out for 2m30s"},
	} {
		got := ""
		if err := stuck(test.asking, test.deciding); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s, %s: %q, want %q", test.asking, test.deciding, got, test.want)
		}
	}
}

// TestWellHearsOfChecks: a daemon whose kernel is looked at is not well while what
// decides on servers hangs.
func TestWellHearsOfChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := director.Service{
			Key:       director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")},
			Scheduler: director.RoundRobin, VIP: director.VIPExternal, Health: director.Health{Passive: director.Passive{Resets: 1}},
			Servers: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: realserver.NAT, Weight: 1}},
		}
		d := &instance{health: &healthParts{monitor: health.NewMonitor(health.Options{}), keeper: offer.New(offer.Options{Packet: hanging{10 * time.Minute}})}}
		d.director = director.New(directortest.NewFake(director.State{}), &directortest.Store{}, director.Options{Offerer: d.health.keeper})
		ctx, cancel := context.WithCancel(t.Context())
		if err := d.director.Start(ctx, director.State{Services: []director.Service{web}}, director.Request{}); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- d.health.keeper.Run(ctx, d.director) }()
		for range 3 {
			time.Sleep(time.Minute)
			if err := d.director.Reconcile(ctx); err != nil {
				t.Fatal(err)
			}
			err := d.well()
			if late := d.health.keeper.Busy() > sickAfter; late != (err != nil) || late && !strings.Contains(err.Error(), "not been carried out for 3m0s") {
				t.Errorf("busy for %s: %v", d.health.keeper.Busy(), err)
			}
		}
		if err := d.well(); err == nil {
			t.Error("it is well while its checks are not heard")
		}
		cancel()
		if err := <-done; err != nil || d.health.keeper.Busy() != 0 {
			t.Errorf("%v, busy for %s", err, d.health.keeper.Busy())
		}
	})
}

// TestWellMissesItsHelper: a daemon that can run commands no more is not well, and is
// restarted.
func TestWellMissesItsHelper(t *testing.T) {
	d := &instance{health: &healthParts{monitor: health.NewMonitor(health.Options{}), keeper: offer.New(offer.Options{})}}
	d.director = director.New(directortest.NewFake(director.State{}), &directortest.Store{}, director.Options{Offerer: d.health.keeper})
	if err := d.director.Start(t.Context(), director.State{}, director.Request{}); err != nil {
		t.Fatal(err)
	}
	var err error
	d.helper, err = script.StartHelper(exec.Command("/bin/sh", "-c", "printf x >&3; read end <&3"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.well(); err != nil {
		t.Errorf("with its helper: %v", err)
	}
	_ = d.helper.Close() // however it ends
	if err := d.well(); !errors.Is(err, script.ErrNoHelper) {
		t.Errorf("without: %v", err)
	}
}

// hanging is a director.Witness that takes its time.
type hanging struct{ time.Duration }

func (h hanging) SetPassive(context.Context, director.ServiceKey, director.Passive) error {
	time.Sleep(h.Duration)
	return nil
}

func (hanging) Evidence(context.Context) ([]director.Evidence, error) { return nil, nil }

func (hanging) Absolve(context.Context, director.ServiceKey, netip.AddrPort) error { return nil }
