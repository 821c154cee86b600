package director_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// sized returns a state of services with so many servers each.
func sized(servers ...int) director.State {
	state := director.State{Timeouts: conntrack.DefaultTimeouts()}
	for i, n := range servers {
		if n < 0 {
			continue // not there
		}
		s := director.Service{Key: mustKey(fmt.Sprintf("tcp://192.0.2.%d:80", i+1)), Scheduler: director.RoundRobin, VIP: director.VIPManaged}
		for j := range n {
			s.Servers = append(s.Servers, server(fmt.Sprintf("10.0.%d.%d:80", i, j+1), realserver.DR, 1))
		}
		state.Services = append(state.Services, s)
	}
	return state
}

func TestGuard(t *testing.T) {
	tests := []struct {
		name          string
		current, next director.State
		limit         int
		want          string // empty: allowed
	}{
		{"nothing_of_nothing", sized(), sized(), 0, ""},
		{"first_services", sized(), sized(1, 1), 0, ""},
		{"nothing_removed", sized(2, 2), sized(2, 2), 0, ""},
		{"added", sized(2, 2), sized(3, 2, 9), 0, ""},
		{"one_server_at_0", sized(100), sized(99), 0, "this would remove 1 of 100 servers: more than the 0 % allowed without force"},
		{"empty_service_at_0", sized(1, 0), sized(1), 0, "this would remove 1 of 2 services: more than the 0 % allowed without force"},
		{"half_at_50", sized(2, 2), sized(2), 50, ""},
		{"half_the_servers_at_50", sized(2, 2), sized(1, 1), 50, ""},
		{"more_than_half_the_servers", sized(2, 3), sized(1, 1), 50, "this would remove 3 of 5 servers: more than the 50 % allowed without force"},
		{"a_large_service", sized(1, 1, 9), sized(1, 1), 50, "this would remove 9 of 11 servers: more than the 50 % allowed without force"},
		{"more_than_half_the_services", sized(9, 0, 0), sized(9), 50, "this would remove 2 of 3 services: more than the 50 % allowed without force"},
		{"half_of_three_rounds_for_nobody", sized(1, 1, 1), sized(1), 66, "this would remove 2 of 3 services: more than the 66 % allowed without force"},
		{"all_at_99", sized(2, 2), sized(), 99, "this would remove 2 of 2 services: more than the 99 % allowed without force"},
		{"all_at_100", sized(2, 2), sized(), 100, ""},
		{"moved_is_removed", sized(2, -1), sized(-1, 2), 50, "this would remove 1 of 1 services: more than the 50 % allowed without force"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if refused := director.Guard(tt.next, tt.current, tt.limit); refused != nil {
				got = refused.Error()
			}
			if got != tt.want {
				t.Errorf("error %q, want %q", got, tt.want)
			}
		})
	}
}

// unset is a limit that is not set.
const unset = -1

// startLimited returns a director with two services of two servers and a limit.
func startLimited(t *testing.T, limit int) *rig {
	t.Helper()
	r := start(t, sized(2, 2).Services...)
	if limit != unset {
		r.SetMaxRemoval(limit)
	}
	return r
}

func TestMaxRemoval(t *testing.T) {
	force := director.Request{Force: true}
	tests := []struct {
		name    string
		limit   int
		by      director.Request
		next    director.State
		refused bool
	}{
		{"default_allows_half", unset, by, sized(2), false},
		{"default_refuses_more", unset, by, sized(1), true},
		{"default_refuses_all", unset, by, sized(), true},
		{"100_allows_all", 100, by, sized(), false},
		{"0_refuses_one", 0, by, sized(2, 1), true},
		{"force_allows_all", unset, force, sized(), false},
		{"force_allows_one_more", 0, force, sized(2, 1), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := startLimited(t, tt.limit)
			before, applies := r.Head(), r.fake.Applies()
			plan, err := r.Plan(t.Context(), tt.next)
			if unforced := tt.refused || tt.by.Force; err != nil || (plan.Guard != nil) != unforced {
				t.Errorf("plan: guard %v, error %v", plan.Guard, err)
			}
			outcome, err := r.Apply(t.Context(), tt.by, tt.next)
			refused := (*director.GuardError)(nil)
			if errors.As(err, &refused) != tt.refused || outcome.Changed == tt.refused {
				t.Errorf("outcome %+v, error %v, want it refused: %v", outcome, err, tt.refused)
			}
			if tt.refused && (r.Head().Number != before.Number || r.fake.Applies() != applies || *refused != *plan.Guard) {
				t.Errorf("head %d, guard %v, plan's %v", r.Head().Number, refused, plan.Guard)
			}
			r.sameAsFound(t)
		})
	}
	t.Run("rollback_is_guarded", func(t *testing.T) {
		r := startLimited(t, unset)
		if _, err := r.Apply(t.Context(), by, sized(2, 2, 2, 2, 2)); err != nil {
			t.Fatal(err)
		}
		_, err := r.Rollback(t.Context(), by, 1)
		if want := "rollback to revision 1: this would remove 3 of 5 services: more than the 50 % allowed without force"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if _, err := r.Rollback(t.Context(), force, 1); err != nil {
			t.Error(err)
		}
	})
	t.Run("an_edit_says_what_it_removes", func(t *testing.T) {
		r := startLimited(t, 0)
		for _, service := range r.State().Services {
			if _, err := r.RemoveService(t.Context(), by, service.Key); err != nil {
				t.Error(err)
			}
		}
		r.sameAsFound(t)
	})
}

