package director_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

const master, backup = director.SyncMaster, director.SyncBackup

func TestSyncNormalize(t *testing.T) {
	group6 := netip.MustParseAddr("ff02::81")
	for _, tt := range []struct{ in, want director.SyncDaemon }{
		{
			director.SyncDaemon{Role: master},
			director.SyncDaemon{Role: master, Interface: "eth0", Group: netip.MustParseAddr("224.0.0.81"), Port: 8848, TTL: 1},
		},
		{
			director.SyncDaemon{Role: backup, Interface: "bond0", ID: 7, MaxLength: 1400, Group: group6, Port: 1, TTL: 255},
			director.SyncDaemon{Role: backup, Interface: "bond0", ID: 7, MaxLength: 1400, Group: group6, Port: 1, TTL: 255},
		},
		{
			director.SyncDaemon{Role: backup, MaxLength: 1},
			director.SyncDaemon{Role: backup, Interface: "eth0", MaxLength: 1024, Group: director.DefaultSyncGroup, Port: 8848, TTL: 1},
		},
		{
			director.SyncDaemon{Role: master, MaxLength: 1},
			director.SyncDaemon{Role: master, Interface: "eth0", MaxLength: 1, Group: director.DefaultSyncGroup, Port: 8848, TTL: 1},
		},
		{
			director.SyncDaemon{Role: master, MaxLength: 65535},
			director.SyncDaemon{Role: master, Interface: "eth0", MaxLength: 65507, Group: director.DefaultSyncGroup, Port: 8848, TTL: 1},
		},
		{
			director.SyncDaemon{Role: backup, MaxLength: 65535, Group: group6},
			director.SyncDaemon{Role: backup, Interface: "eth0", MaxLength: 65487, Group: group6, Port: 8848, TTL: 1},
		},
	} {
		got := tt.in.Normalize()
		if diff := cmp.Diff(tt.want, got, cmpNetip); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.in, diff)
		}
		if again := got.Normalize(); again != got {
			t.Errorf("%+v is %+v when normalized again", got, again)
		}
	}
	// Of a state, the master comes first, and the argument stays as it is.
	in := []director.SyncDaemon{{Role: backup}, {Role: master, ID: 3}}
	got := director.State{Sync: in}.Normalize().Sync
	if diff := cmp.Diff([]director.SyncDaemon{daemon(master, "eth0", 3), daemon(backup, "eth0", 0)}, got, cmpNetip); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	if in[0] != (director.SyncDaemon{Role: backup}) {
		t.Errorf("the argument changed: %+v", in)
	}
}

func TestSyncString(t *testing.T) {
	d := daemon(master, "eth0", 1)
	if got, want := d.String(), "master on eth0, id 1, 224.0.0.81:8848, ttl 1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	d.MaxLength = 1400
	if got, want := d.String(), "master on eth0, id 1, 224.0.0.81:8848, ttl 1, 1400 bytes at most"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSyncValidate(t *testing.T) {
	mixed := web()
	mixed.Servers[1] = server("[2001:db8::2]:80", realserver.Tunnel, 1)
	tests := []struct {
		name     string
		services []director.Service
		sync     []director.SyncDaemon
		want     []string
	}{
		{"both", nil, []director.SyncDaemon{daemon(master, "eth0", 1), daemon(backup, "eth0", 1)}, nil},
		{"two_of_a_role", nil, []director.SyncDaemon{daemon(backup, "eth0", 1), daemon(backup, "eth1", 1)}, []string{"sync[1]: sync[0] is the backup already"}},
		{"interface", nil, []director.SyncDaemon{daemon(master, "a/b", 1)}, []string{`sync[0]: "a/b" is not an interface name: want 1 to 15 characters without spaces, '/' and ':'`}},
		{"long_interface", nil, []director.SyncDaemon{daemon(master, "sixteen-letters-", 1)}, []string{`sync[0]: "sixteen-letters-" is not an interface name: want 1 to 15 characters without spaces, '/' and ':'`}},
		{"group", nil, []director.SyncDaemon{{Role: master, Interface: "eth0", Group: netip.MustParseAddr("192.0.2.1")}}, []string{"sync[0]: 192.0.2.1 is not a multicast address"}},
		{"group_with_zone", nil, []director.SyncDaemon{{Role: master, Interface: "eth0", Group: netip.MustParseAddr("ff02::1%eth0")}}, []string{"sync[0]: ff02::1%eth0 is not a multicast address"}},
		{"mixed_families", []director.Service{mixed}, []director.SyncDaemon{daemon(master, "eth0", 1)}, []string{"sync: server 2001:db8::2 of tcp://192.0.2.1:80 is of another address family than the service: the sync daemons cannot carry that"}},
		{"mixed_families_alone", []director.Service{mixed}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, p := range director.Problems(director.State{Services: tt.services, Sync: tt.sync}.Validate()) {
				if !errors.Is(p, director.ErrInvalid) || p.Service != -1 {
					t.Errorf("%+v, want one of no service that is invalid", p)
				}
				got = append(got, p.Error())
			}
			want(t, "problems", tt.want, got)
		})
	}
}

