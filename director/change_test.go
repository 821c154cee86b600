package director_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// other is a service with two servers that the changes add.
func other() director.Service {
	s := web()
	s.Key, s.Name = mustKey("tcp://192.0.2.5:80"), ""
	s.Servers = s.Servers[:2]
	return s
}

// changes are one of each kind, with the steps they take on web, dns and a
// foreign service.
var changes = []struct {
	name string
	do   func(context.Context, *director.Director) (director.Outcome, error)
	want []string // operations
}{
	{
		"add_service", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.AddService(ctx, by, other())
		},
		[]string{
			"add service tcp://192.0.2.5:80",
			"add server 10.0.0.1:8080 to tcp://192.0.2.5:80",
			"add server 10.0.0.2:80 to tcp://192.0.2.5:80",
		},
	},
	{
		"edit_service", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.EditService(ctx, by, web().Key, func(s *director.Service) error {
				s.Scheduler = director.Maglev
				s.Servers = []realserver.Server{server("10.0.0.7:80", realserver.NAT, 1), server("10.0.0.2:80", realserver.DR, 9)}
				return nil
			})
		},
		[]string{
			"remove server 10.0.0.1:8080 from tcp://192.0.2.1:80",
			"remove server 192.0.2.1:80 from tcp://192.0.2.1:80",
			"edit service tcp://192.0.2.1:80",
			"edit server 10.0.0.2:80 of tcp://192.0.2.1:80",
			"add server 10.0.0.7:80 to tcp://192.0.2.1:80",
		},
	},
	{
		"remove_service", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.RemoveService(ctx, by, web().Key)
		},
		[]string{"remove service tcp://192.0.2.1:80"},
	},
	{
		"add_server", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.AddServer(ctx, by, web().Key, server("10.0.0.7:0", realserver.DR, 1))
		},
		[]string{"add server 10.0.0.7:80 to tcp://192.0.2.1:80"},
	},
	{
		"edit_server", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.EditServer(ctx, by, web().Key, netip.MustParseAddrPort("10.0.0.2:0"), func(s *realserver.Server) error {
				s.Weight = 0
				return nil
			})
		},
		[]string{"edit server 10.0.0.2:80 of tcp://192.0.2.1:80"},
	},
	{
		"remove_server", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.RemoveServer(ctx, by, web().Key, netip.MustParseAddrPort("10.0.0.2:0"))
		},
		[]string{"remove server 10.0.0.2:80 from tcp://192.0.2.1:80"},
	},
	{
		"set_timeouts", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.SetTimeouts(ctx, by, conntrack.Timeouts{TCP: time.Hour})
		},
		[]string{"set timeouts tcp 1h0m0s, tcp-fin 2m0s, udp 5m0s"},
	},
	{
		"apply_and_take_over", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			edited, mail := web(), foreign()
			edited.Servers[1].Weight = 7
			mail.Servers = []realserver.Server{server("10.0.0.26:25", realserver.DR, 1), server("10.0.0.25:25", realserver.DR, 4)}
			return d.Apply(ctx, by, director.State{
				Services: []director.Service{mail, edited, other()}, Timeouts: conntrack.Timeouts{UDP: time.Minute},
			})
		},
		[]string{
			"set timeouts tcp 15m0s, tcp-fin 2m0s, udp 1m0s",
			"remove service udp://[2001:db8::1]:53",
			"add service tcp://192.0.2.5:80",
			"edit server 10.0.0.2:80 of tcp://192.0.2.1:80",
			"edit server 10.0.0.25:25 of tcp://192.0.2.200:25",
			"add server 10.0.0.1:8080 to tcp://192.0.2.5:80",
			"add server 10.0.0.2:80 to tcp://192.0.2.5:80",
			"add server 10.0.0.26:25 to tcp://192.0.2.200:25",
		},
	},
	{
		"rollback", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return d.Rollback(ctx, by, 1)
		},
		[]string{
			"edit service udp://[2001:db8::1]:53",
			"add server 192.0.2.1:80 to tcp://192.0.2.1:80",
		},
	},
	{
		"adopt", func(ctx context.Context, d *director.Director) (director.Outcome, error) {
			return adopt(ctx, d, foreign().Key)
		},
		nil,
	},
}

// startChanges returns a director with web, dns and a foreign service; web and
// dns were edited in revision 2 if the change is a rollback.
func startChanges(t *testing.T, name string) *rig {
	t.Helper()
	r := start(t, web(), dns())
	r.fake.Meddle(func(s *director.State) { s.Services = append(s.Services, foreign()) })
	if name == "rollback" {
		edited, named := web(), dns()
		edited.Servers, named.Name = edited.Servers[:2], "dns"
		if _, err := r.Apply(t.Context(), by, director.State{Services: []director.Service{edited, named}}); err != nil {
			t.Fatal(err)
		}
	}
	r.reconcile(t)
	r.fake.Operations()
	r.news()
	return r
}

// withForeign adds the foreign service to a state that has none.
func withForeign(s director.State) director.State {
	if s.Service(foreign().Key) < 0 {
		s.Services = append(s.Services, foreign())
	}
	return s.Normalize()
}

