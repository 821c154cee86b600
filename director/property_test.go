package director_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// world is a director that random things happen to. Shunt's services come from
// genState's keys; the foreign ones are apart from them.
type world struct {
	*rig
	plane   string
	foreign map[director.ServiceKey]director.Service // as their owner left them
	allowed uint64                                   // the newest revision there can be
}

// server draws a server of the service, of genState's space.
func (w *world) server(t *rapid.T, key director.ServiceKey) realserver.Server {
	return genServerOf(t, key, rapid.IntRange(1, 5).Draw(t, "server"), w.plane)
}

// edit runs a random change; whether it is refused is not the question here.
func (w *world) edit(t *rapid.T) {
	ctx := context.Background()
	key := rapid.SampledFrom(genKeys(w.plane)).Draw(t, "service")
	drawn := w.server(t, key)
	var err error
	switch rapid.SampledFrom([]string{"apply", "rollback", "add", "edit", "remove", "add-server", "edit-server", "remove-server", "timeouts", "start-sync", "stop-sync"}).Draw(t, "change") {
	case "apply":
		_, err = w.Apply(ctx, director.Request{Force: rapid.Bool().Draw(t, "force")}, genState(t, "next", w.plane))
	case "rollback":
		_, err = w.Rollback(ctx, by, rapid.Uint64Range(0, w.Head().Number).Draw(t, "revision"))
	case "add":
		_, err = w.AddService(ctx, by, director.Service{Key: key, Servers: []realserver.Server{drawn}})
	case "edit":
		_, err = w.EditService(ctx, by, key, func(s *director.Service) error {
			s.Scheduler = director.Maglev
			s.Servers = []realserver.Server{drawn}
			return nil
		})
	case "start-sync":
		for _, d := range genSync(t) {
			_, err = w.StartSync(ctx, by, d)
			if err == nil {
				w.allowed++
			}
		}
		return
	case "stop-sync":
		_, err = w.StopSync(ctx, by, rapid.SampledFrom([]director.SyncRole{director.SyncMaster, director.SyncBackup}).Draw(t, "role"))
	case "remove":
		_, err = w.RemoveService(ctx, by, key)
	case "add-server":
		_, err = w.AddServer(ctx, by, key, drawn)
	case "edit-server":
		_, err = w.EditServer(ctx, by, key, drawn.Address, func(s *realserver.Server) error { *s = drawn; return nil })
	case "remove-server":
		_, err = w.RemoveServer(ctx, by, key, drawn.Address)
	case "timeouts":
		_, err = w.SetTimeouts(ctx, by, conntrack.Timeouts{UDP: time.Duration(rapid.IntRange(1, 9).Draw(t, "udp")) * time.Second})
	}
	if err == nil {
		w.allowed++
	}
}

// meddle changes anything of the kernel's side.
func (w *world) meddleRandomly(t *rapid.T) {
	w.fake.Meddle(func(s *director.State) {
		what := rapid.SampledFrom([]string{"timeouts", "all", "remove", "replace", "settings", "servers", "foreign", "sync"}).Draw(t, "drift")
		switch what {
		case "timeouts":
			s.Timeouts.TCP = time.Duration(rapid.IntRange(1, 9).Draw(t, "tcp")) * time.Hour
			return
		case "sync":
			if w.plane == director.PlaneIPVS {
				s.Sync = genSync(t)
			}
			return
		case "all":
			s.Services, s.Sync = nil, nil
			clear(w.foreign)
			return
		case "foreign":
			service := foreign()
			service.Key = mustKey(fmt.Sprintf("tcp://192.0.2.%d:25", rapid.IntRange(101, 102).Draw(t, "foreign")))
			service.Servers[0].Weight = rapid.Uint32Range(0, 5).Draw(t, "weight")
			s.Services = slices.DeleteFunc(s.Services, func(s director.Service) bool { return s.Key == service.Key })
			delete(w.foreign, service.Key)
			if rapid.Bool().Draw(t, "there") {
				s.Services = append(s.Services, service.Clone())
				w.foreign[service.Key] = service
			}
			return
		}
		var ours []int
		for i, service := range s.Services {
			if _, ok := w.foreign[service.Key]; !ok {
				ours = append(ours, i)
			}
		}
		if len(ours) == 0 {
			return
		}
		i := rapid.SampledFrom(ours).Draw(t, "which")
		drawn := genState(t, "meddled", w.plane)
		switch what {
		case "remove":
			s.Services = slices.Delete(s.Services, i, i+1)
		case "replace":
			if n := len(drawn.Services); n > 0 {
				service := drawn.Services[n-1]
				service.Key = s.Services[i].Key
				s.Services[i] = service
			}
		case "settings":
			s.Services[i].Name = rapid.SampledFrom([]string{"", "x"}).Draw(t, "name")
			s.Services[i].Access.Deny = prefixes("0.0.0.0/0")
		case "servers":
			server := w.server(t, s.Services[i].Key)
			if j := s.Services[i].Server(server.Address); j >= 0 && rapid.Bool().Draw(t, "gone") {
				s.Services[i].Servers = slices.Delete(s.Services[i].Servers, j, j+1)
			} else if j >= 0 {
				s.Services[i].Servers[j] = server
			} else {
				s.Services[i].Servers = append(s.Services[i].Servers, server)
			}
		}
	})
}