func TestSyncPlan(t *testing.T) {
	long := daemon(master, "eth0", 1)
	long.MaxLength = 1472 // what the kernel says of one that was started without
	short := long
	short.MaxLength = 500
	for _, tt := range []struct {
		name           string
		desired, found []director.SyncDaemon
		want           []string
	}{
		{"start", []director.SyncDaemon{daemon(master, "eth0", 1), daemon(backup, "eth0", 0)}, nil, []string{"start sync daemon master", "start sync daemon backup"}},
		{"stop", nil, []director.SyncDaemon{daemon(backup, "eth0", 1)}, []string{"stop sync daemon backup"}},
		{"same", []director.SyncDaemon{long}, []director.SyncDaemon{long}, nil},
		{"any_length", []director.SyncDaemon{daemon(master, "eth0", 1)}, []director.SyncDaemon{long}, nil},
		{"a_length", []director.SyncDaemon{short}, []director.SyncDaemon{long}, []string{"stop sync daemon master", "start sync daemon master"}},
		{
			"stops_come_first",
			[]director.SyncDaemon{daemon(master, "eth1", 1), daemon(backup, "eth1", 1)},
			[]director.SyncDaemon{daemon(master, "eth0", 1), daemon(backup, "eth1", 2)},
			[]string{"stop sync daemon master", "stop sync daemon backup", "start sync daemon master", "start sync daemon backup"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := director.Plan(director.State{Sync: tt.desired}, director.State{Sync: tt.found})
			want(t, "plan", tt.want, texts(got))
		})
	}
	// Servers of another family are gone when a daemon starts, and come when it has
	// stopped: the kernel has no other order.
	mixed := web()
	mixed.Servers = append(mixed.Servers, server("[2001:db8::2]:80", realserver.Tunnel, 1))
	syncing := director.State{Sync: []director.SyncDaemon{long}, Services: []director.Service{web()}}
	mixing := director.State{Services: []director.Service{mixed}}
	want(t, "plan to sync", []string{"remove server [2001:db8::2]:80 from tcp://192.0.2.1:80", "start sync daemon master"}, texts(director.Plan(syncing, mixing)))
	want(t, "plan to mix", []string{"stop sync daemon master", "add server [2001:db8::2]:80 to tcp://192.0.2.1:80"}, texts(director.Plan(mixing, syncing)))
}

func TestSyncSteps(t *testing.T) {
	d := daemon(backup, "eth0", 1)
	d.MaxLength = 1400
	found := director.State{Sync: []director.SyncDaemon{daemon(master, "eth0", 1)}}
	steps := director.Explain(director.Plan(director.State{Sync: []director.SyncDaemon{d}}, found), found)
	want(t, "steps", []string{
		"stop sync daemon master",
		"start sync daemon backup: interface eth0, id 1, max-length 1400, group 224.0.0.81, port 8848, ttl 1",
	}, stepTexts(steps))
	if steps[0].Action != director.ActionRemove || steps[1].Action != director.ActionAdd {
		t.Errorf("actions %s and %s", steps[0].Action, steps[1].Action)
	}
}

