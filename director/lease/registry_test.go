package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/realserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a registry whose clock stands until it is moved.
type rig struct {
	*Registry

	t       *testing.T
	now     time.Time
	file    string
	events  *event.Stream
	changed map[string][]realserver.Server
	suspect []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Unix(1_800_000_000, 0).UTC(), file: filepath.Join(t.TempDir(), "leases.json")}
	r.restart()
	return r
}

func (r *rig) restart() {
	r.events = event.NewStream(slog.New(slog.DiscardHandler), 0)
	r.changed = make(map[string][]realserver.Server)
	r.Registry = Open(Options{
		File: r.file, Servers: 3, Members: 5, Now: func() time.Time { return r.now }, Events: r.events, Log: slog.New(slog.DiscardHandler),
		Changed: func(pool string, servers []realserver.Server) { r.changed[pool] = servers },
		Suspect: func(pool string, server realserver.Server) {
			r.suspect = append(r.suspect, pool+" "+server.Address.String())
		},
	})
	r.Announce()
}

// registration is agent n's of the pool web.
func registration(n int, sequence uint64) Registration {
	return Registration{
		Pool: "web", Agent: fmt.Sprintf("a%d", n), Boot: "b1", Sequence: sequence, Lifetime: 10 * time.Second,
		Server: realserver.Server{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80), Weight: 100},
	}
}

func (r *rig) register(g Registration) Member {
	r.t.Helper()
	m, err := r.Register(g)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *rig) wantRefusal(err error, reason Reason, text string) {
	r.t.Helper()
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok || refusal.Reason != reason || !strings.Contains(refusal.Text, text) {
		r.t.Errorf("%v, want %s: %s", err, reason, text)
	}
}

func (r *rig) happened() (names []event.Name) {
	events, _ := r.events.After(0)
	for _, e := range events {
		names = append(names, e.Name)
	}
	return names
}

