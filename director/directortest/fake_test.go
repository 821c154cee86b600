package directortest_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

var fakeKey = director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")}

func fakeServer(weight uint32) realserver.Server {
	return realserver.Server{Address: netip.MustParseAddrPort("10.0.0.1:80"), Weight: weight}
}

// steps lead from nothing to a service with a server and back, each changing
// something.
func steps() []director.Operation {
	service := director.Service{Key: fakeKey, Scheduler: director.RoundRobin, Servers: []realserver.Server{fakeServer(9)}}
	named := service
	named.Name = "web"
	return []director.Operation{
		director.SetTimeouts{Timeouts: conntrack.DefaultTimeouts()},
		director.AddService{Service: service},
		director.EditService{Service: named},
		director.AddServer{Key: fakeKey, Server: fakeServer(1)},
		director.EditServer{Key: fakeKey, Server: fakeServer(2)},
		director.RemoveServer{Key: fakeKey, Address: fakeServer(0).Address},
		director.RemoveService{Key: fakeKey},
		director.StartSync{Daemon: director.SyncDaemon{Role: director.SyncMaster}.Normalize()},
		director.StopSync{Role: director.SyncMaster},
	}
}

func TestFakeOperationsAreIdempotent(t *testing.T) {
	fake := new(directortest.Fake)
	for _, op := range steps() {
		for try := range 2 {
			if err := fake.Apply(t.Context(), []director.Operation{op}); err != nil {
				t.Errorf("%s, try %d: %v", op, try, err)
			}
			if wasted := fake.Wasted(); len(wasted) != try {
				t.Errorf("%s, try %d: %v wasted, want the second try", op, try, wasted)
			}
		}
	}
	if ops := fake.Operations(); len(ops) != 2*len(steps()) || fake.Operations() != nil || fake.Applies() != len(ops) {
		t.Errorf("%d operations of %d calls, want each once", len(ops), fake.Applies())
	}
	found, err := fake.Found(t.Context())
	if err != nil || len(found.Services) != 0 || found.Timeouts != conntrack.DefaultTimeouts() {
		t.Errorf("found %+v, error %v", found, err)
	}
}

func TestFakeNeedsTheService(t *testing.T) {
	fake := new(directortest.Fake)
	for i, op := range steps() {
		err := fake.Apply(t.Context(), []director.Operation{op})
		if i == 1 {
			fake = new(directortest.Fake) // without the service from here on
		}
		_, edit := op.(director.EditService)
		_, add := op.(director.AddServer)
		_, change := op.(director.EditServer)
		if want := edit || add || change; errors.Is(err, director.ErrNotFound) != want {
			t.Errorf("%s: %v, want it not found: %v", op, err, want)
		}
	}
}

func TestFakeHasOneSyncDaemonOfARole(t *testing.T) {
	fake := new(directortest.Fake)
	for _, tt := range []struct {
		daemon director.SyncDaemon
		want   error
	}{
		{director.SyncDaemon{Role: director.SyncMaster, ID: 1}, nil},
		{director.SyncDaemon{Role: director.SyncMaster, ID: 2}, director.ErrExists},
		{director.SyncDaemon{Role: director.SyncBackup, ID: 2}, nil},
	} {
		if err := fake.Apply(t.Context(), []director.Operation{director.StartSync{Daemon: tt.daemon}}); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.daemon, err, tt.want)
		}
	}
}

