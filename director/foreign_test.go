package director_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
)

const (
	foundMail = "foreign-found: service tcp://192.0.2.200:25 is in the kernel, but not Shunt's: it is left alone"
	goneMail  = "foreign-gone: foreign service tcp://192.0.2.200:25 is gone or was adopted"
)

// appear has somebody else add a service to the kernel, and vanish remove it.
func (r *rig) appear(s director.Service) {
	r.fake.Meddle(func(state *director.State) { state.Services = append(state.Services, s.Clone()) })
}

func (r *rig) vanish(key director.ServiceKey) {
	r.fake.Meddle(func(state *director.State) {
		state.Services = slices.DeleteFunc(state.Services, func(s director.Service) bool { return s.Key == key })
	})
}

func wantForeign(t *testing.T, r *rig, want ...director.Service) {
	t.Helper()
	if diff := cmp.Diff(want, r.Drift().Foreign, equalStates...); diff != "" {
		t.Errorf("foreign (-want +got):\n%s", diff)
	}
}

func TestForeignIsShownAndLeftAlone(t *testing.T) {
	r := start(t, web())
	r.appear(foreign())
	for _, events := range [][]string{{foundMail}, nil} {
		r.reconcile(t)
		want(t, "events", events, r.news())
		wantForeign(t, r, foreign())
	}
	r.meddle(foreign().Key, func(s *director.Service) { s.Servers[0].Weight = 9 }) // as its owner pleases
	r.reconcile(t)
	edited := foreign()
	edited.Servers[0].Weight = 9
	wantForeign(t, r, edited)

	// Whatever is done to others does not touch it.
	for _, do := range []func() (director.Outcome, error){
		func() (director.Outcome, error) { return r.AddService(t.Context(), by, dns()) },
		func() (director.Outcome, error) { return r.RemoveService(t.Context(), by, dns().Key) },
		func() (director.Outcome, error) {
			return r.Apply(t.Context(), director.Request{Force: true}, director.State{})
		},
		func() (director.Outcome, error) { return r.Rollback(t.Context(), by, 1) },
	} {
		if outcome, err := do(); err != nil || !outcome.Changed {
			t.Errorf("outcome %+v, error %v", outcome, err)
		}
		held := r.held(t)
		if diff := cmp.Diff(edited, held.Services[held.Service(foreign().Key)], cmpNetip); diff != "" {
			t.Errorf("the foreign service (-want +got):\n%s", diff)
		}
	}
	if d := r.Drift(); d.Found != 0 {
		t.Errorf("drift %+v, want none", d)
	}

	r.news()
	r.vanish(foreign().Key)
	for _, events := range [][]string{{goneMail}, nil} {
		r.reconcile(t)
		want(t, "events", events, r.news())
		wantForeign(t, r)
	}
}

func TestAddServiceDoesNotTakeOver(t *testing.T) {
	r := start(t, web())
	r.appear(foreign()) // since the last look
	_, err := r.AddService(t.Context(), by, foreign())
	wantText := "add service tcp://192.0.2.200:25: the kernel has one that Shunt does not manage: adopt it, or remove it there: exists already"
	if !errors.Is(err, director.ErrExists) || err.Error() != wantText {
		t.Errorf("error %v, want %s", err, wantText)
	}
	want(t, "operations", nil, texts(r.fake.Operations()))
	r.reconcile(t)
	wantForeign(t, r, foreign())
	r.vanish(foreign().Key) // since the last look, too
	if _, err := r.AddService(t.Context(), by, foreign()); err != nil {
		t.Errorf("once it is gone: %v", err)
	}
	r.sameAsFound(t)
}