func TestRegister(t *testing.T) {
	r := newRig(t)
	first := registration(1, 1)
	r.register(first)
	if diff := cmp.Diff([]realserver.Server{first.Server}, r.changed["web"], cmp.Comparer(sameServer)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	r.changed = map[string][]realserver.Server{}
	second := registration(1, 2)
	second.Load = &Load{Value: 0.5}
	r.register(second)
	if len(r.changed) > 0 {
		t.Error("a renewal on the same terms was told as a change")
	}
	leaving := registration(1, 3)
	leaving.Server.Draining = true
	m := r.register(leaving)
	if m.Load == nil || m.Load.Value != 0.5 || !r.changed["web"][0].Draining {
		t.Errorf("%+v, %+v: want the load that was said, and a server that drains", m, r.changed)
	}
	if err := r.Deregister("web", "a1", "b1", 4); err != nil {
		t.Fatal(err)
	}
	r.wantRefusal(r.Deregister("web", "a1", "b1", 5), NoMember, "not registered any more")
	r.wantRefusal(r.Deregister("web", "a9", "b1", 5), NoMember, "agent a9 of pool web is not registered")
	if got := r.changed["web"]; len(got) > 0 {
		t.Errorf("left: %+v", got)
	}
	want := []event.Name{event.ServerRegistered, event.ServerLeaving, event.ServerLeft, event.RegistrationRefused, event.RegistrationRefused}
	if diff := cmp.Diff(want, r.happened()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	wantCounts := Counts{Registered: 1, Renewed: 2, Left: 1, Refused: map[Reason]uint64{NoMember: 2}}
	if diff := cmp.Diff(wantCounts, r.Counts()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func sameServer(a, b realserver.Server) bool { return a == b }

// What was said once, by this run of the agent or one before, is not taken again: not
// after the agent left, and not after a restart.
func TestReplays(t *testing.T) {
	r := newRig(t)
	again := func(g Registration) error { _, err := r.Register(g); return err }
	r.register(registration(1, 7))
	later := registration(1, 1)
	later.Boot = "b2"
	for range 2 {
		r.wantRefusal(again(registration(1, 7)), Replayed, "sequence 7 of the run b1 is not after 7")
		r.wantRefusal(again(registration(1, 6)), Replayed, "sequence 6")
		r.wantRefusal(r.Deregister("web", "a1", "b1", 7), Replayed, "sequence 7")
		r.saveAll()
		r.restart()
	}
	r.register(later)
	r.wantRefusal(again(registration(1, 8)), Superseded, "the run b1 is over: a later one, b2, has registered")
	r.wantRefusal(r.Deregister("web", "a1", "b1", 9), Superseded, "b1 is over")
	if err := r.Deregister("web", "a1", "b2", 2); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.wantRefusal(again(later), Replayed, "sequence 1 of the run b2 is not after 2")
	r.wantRefusal(again(registration(1, 8)), Superseded, "b1 is over")
	if len(r.Servers("web")) > 0 {
		t.Error("a replay registered a server")
	}
}

// A run that is over is told of once, whatever was refused before, and who has its place.
func TestSupersededIsTold(t *testing.T) {
	r := newRig(t)
	r.counts.Refused[Superseded] = 5
	for n := 1; n <= 2; n++ {
		r.register(registration(n, 1))
		later := registration(n, 1)
		later.Boot, later.Server.Address = "b2", netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 9, byte(n)}), 80)
		r.register(later)
		for sequence := range uint64(3) {
			_, err := r.Register(registration(n, 2+sequence))
			r.wantRefusal(err, Superseded, fmt.Sprintf("a later one, b2, has registered server 10.9.9.%d:80", n))
		}
	}
	events, _ := r.events.After(0)
	var told []string
	for _, e := range events {
		told = append(told, string(e.Name)+" "+e.Message)
	}
	text := strings.Join(told, "\n")
	for n := 1; n <= 2; n++ {
		if want := fmt.Sprintf("server 10.9.9.%d:80 registered in place of 10.0.0.%d:80", n, n); !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
		if strings.Count(text, fmt.Sprintf("of agent a%d the last", n)) == 0 {
			t.Errorf("agent a%d is not told of:\n%s", n, text)
		}
	}
	if n := strings.Count(text, "registration-refused"); n != 3 { // each run, and the eighth of all
		t.Errorf("%d refusals told:\n%s", n, text)
	}
}

func TestBounds(t *testing.T) {
	r := newRig(t)
	try := func(change func(*Registration)) error {
		g := registration(1, 1)
		change(&g)
		_, err := r.Register(g)
		return err
	}
	for text, change := range map[string]func(*Registration){
		"pool \"\"":                              func(g *Registration) { g.Pool = "" },
		`agent "../etc"`:                         func(g *Registration) { g.Agent = "../etc" },
		"boot \"\"":                              func(g *Registration) { g.Boot = "" },
		"sequence 0":                             func(g *Registration) { g.Sequence = 0 },
		"lifetime 4s is out of range":            func(g *Registration) { g.Lifetime = 4 * time.Second },
		"lifetime 11m0s is out of range":         func(g *Registration) { g.Lifetime = 11 * time.Minute },
		"is not a unicast address":               func(g *Registration) { g.Server.Address = netip.MustParseAddrPort("0.0.0.0:80") },
		"load: value NaN is out of range":        func(g *Registration) { g.Load = &Load{Value: math.NaN()} },
		"load: value -1 is out of range":         func(g *Registration) { g.Load = &Load{Value: -1} },
		"load: cpu 1.5 is out of range: want 0 ": func(g *Registration) { x := 1.5; g.Load = &Load{CPU: &x} },
	} {
		r.wantRefusal(try(change), Invalid, text)
	}
	r.register(registration(1, 1))
	r.wantRefusal(try(func(g *Registration) { g.Agent = "a2" }), Taken, "the address 10.0.0.1:80 is agent a1's")
	r.wantRefusal(try(func(g *Registration) {
		g.Agent, g.Server.Method, g.Server.Address = "a2", realserver.DR, netip.MustParseAddrPort("10.0.0.1:81")
	}), Taken, "agent a1's")
	r.register(registration(2, 1))
	r.register(registration(3, 1))
	r.wantRefusal(try(func(g *Registration) { *g = registration(4, 1) }), Full, "the pool has 3 servers")
	for n := 4; n <= 5; n++ {
		g := registration(n, 1)
		g.Pool = "mail"
		r.register(g)
	}
	r.wantRefusal(try(func(g *Registration) { *g = registration(6, 1); g.Pool = "dns" }), Full, "there are 5 members")
	for n := range uint64(memberBurst) {
		_, _ = r.Register(registration(1, 2+n))
	}
	r.wantRefusal(try(func(g *Registration) { g.Sequence = 1000 }), TooFast, "too many messages")
	r.now = r.now.Add(memberEvery)
	r.register(registration(1, 1001))
}

// A lease that is not renewed ends once, when its time is over and not before.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := event.NewStream(slog.New(slog.DiscardHandler), 0)
		var gone []time.Duration
		began := time.Now()
		r := Open(Options{Events: events, Changed: func(_ string, servers []realserver.Server) {
			if len(servers) == 1 {
				gone = append(gone, time.Since(began))
			}
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		for n := 2; n >= 1; n-- {
			if _, err := r.Register(registration(n, 1)); err != nil {
				t.Fatal(err)
			}
		}
		gone = nil
		for sequence := range uint64(5) {
			time.Sleep(4 * time.Second)
			if _, err := r.Register(registration(1, 2+sequence)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]time.Duration{10 * time.Second}, gone); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if c := r.Counts(); c.Expired != 2 || len(r.Servers("web")) > 0 || events.Counts()[event.LeaseExpired] != 2 {
			t.Errorf("%+v, %v", c, r.Servers("web"))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestUnreachable(t *testing.T) {
	r := newRig(t)
	r.register(registration(1, 1))
	report := func(by string, want int) {
		t.Helper()
		if n, wanted, err := r.Unreachable("web", "a1", by); err != nil || n != want || wanted != 2 {
			t.Errorf("%s: %d of %d, %v, want %d", by, n, wanted, err, want)
		}
	}
	report("x", 1)
	report("x", 1)
	r.now = r.now.Add(reportFor)
	report("y", 1)
	if len(r.suspect) > 0 {
		t.Errorf("asked after one report: %v", r.suspect)
	}
	report("x", 2)
	report("x", 1)
	if diff := cmp.Diff([]string{"web 10.0.0.1:80"}, r.suspect); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if len(r.Servers("web")) != 1 {
		t.Error("a report took the server out")
	}
	_, _, err := r.Unreachable("web", "a2", "x")
	r.wantRefusal(err, NoMember, "agent a2 of pool web: it is not registered")
}

func TestRestart(t *testing.T) {
	r := newRig(t)
	long := registration(2, 1)
	long.Lifetime = 10 * time.Minute
	r.register(registration(1, 1))
	r.register(long)
	before := r.Members("web")
	r.now = r.now.Add(3 * time.Second)
	r.restart()
	if len(r.changed["web"]) != 2 {
		t.Fatalf("announced: %+v", r.changed)
	}
	after := r.Members("web")
	if !after[0].Until.Equal(r.now.Add(10*time.Second)) || !after[1].Until.Equal(before[1].Until) {
		t.Errorf("until %s and %s", after[0].Until, after[1].Until)
	}
	r.now = r.now.Add(time.Hour) // nobody could renew
	r.restart()
	after = r.Members("web")
	if !after[0].Until.Equal(r.now.Add(10*time.Second)) || !after[1].Until.Equal(r.now.Add(grace)) {
		t.Errorf("after an hour: until %s and %s", after[0].Until, after[1].Until)
	}
	r.now = r.now.Add(-24 * time.Hour) // the clock was set back
	r.restart()
	if after = r.Members("web"); after[1].Until.After(r.now.Add(10 * time.Minute)) {
		t.Errorf("a lease of %s until %s, at %s", after[1].Lifetime, after[1].Until, r.now)
	}
	r.now = time.Now()
	r.restart()
	if until := r.Members("web")[1].Until.String(); !strings.Contains(until, " m=+") {
		t.Errorf("until %s: want it by the monotonic clock, too, which nobody sets", until)
	}
}

// A file that cannot be used is set aside with what is wrong with it.
func TestDamagedFile(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"no_json":    {`{"Version":1,`, "byte 13: unexpected end"},
		"version":    {`{"Version":2}`, "version 2: this shuntd reads 1"},
		"wrong_type": {`{"Version":1,"Members":[{"Pool":7}]}`, "cannot unmarshal number"},
		"bad_member": {`{"Version":1,"Members":[{"Pool":"web"}]}`, `members[0]: agent ""`},
		"empty":      {``, "byte 0: unexpected end"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if err := os.WriteFile(r.file, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			r.restart()
			events, _ := r.events.After(0)
			if len(events) != 1 || events[0].Name != event.LeasesDamaged || !strings.Contains(events[0].Message, test.want) || !strings.Contains(events[0].Message, r.file) {
				t.Errorf("%+v, want %s", events, test.want)
			}
			if kept, err := os.ReadFile(r.file + ".damaged"); err != nil || string(kept) != test.text {
				t.Errorf("not set aside: %v", err)
			}
			r.register(registration(1, 1))
			r.restart()
			if len(r.Servers("web")) != 1 {
				t.Error("the file that came after is not read")
			}
		})
	}
}

func TestHugeFile(t *testing.T) {
	r := newRig(t)
	if err := os.WriteFile(r.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(r.file, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := read(r.file); err == nil || !strings.Contains(err.Error(), "at most 67108864 are read") {
		t.Errorf("%v", err)
	}
}

// A file that cannot be written keeps nobody from registering.
func TestUnwritableFile(t *testing.T) {
	r := newRig(t)
	r.opts.File = filepath.Join(t.TempDir(), "none", "leases.json")
	r.register(registration(1, 1))
	if len(r.changed["web"]) != 1 {
		t.Error("not registered")
	}
}

func TestReasonsAreAll(t *testing.T) {
	text, err := os.ReadFile("refusal.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), `= "`); n != len(Reasons()) || slices.Contains(Reasons(), "") {
		t.Errorf("%d reasons are defined, %d listed", n, len(Reasons()))
	}
}
