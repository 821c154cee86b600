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
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

func TestFirstStart(t *testing.T) {
	kept, held := foreign(), web()
	r := newRig(directortest.NewFake(director.State{Services: []director.Service{kept, held}}), nil)

	edited := web()
	edited.Servers = []realserver.Server{server("10.0.0.9:0", realserver.DR, 1), server("10.0.0.1:8080", realserver.NAT, 5)}
	err := r.Start(t.Context(), director.State{
		Services: []director.Service{dns(), edited},
		Timeouts: conntrack.Timeouts{UDP: time.Minute},
	}, director.Request{Who: "file", Why: "shunt.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "operations", []string{
		"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 1m0s",
		"remove server 10.0.0.2:80 from tcp://192.0.2.1:80",
		"remove server 192.0.2.1:80 from tcp://192.0.2.1:80",
		"add service udp://[2001:db8::1]:53",
		"edit server 10.0.0.1:8080 of tcp://192.0.2.1:80",
		"add server 10.0.0.9:80 to tcp://192.0.2.1:80",
		"add server [2001:db8:1::1]:53 to udp://[2001:db8::1]:53",
	}, texts(r.fake.Operations()))
	want(t, "events", []string{
		"change: revision 1 by file: first start: shunt.yaml",
		"foreign-found: service tcp://192.0.2.200:25 is in the kernel, but not Shunt's: it is left alone",
	}, r.news())

	// What is stored is what is desired, in the order the kernel has.
	desired := director.State{
		Services: []director.Service{edited, dns()},
		Timeouts: conntrack.Timeouts{TCP: 15 * time.Minute, TCPFin: 2 * time.Minute, UDP: time.Minute},
	}
	desired.Services[0].Servers = []realserver.Server{server("10.0.0.1:8080", realserver.NAT, 5), server("10.0.0.9:80", realserver.DR, 1)}
	stored, _, err := r.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]director.Revision{"stored": stored, "head": r.Head()} {
		if diff := cmp.Diff(desired, got.State, cmpNetip); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if got.Number != 1 || got.Who != "file" || got.Why != "shunt.yaml" || got.Action != "first start" || got.Time.IsZero() {
			t.Errorf("%s: %+v", what, got.RevisionInfo)
		}
	}
}

func TestFirstStartWithNothing(t *testing.T) {
	r := newRig(nil, nil)
	if err := r.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	if head := r.Head(); head.Number != 1 || head.State.Timeouts != conntrack.DefaultTimeouts() {
		t.Errorf("head %+v, want revision 1 with the default timeouts", head)
	}
	want(t, "operations", nil, texts(r.fake.Operations()))
}

func TestStartFails(t *testing.T) {
	const held = "udp://[2001:db8::1]:53"
	broken := errors.New("broken")
	tests := []struct {
		name    string
		initial []director.Service
		prepare func(*rig)
		want    string
	}{
		{"found", nil, func(r *rig) { r.fake.FailFound(broken) }, "read what the data plane holds: broken"},
		{"apply", []director.Service{web(), dns()}, func(r *rig) { r.fake.FailAt(4) }, "add server 10.0.0.2:80 to tcp://192.0.2.1:80: injected failure"},
		{"invalid", []director.Service{web(), web()}, func(*rig) {}, "services[1] \"web\": tcp://192.0.2.1:80 is services[0] already\nservices[1] \"web\": name \"web\" is that of services[0] already"},
		{"intend", []director.Service{web()}, func(r *rig) { r.store.FailWrites(broken) }, "store what is intended: broken"},
		{"append", []director.Service{web()}, func(r *rig) { r.store.FailAppend(broken) }, "store revision 1: broken"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// Something is held already, with other timeouts: it stays as it is.
			other := dns()
			other.Scheduler = director.SourceHash
			before := director.State{Services: []director.Service{other}, Timeouts: conntrack.Timeouts{TCP: time.Hour, TCPFin: time.Minute, UDP: time.Minute}}
			r := newRig(directortest.NewFake(before), nil)
			tt.prepare(r)
			err := r.Start(t.Context(), director.State{Services: tt.initial}, by)
			if err == nil || err.Error() != tt.want {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			_, err = r.RemoveService(t.Context(), by, mustKey(held))
			if want := "remove service " + held + ": the director is not started"; err == nil || err.Error() != want {
				t.Errorf("change after it: %v, want %s", err, want)
			}
			if _, err := r.Plan(t.Context(), director.State{}); err == nil || err.Error() != "plan: the director is not started" {
				t.Errorf("plan after it: %v", err)
			}
			if head := r.Head(); head.Number != 0 || len(r.State().Services) != 0 {
				t.Errorf("head %+v, want none", head)
			}
			r.reconcile(t) // does nothing yet
			r.fake.FailFound(nil)
			r.store.FailWrites(nil)
			wantState(t, "held after it", before, r.held(t))

			// A second start succeeds.
			if err := r.Start(t.Context(), director.State{Services: []director.Service{web()}}, by); err != nil {
				t.Fatal(err)
			}
			if f := r.Drift().Foreign; len(f) != 1 || f[0].Key.String() != held {
				t.Errorf("foreign %v, want %s", f, held)
			}
			want := before
			want.Services = []director.Service{web(), other}
			wantState(t, "held after the second start", want, r.held(t))
			if got := r.State().Timeouts; got != before.Timeouts {
				t.Errorf("desired timeouts %s, want those found", got)
			}
		})
	}
}

