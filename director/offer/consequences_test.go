package offer_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// killer is a director that notes what it is asked to remove.
type killer struct {
	*director.Director
	mu      sync.Mutex
	filters []director.ConnectionFilter
	failure error
}

// fail has Kill fail with the error, or not if it is nil.
func (k *killer) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failure = err
}

func (k *killer) Kill(_ context.Context, filter director.ConnectionFilter) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.filters = append(k.filters, filter)
	return 0, k.failure
}

func (k *killer) taken() []director.ConnectionFilter {
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	filters := k.filters
	k.filters = nil
	return filters
}

// runKiller is a rig whose Keeper removes connections by the killer.
func runKiller(t *testing.T, service director.Service) (*rig, *killer) {
	t.Helper()
	r := newRig(directortest.NewFake(director.State{}), &directortest.Store{}, nil)
	k := &killer{Director: r.Director}
	if err := r.Start(t.Context(), director.State{Services: []director.Service{service}}, by); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Keeper.Run(ctx, k) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	synctest.Wait()
	return r, k
}

func TestCut(t *testing.T) {
	templates := director.ConnectionFilter{Service: key, Server: first, Kind: director.KindTemplate}
	all := director.ConnectionFilter{Service: key, Server: first}
	persistent := director.Persistence{Timeout: time.Minute, Prefix: 32}
	for name, c := range map[string]struct {
		established director.Established
		persistence director.Persistence
		want        []director.ConnectionFilter
	}{
		"kept":                {director.EstablishedKeep, director.Persistence{}, nil},
		"kept_with_templates": {director.EstablishedKeep, persistent, []director.ConnectionFilter{templates}},
		"cut":                 {director.EstablishedCut, director.Persistence{}, []director.ConnectionFilter{all}},
		"cut_with_templates":  {director.EstablishedCut, persistent, []director.ConnectionFilter{all}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				service := web(checked(), 4, 4)
				service.Health.Established, service.Persistence = c.established, c.persistence
				r, k := runKiller(t, service)
				defer func() { r.stop() }()
				r.allUp(2)
				if got := k.taken(); len(got) > 0 {
					t.Errorf("up: removed %v", got)
				}
				r.checks.say(first, false)
				if diff := cmp.Diff(c.want, k.taken(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
					t.Errorf("removed (-want +got):\n%s", diff)
				}
				r.edit(t, func(s *director.Service) { s.Servers[1].Weight = 0 })
				if got := k.taken(); len(got) > 0 {
					t.Errorf("a weight of 0 that is configured: removed %v", got)
				}
			})
		})
	}
	// A server that lost its weight before it died has connections all the same.
	t.Run("while_sorry_servers_stand_in", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			service := web(checked(), 4, 4)
			service.Health.Established, service.Health.Quorum = director.EstablishedCut, 8
			service.Health.Sorry = []realserver.Server{server(99, 1)}
			r, k := runKiller(t, service)
			defer func() { r.stop() }()
			r.allUp(2)
			r.checks.say(second, false)
			r.want(t, "without the quorum", "10.0.0.1=0 10.0.0.2=0 10.0.0.99=1")
			k.taken()
			r.checks.say(first, false)
			if got := k.taken(); len(got) != 1 || got[0].Server != first || got[0].Kind != "" {
				t.Errorf("removed %v, want all of %s", got, first)
			}
		})
	})
	// Whoever can send packets can have a server suspended: that ends no connection.
	for name, down := range map[string]director.DownAction{"not_by_packets_alone": director.DownInhibit, "not_withdrawn_by_packets": director.DownRemove} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				service := web(checked(), 4, 4)
				service.Health.Established, service.Health.Down = director.EstablishedCut, down
				service.Health.Passive = director.Passive{Resets: 1}
				r, k := runKiller(t, service)
				defer func() { r.stop() }()
				r.allUp(2)
				r.witness.suspend(key, first, 3)
				time.Sleep(time.Second)
				r.want(t, "suspended", "10.0.0.1=0 10.0.0.2=4")
				if got := k.taken(); len(got) > 0 {
					t.Errorf("suspended: removed %v", got)
				}
				r.checks.say(first, false)
				if got := k.taken(); len(got) != 1 || got[0].Server != first || got[0].Kind != "" {
					t.Errorf("confirmed: removed %v, want all of %s", got, first)
				}
				r.want(t, "confirmed", map[director.DownAction]string{director.DownInhibit: "10.0.0.1=0 10.0.0.2=4", director.DownRemove: "10.0.0.2=4"}[down])
			})
		})
	}
	t.Run("again_until_it_is_done_or_the_server_is_back", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			service := web(checked(), 4, 4)
			service.Health.Established = director.EstablishedCut
			r, k := runKiller(t, service)
			defer func() { r.stop() }()
			r.allUp(2)
			k.fail(errLost)
			r.checks.say(first, false)
			r.checks.say(second, false)
			time.Sleep(3 * time.Second)
			if got := k.taken(); len(got) < 6 {
				t.Errorf("tried %d times", len(got))
			}
			r.checks.say(first, true)
			synctest.Wait()
			k.taken()
			k.fail(nil)
			time.Sleep(3 * time.Second)
			if got := k.taken(); len(got) != 1 || got[0].Server != second {
				t.Errorf("removed %v", got)
			}
		})
	})
}