func TestChange(t *testing.T) {
	for _, tt := range changes {
		t.Run(tt.name, func(t *testing.T) {
			r := startChanges(t, tt.name)
			before := r.Head()
			outcome, err := tt.do(t.Context(), r.Director)
			if err != nil {
				t.Fatal(err)
			}
			want(t, "operations", tt.want, texts(r.fake.Operations()))
			var did []string
			for _, step := range outcome.Steps {
				did = append(did, step.Operation.String())
			}
			want(t, "steps", tt.want, did)
			wantState(t, "held", withForeign(r.State()), r.held(t))

			head := r.Head()
			if info := outcome.Revision; !outcome.Changed || info != head.RevisionInfo || info.Number != before.Number+1 || info.Who != "ann" || info.Why != "test" || info.Time.IsZero() {
				t.Errorf("outcome %+v, head %+v", outcome, head.RevisionInfo)
			}
			stored, intended, err := r.store.Load()
			if diff := cmp.Diff(head, stored, cmpNetip); err != nil || diff != "" || len(intended) != 0 {
				t.Errorf("stored: %v, intended %v (-head +stored):\n%s", err, intended, diff)
			}
			if news := r.news(); len(news) == 0 || news[0] != fmt.Sprintf("change: revision %d by ann: %s: test", head.Number, head.Action) {
				t.Errorf("events %v, want the change first", news)
			}
			r.reconcile(t)
			if drift := r.Drift(); drift.Found != 0 {
				t.Errorf("drift after it: %+v", drift)
			}
		})
	}
}

func TestChangeFailsAtEveryStep(t *testing.T) {
	for _, tt := range changes {
		for step := 1; step <= len(tt.want); step++ {
			t.Run(fmt.Sprintf("%s/%d", tt.name, step), func(t *testing.T) {
				r := startChanges(t, tt.name)
				before, held := r.Head(), r.held(t)
				r.fake.FailAt(step)
				outcome, err := tt.do(t.Context(), r.Director)
				if !errors.Is(err, directortest.ErrInjected) || !strings.HasSuffix(err.Error(), tt.want[step-1]+": injected failure") {
					t.Fatalf("error %v, want one that ends in %q", err, tt.want[step-1])
				}
				if outcome.Changed || outcome.Steps != nil {
					t.Errorf("outcome %+v, want none", outcome)
				}
				did := texts(r.fake.Operations())
				want(t, "operations before it", tt.want[:step-1], did[:min(step-1, len(did))])
				r.unchanged(t, before, held)
				news := r.news()
				if step > 1 {
					want(t, "events", []string{"change-failed: " + err.Error(), news[len(news)-1]}, news)
					if !strings.HasPrefix(news[1], "rolled-back: ") {
						t.Errorf("events %v, want that it was rolled back", news)
					}
				} else {
					want(t, "events", []string{"change-failed: " + err.Error()}, news)
				}

				// The director goes on from there.
				if _, err := tt.do(t.Context(), r.Director); err != nil {
					t.Errorf("again: %v", err)
				}
				wantState(t, "held after the second try", withForeign(r.State()), r.held(t))
			})
		}
	}
}

// unchanged fails the test if a failed change left a trace.
func (r *rig) unchanged(t *testing.T, head director.Revision, held director.State) {
	t.Helper()
	stored, _, err := r.store.Load()
	if diff := cmp.Diff(head, r.Head(), cmpNetip); err != nil || stored.Number != head.Number || diff != "" {
		t.Errorf("head: %v, stored %d (-before +after):\n%s", err, stored.Number, diff)
	}
	wantState(t, "held, back as before", held, r.held(t))
	r.reconcile(t)
	if drift := r.Drift(); drift.Found != 0 || len(drift.Foreign) != 1 {
		t.Errorf("drift after it: %+v, want none and the foreign service", drift)
	}
}

func TestChangeFailsInTheStore(t *testing.T) {
	full := errors.New("no space left")
	for _, tt := range changes {
		t.Run(tt.name+"/append", func(t *testing.T) {
			r := startChanges(t, tt.name)
			before, held := r.Head(), r.held(t)
			r.store.FailAppend(full)
			_, err := tt.do(t.Context(), r.Director)
			if wantText := fmt.Sprintf("store revision %d: no space left", before.Number+1); !errors.Is(err, full) || !strings.HasSuffix(err.Error(), wantText) {
				t.Fatalf("error %v, want one that ends in %q", err, wantText)
			}
			want(t, "operations before it", tt.want, texts(r.fake.Operations())[:len(tt.want)])
			r.unchanged(t, before, held)
			r.store.FailAppend(nil)
			if _, err := tt.do(t.Context(), r.Director); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
	t.Run("add_service/intend", func(t *testing.T) {
		r := startChanges(t, "")
		before, held := r.Head(), r.held(t)
		r.store.FailWrites(full)
		_, err := r.AddService(t.Context(), by, other())
		if wantText := "add service tcp://192.0.2.5:80: store what is intended: no space left"; err == nil || err.Error() != wantText {
			t.Fatalf("error %v, want %s", err, wantText)
		}
		want(t, "operations", nil, texts(r.fake.Operations()))
		r.unchanged(t, before, held)
		r.store.FailWrites(nil)
		if _, err := r.AddService(t.Context(), by, other()); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

func TestChangeCancelled(t *testing.T) {
	r := startChanges(t, "")
	before, held := r.Head(), r.held(t)
	ctx, cancel := context.WithCancel(t.Context())
	steps := 0
	r.fake.FailIf(func(director.Operation) error {
		if steps++; steps == 2 {
			cancel() // in the middle; what was done is undone all the same
			return ctx.Err()
		}
		return nil
	})
	if _, err := r.AddService(ctx, by, other()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancelled", err)
	}
	want(t, "operations", []string{"add service tcp://192.0.2.5:80", "remove service tcp://192.0.2.5:80"}, texts(r.fake.Operations()))
	r.unchanged(t, before, held)
}