func TestFakeFails(t *testing.T) {
	refused := errors.New("refused")
	tests := []struct {
		name string
		set  func(*directortest.Fake)
		at   int // the step that fails, from 0
		want error
	}{
		{"at_a_step", func(f *directortest.Fake) { f.FailAt(3) }, 2, directortest.ErrInjected},
		{"by_what_it_is", func(f *directortest.Fake) {
			f.FailIf(func(op director.Operation) error {
				if _, ok := op.(director.EditServer); ok {
					return refused
				}
				return nil
			})
		}, 4, refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake := new(directortest.Fake)
			tt.set(fake)
			err := fake.Apply(t.Context(), steps())
			failed := (*director.OperationError)(nil)
			if !errors.Is(err, tt.want) || !errors.As(err, &failed) || failed.Operation.String() != steps()[tt.at].String() {
				t.Errorf("error %v, want %v of %s", err, tt.want, steps()[tt.at])
			}
			if n := len(fake.Operations()); n != tt.at {
				t.Errorf("%d operations, want those before", n)
			}
			fake.FailIf(nil)
			if err := fake.Apply(t.Context(), steps()); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
	t.Run("found", func(t *testing.T) {
		fake := new(directortest.Fake)
		fake.FailFound(refused)
		if _, err := fake.Found(t.Context()); !errors.Is(err, refused) {
			t.Errorf("error %v", err)
		}
	})
}

// What the fake returns and what it was given stay apart from what it holds.
func TestFakeKeepsItsOwn(t *testing.T) {
	given := director.State{Services: []director.Service{{Key: fakeKey, Servers: []realserver.Server{fakeServer(1)}}}}
	fake := directortest.NewFake(given)
	given.Services[0].Servers[0].Weight = 7
	found, _ := fake.Found(t.Context())
	if got := found.Services[0].Servers[0].Weight; got != 1 {
		t.Errorf("weight %d through what was given", got)
	}
	found.Services[0].Servers[0].Weight = 8
	fake.Meddle(func(s *director.State) { s.Services[0].Name = "meddled" })
	found, _ = fake.Found(t.Context())
	if s := found.Services[0]; s.Servers[0].Weight != 1 || s.Name != "meddled" {
		t.Errorf("found %+v, want weight 1 and what was meddled", s)
	}
}

func TestStore(t *testing.T) {
	store := new(directortest.Store)
	if head, intended, err := store.Load(); head.Number != 0 || intended != nil || err != nil {
		t.Errorf("empty: %+v, %v, %v", head, intended, err)
	}
	if err := store.Append(director.Revision{RevisionInfo: director.RevisionInfo{Number: 2}}); err == nil || err.Error() != "revision 2: want 1" {
		t.Errorf("a gap: %v", err)
	}
	for n := range uint64(3) {
		if err := store.Intend([]director.ServiceKey{fakeKey}); err != nil {
			t.Fatal(err)
		}
		if _, intended, _ := store.Load(); !slices.Equal(intended, []director.ServiceKey{fakeKey}) {
			t.Errorf("intended %v", intended)
		}
		r := director.Revision{
			RevisionInfo: director.RevisionInfo{Number: n + 1},
			State:        director.State{Services: []director.Service{{Key: fakeKey, Servers: []realserver.Server{fakeServer(uint32(n))}}}},
		}
		if err := store.Append(r); err != nil {
			t.Fatal(err)
		}
		r.State.Services[0].Servers[0].Weight = 99
		head, intended, err := store.Load()
		if err != nil || head.Number != n+1 || len(intended) != 0 || head.State.Services[0].Servers[0].Weight != uint32(n) {
			t.Errorf("head %+v, intended %v, error %v", head, intended, err)
		}
		head.State.Services[0].Servers[0].Weight = 98
		if again, err := store.Revision(n + 1); err != nil || again.State.Services[0].Servers[0].Weight != uint32(n) {
			t.Errorf("revision %+v, error %v", again, err)
		}
	}
	for _, n := range []uint64{0, 4} {
		if _, err := store.Revision(n); !errors.Is(err, director.ErrNotFound) {
			t.Errorf("revision %d: %v, want it not found", n, err)
		}
	}
	for _, tt := range []struct {
		before uint64
		limit  int
		want   []uint64
	}{{0, 9, []uint64{3, 2, 1}}, {0, 2, []uint64{3, 2}}, {3, 1, []uint64{2}}, {1, 9, nil}} {
		infos, err := store.History(tt.before, tt.limit)
		var got []uint64
		for _, info := range infos {
			got = append(got, info.Number)
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("history before %d, limit %d: %v, %v, want %v", tt.before, tt.limit, got, err, tt.want)
		}
	}
}

func TestStoreFails(t *testing.T) {
	full := errors.New("full")
	one := director.Revision{RevisionInfo: director.RevisionInfo{Number: 1}}
	for name, fails := range map[string][2]error{"append": {nil, full}, "writes": {full, full}, "nothing": {nil, nil}} {
		t.Run(name, func(t *testing.T) {
			store := new(directortest.Store)
			switch name {
			case "append":
				store.FailAppend(full)
			case "writes":
				store.FailWrites(full)
			}
			if err := store.Intend(nil); err != fails[0] {
				t.Errorf("intend: %v", err)
			}
			if err := store.Append(one); err != fails[1] {
				t.Errorf("append: %v", err)
			}
			store.FailWrites(nil)
			if head, _, _ := store.Load(); (head.Number == 0) != (fails[1] != nil) {
				t.Errorf("head %d", head.Number)
			}
		})
	}
}