func TestSyncStartStop(t *testing.T) {
	r := startOn(t, director.PlaneIPVS, director.State{Services: []director.Service{web()}})
	for _, role := range []director.SyncRole{backup, master} {
		outcome, err := r.StartSync(t.Context(), by, director.SyncDaemon{Role: role, ID: 4})
		if err != nil || len(outcome.Steps) != 1 || outcome.Revision.Action != "start sync daemon "+string(role) {
			t.Fatalf("outcome %+v, error %v", outcome, err)
		}
	}
	wantState(t, "desired", director.State{
		Services: []director.Service{web()}, Timeouts: conntrack.DefaultTimeouts(),
		Sync: []director.SyncDaemon{daemon(master, "eth0", 4), daemon(backup, "eth0", 4)},
	}, r.State())
	r.sameAsFound(t)
	if _, err := r.StartSync(t.Context(), by, director.SyncDaemon{Role: master, ID: 5}); !errors.Is(err, director.ErrExists) || err.Error() != "start sync daemon master: exists already" {
		t.Errorf("started twice: %v", err)
	}
	if _, err := r.StartSync(t.Context(), by, director.SyncDaemon{Role: "spare"}); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("a role that there is not: %v", err)
	}

	// What somebody else does to them is drift.
	r.fake.Operations()
	r.fake.Meddle(func(s *director.State) {
		s.Sync = slices.DeleteFunc(s.Sync, func(d director.SyncDaemon) bool { return d.Role == master })
	})
	r.reconcile(t)
	want(t, "operations", []string{"start sync daemon master"}, texts(r.fake.Operations()))
	if d := r.Drift(); d.Found != 1 || d.Repaired != 1 {
		t.Errorf("drift %+v, want one", d)
	}
	r.sameAsFound(t)

	// They survive a restart, and what is not about them.
	again := r.restart()
	if err := again.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Apply(t.Context(), by, director.State{Services: []director.Service{web(), web2()}}); err != nil {
		t.Fatal(err)
	}
	if n := len(again.State().Sync); n != 2 {
		t.Errorf("%d daemons after an Apply that does not name them, want 2", n)
	}
	want(t, "operations", nil, slices.DeleteFunc(texts(r.fake.Operations()), func(s string) bool { return s[:4] == "add " }))

	outcome, err := again.StopSync(t.Context(), by, master)
	if err != nil || len(outcome.Steps) != 1 {
		t.Errorf("outcome %+v, error %v", outcome, err)
	}
	if _, err := again.StopSync(t.Context(), by, master); !errors.Is(err, director.ErrNotFound) || err.Error() != "stop sync daemon master: not found" {
		t.Errorf("stopped twice: %v", err)
	}
	again.sameAsFound(t)

	// An empty list is one that wants none; a rollback wants what there was.
	if _, err := again.Apply(t.Context(), by, director.State{Services: again.State().Services, Sync: []director.SyncDaemon{}}); err != nil {
		t.Fatal(err)
	}
	if got := again.held(t).Sync; len(got) != 0 {
		t.Errorf("held %v, want none", got)
	}
	for revision, daemons := range map[uint64]int{3: 2, 2: 1, 1: 0} {
		if _, err := again.Rollback(t.Context(), by, revision); err != nil {
			t.Fatal(err)
		}
		if n := len(again.State().Sync); n != daemons {
			t.Errorf("%d daemons of revision %d, want %d", n, revision, daemons)
		}
		again.sameAsFound(t)
	}
}

// What is said of timeouts and daemons alone leaves the services.
func TestApplyShared(t *testing.T) {
	r := startOn(t, director.PlaneIPVS, director.State{Services: []director.Service{web()}, Sync: []director.SyncDaemon{daemon(master, "eth0", 1)}})
	for _, tt := range []struct {
		next director.State
		want []string
	}{
		{director.State{}, nil},
		{director.State{Timeouts: conntrack.Timeouts{UDP: time.Minute}}, []string{"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 1m0s"}},
		{director.State{Sync: []director.SyncDaemon{{Role: backup, ID: 2}, {Role: master, ID: 1}}}, []string{"start sync daemon backup"}},
		{director.State{Sync: []director.SyncDaemon{}}, []string{"stop sync daemon master", "stop sync daemon backup"}},
	} {
		outcome, err := r.ApplyShared(t.Context(), by, tt.next)
		if err != nil || outcome.Changed != (tt.want != nil) {
			t.Errorf("%+v: outcome %+v, error %v", tt.next, outcome, err)
		}
		want(t, "operations", tt.want, texts(r.fake.Operations()))
		r.sameAsFound(t)
		if n := len(r.State().Services); n != 1 {
			t.Errorf("%d services, want the one there was", n)
		}
	}
	if _, err := r.ApplyShared(t.Context(), by, director.State{Timeouts: conntrack.Timeouts{UDP: -1}}); !errors.Is(err, director.ErrInvalid) {
		t.Errorf("error %v, want one that is %q", err, director.ErrInvalid)
	}
}