// disturb has some operations and writes fail, from now on or once.
func (w *world) disturb(t *rapid.T) {
	switch rapid.SampledFrom([]string{"once", "some", "append", "writes", "found", "heal"}).Draw(t, "failure") {
	case "once":
		w.fake.FailAt(rapid.IntRange(1, 6).Draw(t, "at"))
	case "some":
		n := 0
		every := rapid.IntRange(1, 3).Draw(t, "every")
		w.fake.FailIf(func(director.Operation) error {
			if n++; n%every == 0 {
				return directortest.ErrInjected
			}
			return nil
		})
	case "append":
		w.store.FailAppend(errors.New("full"))
	case "writes":
		w.store.FailWrites(errors.New("read-only"))
	case "found":
		w.fake.FailFound(errBlind)
	case "heal":
		w.heal()
	}
}

func (w *world) heal() {
	w.fake.FailAt(0)
	w.fake.FailIf(nil)
	w.fake.FailFound(nil)
	w.store.FailWrites(nil)
}

// converges looks once without failures and checks all that is promised.
func (w *world) converges(t *rapid.T) {
	w.heal()
	w.fake.Operations()
	w.fake.Wasted()
	before, _ := w.fake.Found(context.Background())
	desired := w.State()
	if err := w.Reconcile(context.Background()); err != nil {
		t.Fatal(err)
	}
	found, _ := w.fake.Found(context.Background())
	ours := director.State{Timeouts: found.Timeouts}
	for _, role := range []director.SyncRole{director.SyncMaster, director.SyncBackup} {
		is := func(d director.SyncDaemon) bool { return d.Role == role }
		was, now := slices.IndexFunc(before.Sync, is), slices.IndexFunc(found.Sync, is)
		switch {
		case slices.ContainsFunc(desired.Sync, is):
			if now >= 0 {
				ours.Sync = append(ours.Sync, found.Sync[now])
			}
		case (was >= 0) != (now >= 0) || was >= 0 && before.Sync[was] != found.Sync[now]:
			t.Errorf("the %s, which is not ours, was touched: %v, then %v", role, before.Sync, found.Sync)
		}
	}
	theirs := make(map[director.ServiceKey]director.Service)
	for _, service := range found.Services {
		if _, ok := w.foreign[service.Key]; ok {
			theirs[service.Key] = service
		} else {
			ours.Services = append(ours.Services, service)
		}
	}
	if diff := cmp.Diff(desired, ours, equalStates...); diff != "" {
		t.Errorf("not converged (-desired +found):\n%s", diff)
	}
	if diff := cmp.Diff(w.foreign, theirs, equalStates...); diff != "" {
		t.Errorf("foreign services were touched (-before +after):\n%s", diff)
	}
	if wasted := w.fake.Wasted(); len(wasted) != 0 {
		t.Errorf("operations that changed nothing: %v", texts(wasted))
	}
	// No operation names what was right.
	right := make(map[director.ServiceKey]bool)
	for _, service := range desired.Services {
		if i := before.Service(service.Key); i >= 0 && cmp.Equal(service, before.Services[i], equalStates...) {
			right[service.Key] = true
		}
	}
	ops := w.fake.Operations()
	for _, step := range director.Explain(ops, before) {
		if right[step.Service] {
			t.Errorf("%s, though %s was right", step, step.Service)
		}
		switch op := step.Operation.(type) {
		case director.SetTimeouts:
			if before.Timeouts == desired.Timeouts {
				t.Errorf("%s, though they were right", step)
			}
		case director.StartSync:
			if slices.Contains(before.Sync, op.Daemon) {
				t.Errorf("%s, though it was right", step)
			}
		}
	}
	if drift := w.Drift(); drift.Pending != nil || len(drift.Foreign) != len(w.foreign) {
		t.Errorf("drift %+v, want nothing pending and %d foreign", drift, len(w.foreign))
	}
	if stored, _, err := w.store.Load(); err != nil || cmp.Diff(w.Head(), stored, cmpNetip) != "" {
		t.Errorf("stored %+v, error %v, want the head %+v", stored, err, w.Head())
	}
	if n := w.Head().Number; n > w.allowed {
		t.Errorf("revision %d, but %d changes were accepted", n, w.allowed)
	}
}

// Whatever is wished for, done behind our back and goes wrong, in whatever
// order and with restarts in between: one look without failures makes the kernel
// equal to the head, by operations that each were needed, and what is foreign
// stays as it is.
func TestRandomHistoriesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{director.PlaneXDP, director.PlaneIPVS}).Draw(t, "plane")
		fake := directortest.NewFake(director.State{Timeouts: conntrack.DefaultTimeouts()})
		features, err := director.FeaturesOf(name)
		if err != nil {
			t.Fatal(err)
		}
		fake.SetFeatures(features)
		w := &world{rig: newRig(fake, nil), plane: name, foreign: make(map[director.ServiceKey]director.Service), allowed: 1}
		if err := w.Start(context.Background(), genState(t, "initial", name), by); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 12).Draw(t, "happenings") {
			switch rapid.SampledFrom([]string{"edit", "edit", "drift", "drift", "fail", "look", "restart", "converge"}).Draw(t, "happens") {
			case "edit":
				w.edit(t)
			case "drift":
				w.meddleRandomly(t)
			case "fail":
				w.disturb(t)
			case "look":
				_ = w.Reconcile(context.Background()) // it may be blind
			case "restart":
				w.fake.FailFound(nil)
				w.rig = w.restart()
				if err := w.Start(context.Background(), genState(t, "file", name), by); err != nil {
					t.Fatal(err)
				}
			case "converge":
				w.converges(t)
			}
		}
		w.converges(t)
	})
}