func TestBase(t *testing.T) {
	r := start(t, sized(2).Services...)
	for _, base := range []uint64{0, 1, 2, 9, 3} {
		head := r.Head().Number
		_, err := r.Apply(t.Context(), director.Request{Base: base}, sized(2, int(base)))
		conflict := (*director.ConflictError)(nil)
		if base == 0 || base == head {
			if err != nil {
				t.Errorf("base %d at %d: %v", base, head, err)
			}
			continue
		}
		if !errors.As(err, &conflict) || *conflict != (director.ConflictError{Base: base, Head: head}) {
			t.Errorf("base %d at %d: %v, want a conflict", base, head, err)
		}
		if want := fmt.Sprintf("apply: made against revision %d, but revision %d is the newest", base, head); err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if got := r.Head().Number; got != 4 {
		t.Errorf("head %d, want 4", got)
	}
}

func TestWhatChangesNothingMakesNoRevision(t *testing.T) {
	reversed := web()
	for i, j := 0, len(reversed.Servers)-1; i < j; i, j = i+1, j-1 {
		reversed.Servers[i], reversed.Servers[j] = reversed.Servers[j], reversed.Servers[i]
	}
	tests := map[string]func(context.Context, *rig) (director.Outcome, error){
		"apply": func(ctx context.Context, r *rig) (director.Outcome, error) {
			return r.Apply(ctx, by, director.State{Services: []director.Service{dns(), web()}})
		},
		"apply_in_another_order": func(ctx context.Context, r *rig) (director.Outcome, error) {
			return r.Apply(ctx, by, director.State{Services: []director.Service{reversed, dns()}})
		},
		"edit_service": func(ctx context.Context, r *rig) (director.Outcome, error) {
			return r.EditService(ctx, by, web().Key, func(s *director.Service) error { s.Access.Allow = prefixes(); return nil })
		},
		"edit_server": func(ctx context.Context, r *rig) (director.Outcome, error) {
			return r.EditServer(ctx, by, web().Key, web().Servers[1].Address, func(s *realserver.Server) error { s.Weight = 2; return nil })
		},
		"timeouts": func(ctx context.Context, r *rig) (director.Outcome, error) {
			return r.SetTimeouts(ctx, by, conntrack.Timeouts{TCP: 15 * time.Minute})
		},
		"rollback": func(ctx context.Context, r *rig) (director.Outcome, error) { return r.Rollback(ctx, by, 1) },
	}
	for name, do := range tests {
		t.Run(name, func(t *testing.T) {
			r := start(t, web(), dns())
			before := r.Head()
			outcome, err := do(t.Context(), r)
			if diff := cmp.Diff(director.Outcome{Revision: before.RevisionInfo}, outcome, cmpNetip); err != nil || diff != "" {
				t.Errorf("outcome: %v (-want +got):\n%s", err, diff)
			}
			if diff := cmp.Diff(before, r.Head(), cmpNetip); diff != "" {
				t.Errorf("head (-before +after):\n%s", diff)
			}
			want(t, "operations", nil, texts(r.fake.Operations()))
			want(t, "events", nil, r.news())
		})
	}
}

func TestHistory(t *testing.T) {
	r := start(t, web())
	if _, err := r.AddService(t.Context(), director.Request{Who: "eve", Why: "more"}, dns()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RemoveService(t.Context(), director.Request{}, web().Key); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rollback(t.Context(), by, 2); err != nil {
		t.Fatal(err)
	}
	all := []director.RevisionInfo{
		{Number: 4, Who: "ann", Why: "test", Action: "rollback to revision 2"},
		{Number: 3, Action: "remove service tcp://192.0.2.1:80"},
		{Number: 2, Who: "eve", Why: "more", Action: "add service udp://[2001:db8::1]:53"},
		{Number: 1, Who: "ann", Why: "test", Action: "first start"},
	}
	for _, tt := range []struct {
		before uint64
		limit  int
		want   []director.RevisionInfo
	}{{0, 10, all}, {0, 1, all[:1]}, {3, 10, all[2:]}, {1, 10, nil}} {
		got, err := r.History(tt.before, tt.limit)
		if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(director.RevisionInfo{}, "Time"), cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("before %d, limit %d: %v (-want +got):\n%s", tt.before, tt.limit, err, diff)
		}
	}
	old, err := r.Revision(2)
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, "rolled back to", old.State, r.State())
	if _, err := r.Revision(5); !errors.Is(err, director.ErrNotFound) {
		t.Errorf("revision 5: %v, want it not found", err)
	}
	want(t, "last event", []string{"change: revision 4 by ann: rollback to revision 2: test"}, r.news()[2:])
}

// A store that cannot be read says so.
func TestStoreIsBroken(t *testing.T) {
	r := newRig(nil, nil)
	broken := r.over(r.fake, unreadable{r.store})
	if err := broken.Start(t.Context(), director.State{}, by); err == nil || err.Error() != "read the store: damaged" {
		t.Errorf("error %v", err)
	}
}

type unreadable struct{ *directortest.Store }

func (unreadable) Load() (director.Revision, []director.ServiceKey, error) {
	return director.Revision{}, nil, errors.New("damaged")
}