// A daemon of a role that no revision has is somebody else's: it is left alone, and
// an order that names its role says so or takes it over.
func TestSyncForeign(t *testing.T) {
	theirs := daemon(backup, "eth7", 9)
	fake := directortest.NewFake(director.State{Timeouts: conntrack.DefaultTimeouts(), Sync: []director.SyncDaemon{theirs}})
	fake.SetFeatures(plane(t, director.PlaneIPVS))
	r := newRig(fake, nil)
	if err := r.Start(t.Context(), director.State{Sync: []director.SyncDaemon{daemon(master, "eth0", 1)}}, by); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.reconcile(t)
	}
	if _, err := r.StopSync(t.Context(), by, master); err != nil {
		t.Fatal(err)
	}
	want(t, "operations", []string{"start sync daemon master", "stop sync daemon master"}, texts(r.fake.Operations()))
	if d := r.Drift(); d.Found != 0 {
		t.Errorf("drift %+v, want none", d)
	}
	if _, err := r.StopSync(t.Context(), by, backup); !errors.Is(err, director.ErrNotFound) {
		t.Errorf("stopped: %v", err)
	}
	if _, err := r.StartSync(t.Context(), by, daemon(backup, "eth0", 1)); !errors.Is(err, director.ErrExists) {
		t.Errorf("started beside it: %v", err)
	}
	if got := r.held(t).Sync; !slices.Equal(got, []director.SyncDaemon{theirs}) {
		t.Errorf("held %v, want theirs", got)
	}

	// Taken over as it is, it is not touched; with other settings it is exchanged.
	if _, err := r.Apply(t.Context(), by, director.State{Sync: []director.SyncDaemon{theirs}}); err != nil {
		t.Fatal(err)
	}
	want(t, "operations", nil, texts(r.fake.Operations()))
	if _, err := r.Apply(t.Context(), by, director.State{Sync: []director.SyncDaemon{daemon(backup, "eth0", 9)}}); err != nil {
		t.Fatal(err)
	}
	want(t, "operations", []string{"stop sync daemon backup", "start sync daemon backup"}, texts(r.fake.Operations()))
	r.sameAsFound(t)
}

// A change that fails puts back the daemons, those of others included.
func TestSyncUndo(t *testing.T) {
	ours, theirs := daemon(master, "eth0", 1), daemon(backup, "eth7", 9)
	fake := directortest.NewFake(director.State{Timeouts: conntrack.DefaultTimeouts(), Sync: []director.SyncDaemon{theirs}})
	fake.SetFeatures(plane(t, director.PlaneIPVS))
	r := newRig(fake, nil)
	if err := r.Start(t.Context(), director.State{Sync: []director.SyncDaemon{ours}}, by); err != nil {
		t.Fatal(err)
	}
	before := r.held(t)
	next := director.State{Services: []director.Service{web()}, Sync: []director.SyncDaemon{daemon(master, "eth1", 1), daemon(backup, "eth1", 1)}}
	for at := range 8 { // stop, stop, start, start, service, three servers
		r.fake.FailAt(at + 1)
		if _, err := r.Apply(t.Context(), by, next); !errors.Is(err, directortest.ErrInjected) {
			t.Fatalf("step %d: error %v", at+1, err)
		}
		wantState(t, "held after a failed change", before, r.held(t))
		if got := r.State().Sync; !slices.Equal(got, []director.SyncDaemon{ours}) {
			t.Errorf("desired %v", got)
		}
	}
	r.fake.FailAt(0)
	if _, err := r.Apply(context.Background(), by, next); err != nil {
		t.Fatal(err)
	}
	r.sameAsFound(t)
}