func TestApplyTakesOver(t *testing.T) {
	r := start(t, web())
	r.appear(foreign())
	r.reconcile(t)
	r.news()
	mail := foreign()
	mail.Servers[0].Weight = 0
	mail.Name = ""
	outcome, err := r.Apply(t.Context(), by, director.State{Services: []director.Service{web(), mail}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "steps", []string{
		"edit service tcp://192.0.2.200:25: name mail → none",
		"drain server 10.0.0.25:25 of tcp://192.0.2.200:25: weight 3 → 0",
	}, stepTexts(outcome.Steps))
	want(t, "events", []string{"change: revision 2 by ann: apply: test", goneMail}, r.news())
	wantForeign(t, r) // at once, not at the next look
	r.sameAsFound(t)
	r.reconcile(t)
	want(t, "events of the next look", nil, r.news())
	if _, err := r.RemoveService(t.Context(), by, mail.Key); err != nil {
		t.Fatal(err)
	}
	r.sameAsFound(t)
}

func TestAdopt(t *testing.T) {
	r := start(t, web())
	r.appear(foreign())
	r.reconcile(t)
	r.news()
	outcome, err := adopt(t.Context(), r.Director, foreign().Key)
	if err != nil {
		t.Fatal(err)
	}
	if !outcome.Changed || outcome.Revision.Number != 2 || outcome.Revision.Action != "adopt service tcp://192.0.2.200:25" || len(outcome.Steps) != 0 {
		t.Errorf("outcome %+v", outcome)
	}
	want(t, "operations", nil, texts(r.fake.Operations()))
	want(t, "events", []string{"change: revision 2 by ann: adopt service tcp://192.0.2.200:25: test", goneMail}, r.news())
	events, _ := r.events.After(0)
	if e := events[len(events)-2]; e.Service != "tcp://192.0.2.200:25" || e.Revision != 2 {
		t.Errorf("event %+v, want the service and the revision", e)
	}
	if _, err := adopt(t.Context(), r.Director, foreign().Key); !errors.Is(err, director.ErrExists) {
		t.Errorf("adopted twice: %v", err)
	}

	// From then on it is kept so.
	r.meddle(foreign().Key, func(s *director.Service) { s.Servers[0].Weight = 9 })
	r.reconcile(t)
	want(t, "operations", []string{"edit server 10.0.0.25:25 of tcp://192.0.2.200:25"}, texts(r.fake.Operations()))
	again := r.restart()
	if err := again.Start(t.Context(), director.State{}, by); err != nil {
		t.Fatal(err)
	}
	wantForeign(t, again)
	again.sameAsFound(t)
}

// adopt adopts one service; its refusal is the error.
func adopt(ctx context.Context, d *director.Director, key director.ServiceKey) (director.Outcome, error) {
	adoption, err := d.Adopt(ctx, by, key)
	if err == nil && len(adoption.Refused) > 0 {
		err = adoption.Refused[0].Err
	}
	return adoption.Outcome, err
}

// One that cannot be taken is in the way of no other, and all that can be are one
// revision.
func TestAdoptMany(t *testing.T) {
	r := start(t, web())
	var wanted []director.ServiceKey
	for i := range 500 {
		s := foreign()
		s.Key, s.Name = mustKey(fmt.Sprintf("udp://198.51.100.%d:%d", i%250+1, 1000+i)), ""
		s.Servers[0].Address = netip.AddrPortFrom(s.Servers[0].Address.Addr(), s.Key.Address.Port())
		r.appear(s) // no reconciliation sees them before
		wanted = append(wanted, s.Key)
	}
	slices.SortFunc(wanted, director.ServiceKey.Compare)
	bad := foreign()
	bad.Servers[0].Weight = 65536
	r.appear(bad)
	founds := r.fake.Founds()
	adoption, err := r.Adopt(t.Context(), by)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wanted, adoption.Adopted, cmpNetip); diff != "" {
		t.Errorf("adopted (-want +got):\n%s", diff)
	}
	if !adoption.Changed || adoption.Revision.Number != 2 || adoption.Revision.Action != "adopt 500 services" || len(adoption.Steps) != 0 {
		t.Errorf("outcome %+v", adoption.Outcome)
	}
	if len(adoption.Refused) != 1 || adoption.Refused[0].Service != bad.Key || !errors.Is(adoption.Refused[0].Err, director.ErrUnsupported) {
		t.Errorf("refused %+v", adoption.Refused)
	}
	if n := r.fake.Founds() - founds; n != 2 {
		t.Errorf("the kernel was read %d times, want 2", n)
	}
	want(t, "operations", nil, texts(r.fake.Operations()))
	r.reconcile(t)
	wantForeign(t, r, bad)

	// Named ones, twice, ours and absent.
	good, absent := foreign(), mustKey("tcp://192.0.2.99:80")
	good.Key, good.Name = mustKey("tcp://192.0.2.201:25"), ""
	r.appear(good)
	adoption, err = r.Adopt(t.Context(), by, absent, good.Key, bad.Key, web().Key, good.Key)
	if err != nil || adoption.Revision.Number != 3 || adoption.Revision.Action != "adopt service tcp://192.0.2.201:25" {
		t.Errorf("outcome %+v, error %v", adoption.Outcome, err)
	}
	var refused []string
	for _, refusal := range adoption.Refused {
		refused = append(refused, refusal.Err.Error())
	}
	want(t, "refused", []string{
		"adopt service tcp://192.0.2.99:80: not found",
		`adopt service tcp://192.0.2.200:25: service "mail": servers[0]: weight 65536: the xdp data plane has weights up to 65535`,
		"adopt service tcp://192.0.2.1:80: exists already",
	}, refused)

	// None: no revision.
	adoption, err = r.Adopt(t.Context(), by)
	if err != nil || adoption.Changed || adoption.Revision.Number != 3 || len(adoption.Adopted) > 0 || len(adoption.Refused) != 1 {
		t.Errorf("adoption %+v, error %v", adoption, err)
	}
	if _, err := r.Adopt(t.Context(), director.Request{Base: 2}); !errors.As(err, new(*director.ConflictError)) {
		t.Errorf("against an older revision: %v", err)
	}
}

