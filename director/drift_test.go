package director_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

func TestDriftIsRepaired(t *testing.T) {
	service := func(key director.ServiceKey, edit func(*director.Service)) func(*director.State) {
		return func(s *director.State) { edit(&s.Services[s.Service(key)]) }
	}
	setting := func(edit func(*director.Service)) func(*director.State) { return service(dns().Key, edit) }
	editDNS := "edit service udp://[2001:db8::1]:53"
	tests := []struct {
		name   string
		meddle func(*director.State)
		ops    []string
		steps  []string // where they say more
	}{
		{"nothing", func(*director.State) {}, nil, nil},
		{"name", setting(func(s *director.Service) { s.Name = "x" }), []string{editDNS}, []string{editDNS + ": name x → none"}},
		{"scheduler", setting(func(s *director.Service) { s.Scheduler = director.SourceHash }), []string{editDNS}, []string{
			editDNS + ": scheduler sh → mh, flags sh-fallback,sh-port → mh-fallback,mh-port",
		}},
		{"flags", setting(func(s *director.Service) { s.Flags.Port = false }), []string{editDNS}, []string{editDNS + ": flags mh-fallback → mh-fallback,mh-port"}},
		{"vip", setting(func(s *director.Service) { s.VIP = director.VIPManaged }), []string{editDNS}, []string{editDNS + ": vip managed → external"}},
		{"access", setting(func(s *director.Service) { s.Access.Deny = prefixes("::/0") }), []string{editDNS}, []string{editDNS + ": deny ::/0 → none"}},
		{"service_removed", func(s *director.State) { s.Services = s.Services[1:] }, []string{
			"add service tcp://192.0.2.1:80", "add server 10.0.0.1:8080 to tcp://192.0.2.1:80",
			"add server 10.0.0.2:80 to tcp://192.0.2.1:80", "add server 192.0.2.1:80 to tcp://192.0.2.1:80",
		}, []string{
			"add service tcp://192.0.2.1:80: name web, scheduler rr, vip managed", "add server 10.0.0.1:8080 to tcp://192.0.2.1:80: method nat, weight 1",
			"add server 10.0.0.2:80 to tcp://192.0.2.1:80: method dr, weight 2", "add server 192.0.2.1:80 to tcp://192.0.2.1:80: method local, weight 0",
		}},
		{"server_added", service(web().Key, func(s *director.Service) {
			s.Servers = append(s.Servers, server("10.0.0.9:80", realserver.DR, 1))
		}), []string{"remove server 10.0.0.9:80 from tcp://192.0.2.1:80"}, nil},
		{
			"server_removed", service(web().Key, func(s *director.Service) { s.Servers = s.Servers[1:] }),
			[]string{"add server 10.0.0.1:8080 to tcp://192.0.2.1:80"},
			[]string{"add server 10.0.0.1:8080 to tcp://192.0.2.1:80: method nat, weight 1"},
		},
		{
			"server_replaced", service(web().Key, func(s *director.Service) { s.Servers[0].Address = netip.MustParseAddrPort("10.0.0.1:81") }),
			[]string{"remove server 10.0.0.1:81 from tcp://192.0.2.1:80", "add server 10.0.0.1:8080 to tcp://192.0.2.1:80"},
			[]string{"remove server 10.0.0.1:81 from tcp://192.0.2.1:80", "add server 10.0.0.1:8080 to tcp://192.0.2.1:80: method nat, weight 1"},
		},
		{
			"server_changed", service(web().Key, func(s *director.Service) { s.Servers[1].Weight, s.Servers[1].Method = 3, realserver.NAT }),
			[]string{"edit server 10.0.0.2:80 of tcp://192.0.2.1:80"},
			[]string{"edit server 10.0.0.2:80 of tcp://192.0.2.1:80: method nat → dr, weight 3 → 2"},
		},
		{"servers_in_another_order", service(web().Key, func(s *director.Service) { slices.Reverse(s.Servers) }), nil, nil},
		{
			"timeouts", func(s *director.State) { s.Timeouts.UDP = time.Second },
			[]string{"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 5m0s"},
			[]string{"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 5m0s: udp 1s → 5m0s"},
		},
		{"everything", func(s *director.State) { *s = director.State{Timeouts: s.Timeouts} }, []string{
			"add service tcp://192.0.2.1:80", "add service udp://[2001:db8::1]:53",
			"add server 10.0.0.1:8080 to tcp://192.0.2.1:80", "add server 10.0.0.2:80 to tcp://192.0.2.1:80",
			"add server 192.0.2.1:80 to tcp://192.0.2.1:80", "add server [2001:db8:1::1]:53 to udp://[2001:db8::1]:53",
		}, []string{
			"add service tcp://192.0.2.1:80: name web, scheduler rr, vip managed",
			"add service udp://[2001:db8::1]:53: scheduler mh, flags mh-fallback,mh-port, vip external",
			"add server 10.0.0.1:8080 to tcp://192.0.2.1:80: method nat, weight 1", "add server 10.0.0.2:80 to tcp://192.0.2.1:80: method dr, weight 2",
			"add server 192.0.2.1:80 to tcp://192.0.2.1:80: method local, weight 0",
			"add server [2001:db8:1::1]:53 to udp://[2001:db8::1]:53: method dr, weight 65535",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, web(), dns())
			head := r.Head()
			r.fake.Meddle(tt.meddle)
			r.reconcile(t)
			want(t, "operations", tt.ops, texts(r.fake.Operations()))
			want(t, "operations that changed nothing", nil, texts(r.fake.Wasted()))
			r.sameAsFound(t)
			if r.Head().RevisionInfo != head.RevisionInfo {
				t.Errorf("a repair made revision %+v", r.Head().RevisionInfo)
			}

			steps := tt.steps
			if steps == nil {
				steps = tt.ops
			}
			var events []string
			for _, step := range steps {
				events = append(events, "drift: the kernel differs; to repair: "+step)
			}
			for _, step := range steps {
				events = append(events, "repaired: repaired: "+step)
			}
			want(t, "events", events, r.news())
			n := uint64(len(tt.ops))
			if d := r.Drift(); d.Found != n || d.Repaired != n || d.Failed != 0 || d.Pending != nil || d.Foreign != nil || d.Checked.IsZero() {
				t.Errorf("drift %+v, want %d found and repaired", d, n)
			}

			// The next look finds nothing, and the counts are totals.
			r.reconcile(t)
			want(t, "operations of the second look", nil, texts(r.fake.Operations()))
			want(t, "events of the second look", nil, r.news())
			if d := r.Drift(); d.Found != n || d.Repaired != n {
				t.Errorf("drift after the second look %+v", d)
			}
		})
	}
}