// The commands run as scripts of checks do: outside of the bubble, by the clock.
func TestNotify(t *testing.T) {
	directortest.Privileged(t)
	folder := t.TempDir()
	heard, fifo := filepath.Join(folder, "heard"), filepath.Join(folder, "fifo")
	tell := func(word string) []string {
		return []string{"/bin/sh", "-c", "echo " + word + " %h:%p %v:%q >>" + heard}
	}
	h := checked()
	h.Notify = director.Notify{Up: tell("up"), Down: tell("down"), QuorumUp: tell("quorum-up"), QuorumDown: []string{"/nowhere"}, FIFO: fifo}
	r := newRig(directortest.NewFake(director.State{}), &directortest.Store{}, func(o *offer.Options) { o.Env = health.Env{ScriptUser: "root"} })
	ctx, cancel := context.WithCancel(t.Context())
	if err := r.Start(ctx, director.State{Services: []director.Service{web(h, 4)}}, by); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Keeper.Run(ctx, r.Director) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	began := time.Now()
	until := func(what string, is func() bool) {
		t.Helper()
		for !is() {
			if time.Since(began) > 10*time.Second {
				events, _ := r.events.After(0)
				t.Fatalf("%s; events %+v", what, events)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	until("nobody is asked", func() bool { return len(r.checks.targets()) == 1 })
	r.checks.say(first, true)
	until("it is not up", func() bool { return r.Verdicts()[0].Servers[0].Up })
	r.checks.say(first, false)
	words := func() []string {
		text, _ := os.ReadFile(heard)
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	until("not all commands ran", func() bool { return len(words()) == 3 })
	if diff := cmp.Diff([]string{"up 10.0.0.1:80 192.0.2.1:80", "quorum-up 192.0.2.1:80 192.0.2.1:80", "down 10.0.0.1:80 192.0.2.1:80"}, words()); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	until("a command that cannot run is not told", func() bool {
		return slices.Contains(rigEvents(r), "notify-failed")
	})
	pipe, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	buffer := make([]byte, 4096)
	n, err := pipe.Read(buffer)
	want := "RS [10.0.0.1]:tcp:80 [192.0.2.1]:tcp:80 UP\nVS [192.0.2.1]:tcp:80 UP\nRS [10.0.0.1]:tcp:80 [192.0.2.1]:tcp:80 DOWN\nVS [192.0.2.1]:tcp:80 DOWN\n"
	if diff := cmp.Diff(want, string(buffer[:n])); diff != "" || err != nil {
		t.Errorf("error %v; lines (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff(offer.Notified{Commands: 3, CommandsFailed: 1, Lines: 4}, r.Notified()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func rigEvents(r *rig) (names []string) {
	events, _ := r.events.After(0)
	for _, e := range events {
		names = append(names, string(e.Name))
	}
	return names
}

// Who wants the same of one address shares it; who wants it by the true path does not.
func TestAskedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		one, other := web(checked(), 1, 1), web(checked(), 1)
		other.Key = mustKey("tcp://192.0.2.2:80")
		dr := web(checked(), 1)
		dr.Key = mustKey("tcp://192.0.2.3:80")
		dr.Servers[0].Method = realserver.DR
		r := newRig(directortest.NewFake(director.State{}), &directortest.Store{}, func(o *offer.Options) { o.Dialer = noDialer{} }).begin(t, one, other, dr)
		defer func() { r.stop() }()
		want := []health.Target{{Server: first}, {Server: first, Virtual: dr.Key.Address, Via: "tcp://192.0.2.3:80"}, {Server: second}}
		got := r.checks.targets()
		slices.SortFunc(got, func(a, b health.Target) int {
			return strings.Compare(a.Server.String()+a.Via, b.Server.String()+b.Via)
		})
		if !slices.Equal(got, want) {
			t.Errorf("asked %v, want %v", got, want)
		}
		r.checks.say(first, true)
		r.want(t, "up in all", "10.0.0.1=1 10.0.0.2=0 10.0.0.1=1 10.0.0.1=1")
	})
}

type noDialer struct{ offer.ProbeDialer }