// Timeouts are taken from the file, then from the kernel, then the defaults.
func TestStartTimeouts(t *testing.T) {
	for _, tt := range []struct{ found, given, want conntrack.Timeouts }{
		{conntrack.Timeouts{}, conntrack.Timeouts{}, conntrack.DefaultTimeouts()},
		{
			conntrack.Timeouts{TCP: time.Hour, TCPFin: 99 * 24 * time.Hour, UDP: time.Second},
			conntrack.Timeouts{TCP: time.Minute},
			conntrack.Timeouts{TCP: time.Minute, TCPFin: conntrack.MaxTimeout, UDP: time.Second},
		},
	} {
		r := newRig(directortest.NewFake(director.State{Timeouts: tt.found}), nil)
		if err := r.Start(t.Context(), director.State{Timeouts: tt.given}, by); err != nil {
			t.Fatal(err)
		}
		if got := r.State().Timeouts; got != tt.want || r.held(t).Timeouts != tt.want {
			t.Errorf("found %s, given %s: %s, held %s, want %s", tt.found, tt.given, got, r.held(t).Timeouts, tt.want)
		}
	}
}

func TestRestart(t *testing.T) {
	r := start(t, web(), dns())
	if _, err := r.SetTimeouts(t.Context(), by, conntrack.Timeouts{UDP: time.Minute}); err != nil {
		t.Fatal(err)
	}
	before := r.Head()
	tests := []struct {
		name   string
		meddle func(*director.State)
		want   []string
	}{
		{"nothing_changed", func(*director.State) {}, nil},
		{"the_host_was_started", func(s *director.State) { *s = director.State{Timeouts: conntrack.DefaultTimeouts()} }, []string{
			"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 1m0s",
			"add service tcp://192.0.2.1:80",
			"add service udp://[2001:db8::1]:53",
			"add server 10.0.0.1:8080 to tcp://192.0.2.1:80",
			"add server 10.0.0.2:80 to tcp://192.0.2.1:80",
			"add server 192.0.2.1:80 to tcp://192.0.2.1:80",
			"add server [2001:db8:1::1]:53 to udp://[2001:db8::1]:53",
		}},
		{"something_changed", func(s *director.State) { s.Services[1].Name = "other" }, []string{"edit service udp://[2001:db8::1]:53"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.fake.Operations()
			r.fake.Meddle(tt.meddle)
			again := r.restart()
			// What the file says now is not looked at, not even that it is wrong.
			if err := again.Start(t.Context(), director.State{Services: []director.Service{{}}}, by); err != nil {
				t.Fatal(err)
			}
			want(t, "operations", tt.want, texts(r.fake.Operations()))
			if diff := cmp.Diff(before, again.Head(), cmpNetip); diff != "" {
				t.Errorf("head (-before +after):\n%s", diff)
			}
			again.sameAsFound(t)
			// To resume is no drift.
			if drift := again.Drift(); drift.Found != 0 || drift.Checked.IsZero() {
				t.Errorf("drift %+v, want none, checked", drift)
			}
			want(t, "events", nil, again.news())
		})
	}
}