// Events say which service and server they are about.
func TestDriftEventsAreLocated(t *testing.T) {
	r := start(t, web(), dns())
	r.fake.Meddle(func(s *director.State) {
		s.Timeouts.UDP = time.Second
		s.Services[0].Servers[1].Weight = 9
		s.Services[1].Name = "x"
	})
	r.reconcile(t)
	var got []string
	events, _ := r.events.After(0)
	for _, e := range events[len(events)-3:] {
		got = append(got, e.Service+" "+e.Server)
	}
	want(t, "places", []string{" ", "tcp://192.0.2.1:80 10.0.0.2:80", "udp://[2001:db8::1]:53 "}, got)
}

// A step that cannot be done stops no other, and what needs it waits for it.
func TestDriftIsRepairedAroundAFailure(t *testing.T) {
	r := start(t, web(), dns())
	if _, err := r.AddService(t.Context(), by, other()); err != nil {
		t.Fatal(err)
	}
	r.fake.Meddle(func(s *director.State) {
		s.Services = slices.DeleteFunc(s.Services, func(s director.Service) bool { return s.Key == other().Key })
		i := s.Service(web().Key)
		s.Services[i].Servers = append(s.Services[i].Servers[2:], server("10.0.0.9:80", realserver.DR, 1))
		s.Services[s.Service(dns().Key)].Name = "x"
		s.Timeouts.UDP = time.Second
	})
	r.refusing("add service tcp://192.0.2.5:80", "remove server 10.0.0.9:80 from tcp://192.0.2.1:80")
	r.fake.Operations()
	r.news()
	r.reconcile(t)
	want(t, "operations that changed nothing", nil, texts(r.fake.Wasted()))
	want(t, "operations", []string{
		"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 5m0s",
		"edit service udp://[2001:db8::1]:53",
		"add server 10.0.0.1:8080 to tcp://192.0.2.1:80",
		"add server 10.0.0.2:80 to tcp://192.0.2.1:80",
	}, texts(r.fake.Operations()))
	const noService = "add service tcp://192.0.2.5:80: injected failure"
	want(t, "pending", []string{
		"remove server 10.0.0.9:80 from tcp://192.0.2.1:80 | remove server 10.0.0.9:80 from tcp://192.0.2.1:80: injected failure",
		"add service tcp://192.0.2.5:80 | " + noService,
		"add server 10.0.0.1:8080 to tcp://192.0.2.5:80 | " + noService,
		"add server 10.0.0.2:80 to tcp://192.0.2.5:80 | " + noService,
	}, r.pending())
	if d := r.Drift(); d.Found != 8 || d.Repaired != 4 || d.Failed != 2 {
		t.Errorf("drift %+v, want 8 found, 4 repaired, 2 failed", d)
	}
	r.refusing()
	r.reconcile(t)
	r.sameAsFound(t)
	if d := r.Drift(); d.Found != 8 || d.Repaired != 8 || d.Failed != 2 || d.Pending != nil {
		t.Errorf("drift %+v, want all repaired", d)
	}
}