func TestAdoptRefused(t *testing.T) {
	tests := []struct {
		name string
		edit func(*director.Service)
		kind error
		want string
	}{
		{"what_shunt_does_not_have", func(s *director.Service) { s.Servers[0].Weight = 65536 }, director.ErrUnsupported, `adopt service tcp://192.0.2.200:25: service "mail": servers[0]: weight 65536: the xdp data plane has weights up to 65535`},
		{"a_server_without_a_port", func(s *director.Service) {
			s.Servers[0].Address = netip.AddrPortFrom(s.Servers[0].Address.Addr(), 0)
		}, director.ErrUnsupported, `adopt service tcp://192.0.2.200:25: server 10.0.0.25:0: not supported: port 0 beside a service's own: replace it by 10.0.0.25:25 there first`},
		{"a_mask_with_holes", func(s *director.Service) {
			s.Persistence = director.Persistence{Timeout: time.Minute, Prefix: 8, Mask: 0xff00ff00}
		}, director.ErrUnsupported, `adopt service tcp://192.0.2.200:25: service "mail": netmask 255.0.255.0 of clients is no prefix: want one such as 255.0.0.0 (/8)`},
		{"a_name_that_is_taken", func(s *director.Service) { s.Name = "web" }, director.ErrInvalid, `adopt service tcp://192.0.2.200:25: service "web": name "web" is that of tcp://192.0.2.1:80 already`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, web())
			mail := foreign()
			tt.edit(&mail)
			r.appear(mail)
			if _, err := adopt(t.Context(), r.Director, mail.Key); !errors.Is(err, tt.kind) || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			r.reconcile(t)
			wantForeign(t, r, mail)
			want(t, "operations", nil, texts(r.fake.Operations()))
		})
	}
}

// What somebody else has removed is removed all the same: the data plane has more of
// a service than the kernel's entry, such as its address.
func TestRemoveWhatIsGone(t *testing.T) {
	for name, remove := range map[string]func(*rig) (director.Outcome, error){
		"remove": func(r *rig) (director.Outcome, error) { return r.RemoveService(t.Context(), by, dns().Key) },
		"apply": func(r *rig) (director.Outcome, error) {
			return r.Apply(t.Context(), by, director.State{Services: []director.Service{web()}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, web(), dns())
			r.vanish(dns().Key)
			outcome, err := remove(r)
			if err != nil {
				t.Fatal(err)
			}
			want(t, "steps", []string{"remove service udp://[2001:db8::1]:53"}, stepTexts(outcome.Steps))
			want(t, "operations", []string{"remove service udp://[2001:db8::1]:53"}, texts(r.fake.Operations()))
			r.sameAsFound(t)
		})
	}
}