// What cannot be resumed keeps nothing else from being resumed, nor the
// director from starting.
func TestRestartServesWhatItCan(t *testing.T) {
	r := start(t, web(), dns())
	r.fake.Meddle(func(s *director.State) { s.Services = nil })
	r.fake.FailIf(func(op director.Operation) error {
		if op.String() == "add service tcp://192.0.2.1:80" {
			return directortest.ErrInjected
		}
		return nil
	})
	again := r.restart()
	if err := again.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	wantState(t, "held", director.State{Services: []director.Service{dns()}, Timeouts: conntrack.DefaultTimeouts()}, r.held(t))
	if pending := again.Drift().Pending; len(pending) != 4 || pending[0].Cause != "add service tcp://192.0.2.1:80: injected failure" {
		t.Errorf("pending %v, want the service and its servers", pending)
	}
	r.fake.FailIf(nil)
	again.reconcile(t)
	again.sameAsFound(t)
}

func TestResolve(t *testing.T) {
	d := start(t, web(), dns())
	for ref, want := range map[string]director.ServiceKey{
		"web": web().Key, "TCP://192.0.2.1:80": web().Key, "udp://[2001:db8:0::1]:53": dns().Key,
	} {
		if got, err := d.Resolve(ref); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", ref, got, err, want)
		}
	}
	for ref, kind := range map[string]error{
		"": director.ErrNotFound, "mail": director.ErrNotFound, "tcp://192.0.2.1:81": director.ErrNotFound,
		"tcp://192.0.2.1": director.ErrInvalid, "sctp://192.0.2.1:80": director.ErrNotFound, "fwmark://7": director.ErrNotFound,
	} {
		if got, err := d.Resolve(ref); !errors.Is(err, kind) || !strings.Contains(err.Error(), ref) {
			t.Errorf("%q: %v, %v, want %v with the reference in it", ref, got, err, kind)
		}
	}
}

func TestStateIsACopy(t *testing.T) {
	d := start(t, web())
	for _, s := range []director.State{d.State(), d.Head().State} {
		s.Services[0].Servers[0].Weight = 99
		s.Services[0].Name = "changed"
	}
	service, err := d.Service(web().Key)
	if err != nil {
		t.Fatal(err)
	}
	service.Servers[0].Weight = 98
	if diff := cmp.Diff([]director.Service{web()}, d.State().Services, cmpNetip); diff != "" {
		t.Errorf("state changed through a copy (-want +got):\n%s", diff)
	}
}

func TestObservationsPassThrough(t *testing.T) {
	d := start(t, web())
	stats := director.Stats{Services: []director.ServiceStats{{Key: web().Key, Counters: director.Counters{Connections: 7}}}}
	d.fake.SetStats(stats)
	got, err := d.Stats(t.Context())
	if diff := cmp.Diff(stats, got, cmpNetip); err != nil || diff != "" {
		t.Errorf("stats: %v (-want +got):\n%s", err, diff)
	}
	conn := conntrack.Connection{
		Protocol: conntrack.TCP, Client: netip.MustParseAddrPort("198.51.100.1:40000"),
		Virtual: web().Key.Address, Server: web().Servers[0].Address,
	}
	other := conn
	other.Client = netip.MustParseAddrPort("198.51.101.1:40000")
	d.fake.SetConnections(conn, other)
	var conns []conntrack.Connection
	for c, err := range d.Connections(t.Context(), director.ConnectionFilter{Client: netip.MustParsePrefix("198.51.100.0/24")}) {
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if diff := cmp.Diff([]conntrack.Connection{conn}, conns, cmpNetip); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, web())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1) // one value, sent once
		go func() { done <- r.Run(ctx) }()
		rounds := func(n int) {
			time.Sleep(time.Duration(n) * director.DefaultReconcile)
			synctest.Wait()
		}

		r.meddle(web().Key, func(s *director.Service) { s.Servers[1].Weight = 50 })
		rounds(2)
		want(t, "operations", []string{"edit server 10.0.0.2:80 of tcp://192.0.2.1:80"}, texts(r.fake.Operations()))
		r.sameAsFound(t)
		r.news()

		// A kernel that cannot be read is told of once each time.
		for range 2 {
			r.fake.FailFound(errors.New("blind"))
			rounds(3)
			r.fake.FailFound(nil)
			rounds(1)
			want(t, "events", []string{"observe-failed: read what the data plane holds: blind"}, r.news())
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("error %v, want nil at the context's end", err)
		}
	})
}