// pending are the repairs that are still to be done, each with what keeps it from it.
func (r *rig) pending() (all []string) {
	for _, failure := range r.Drift().Pending {
		all = append(all, failure.Step.Operation.String()+" | "+failure.Cause)
	}
	return all
}

// A sync daemon that cannot be stopped keeps the one to take its place waiting, and
// none of the other role.
func TestDriftOfSyncWaitsForItsStop(t *testing.T) {
	ours := []director.SyncDaemon{daemon(master, "eth0", 1), daemon(backup, "eth0", 1)}
	fake := directortest.NewFake(director.State{Timeouts: conntrack.DefaultTimeouts()})
	fake.SetFeatures(plane(t, director.PlaneIPVS))
	r := newRig(fake, nil)
	if err := r.Start(t.Context(), director.State{Sync: ours}, by); err != nil {
		t.Fatal(err)
	}
	r.fake.Meddle(func(s *director.State) { s.Sync = []director.SyncDaemon{daemon(master, "eth1", 1)} })
	r.refusing("stop sync daemon master")
	r.fake.Operations()
	r.reconcile(t)
	want(t, "operations", []string{"start sync daemon backup"}, texts(r.fake.Operations()))
	want(t, "pending", []string{
		"stop sync daemon master | stop sync daemon master: injected failure",
		"start sync daemon master | stop sync daemon master: injected failure",
	}, r.pending())
	if d := r.Drift(); d.Found != 3 || d.Repaired != 1 || d.Failed != 1 {
		t.Errorf("drift %+v, want 3 found, 1 repaired, 1 failed", d)
	}
	r.refusing()
	r.reconcile(t)
	r.sameAsFound(t)
	if d := r.Drift(); d.Repaired != 3 || d.Pending != nil {
		t.Errorf("drift %+v, want all repaired", d)
	}
}

// The end of the daemon is no failure of the kernel's.
func TestReconcileCancelled(t *testing.T) {
	r := start(t, web(), dns())
	r.fake.Meddle(func(s *director.State) { s.Services[0].Servers[1].Weight = 9 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Reconcile(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancelled", err)
	}
	if d := r.Drift(); d.Failed != 0 || d.Pending != nil {
		t.Errorf("drift %+v, want nothing failed", d)
	}
}

// plain is a data plane whose errors name no operation.
type plain struct{ director.Dataplane }

func (plain) Apply(context.Context, []director.Operation) error { return errors.New("no answer") }

func TestRepairFailsWithoutAName(t *testing.T) {
	first := start(t, web(), dns())
	r := first.over(plain{first.fake}, first.store)
	if err := r.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	r.fake.Meddle(func(s *director.State) {
		s.Timeouts = conntrack.Timeouts{TCP: time.Hour, TCPFin: time.Hour, UDP: time.Hour}
		s.Services[1].Name = "x"
	})
	r.reconcile(t)
	want(t, "pending", []string{
		"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 5m0s | no answer",
		"edit service udp://[2001:db8::1]:53 | no answer",
	}, r.pending())
}

// A change repairs the drift of the service that it names, and of no other.
func TestChangeRepairsWhatItNames(t *testing.T) {
	r := start(t, web(), dns())
	r.fake.Meddle(func(s *director.State) {
		s.Services[0].Servers[0].Weight = 9
		s.Services[1].Name = "x"
	})
	outcome, err := r.AddServer(t.Context(), by, web().Key, server("10.0.0.7:80", realserver.DR, 1))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "steps", []string{
		"edit server 10.0.0.1:8080 of tcp://192.0.2.1:80: weight 9 → 1",
		"add server 10.0.0.7:80 to tcp://192.0.2.1:80: method dr, weight 1",
	}, stepTexts(outcome.Steps))
}
