package api_test

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/lease"
)

// newLogged returns a handler whose log, with its events, is in the buffer.
func newLogged(t *testing.T) (*api.Handler, *directortest.Fake, *bytes.Buffer) {
	t.Helper()
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	events := event.NewStream(log, 0)
	fake := directortest.NewFake(director.State{})
	d := director.New(fake, &directortest.Store{}, director.Options{Log: log, Events: events})
	if err := d.Start(t.Context(), director.State{Services: []director.Service{{Key: webKey, Name: "web"}}}, director.Request{}); err != nil {
		t.Fatal(err)
	}
	text.Reset()
	return api.NewHandler(d, api.Options{Log: log, Events: events}), fake, &text
}

// TestRenewalsAreNotLogged: agents' messages that tell nothing new; those that are
// refused are.
func TestRenewalsAreNotLogged(t *testing.T) {
	var log bytes.Buffer
	d := newDirector(t, directortest.NewFake(director.State{}))
	if _, err := d.EditService(t.Context(), director.Request{}, webKey, func(s *director.Service) error { s.Health.Pool = "web"; return nil }); err != nil {
		t.Fatal(err)
	}
	leases := lease.Open(lease.Options{Log: slog.New(slog.DiscardHandler)})
	h := api.NewHandler(d, api.Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Leases: leases})
	for _, test := range []struct {
		body   string
		status int
		logged bool
	}{{registers(1, ""), 200, false}, {registers(2, ""), 200, false}, {registers(2, ""), 409, true}} {
		log.Reset()
		if w := ask(h, "PUT", "/v1/pools/web/members/s1", test.body); w.Code != test.status || log.Len() > 0 != test.logged {
			t.Errorf("%s: %d %s, logged %q", test.body, w.Code, w.Body, &log)
		}
	}
}

// TestRefusedCallersDoNotFillTheLog: whoever can reach the port can send
// requests.
func TestRefusedCallersDoNotFillTheLog(t *testing.T) {
	h, _, log := newLogged(t)
	start := time.Now()
	for range 100 {
		r := httptest.NewRequest("POST", "/v1/services/"+strings.Repeat("x", 50<<10), strings.NewReader("{}"))
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != 401 {
			t.Fatalf("a caller without credentials: %d %s", w.Code, w.Body)
		}
	}
	most := 10 + int(time.Since(start)/time.Second) + 1 // a burst, and one a second
	if n := strings.Count(log.String(), "\n"); n == 0 || n > most {
		t.Errorf("%d lines, want 1 to %d", n, most)
	}
	if n := log.Len(); n > most*1000 {
		t.Errorf("%d bytes", n)
	}
}

// TestChangesAreLogged: each change with who made it, and why one failed only
// once.
func TestChangesAreLogged(t *testing.T) {
	h, fake, log := newLogged(t)
	ask(h, "GET", "/v1/services", "")
	if log.Len() > 0 {
		t.Errorf("reading is logged:\n%s", log)
	}
	ask(h, "PATCH", "/v1/services/web", `{"scheduler":"sh"}`)
	if got := log.String(); !strings.Contains(got, `msg="request answered" method=PATCH path=/v1/services/web who=tester status=200`) {
		t.Errorf("a change:\n%s", got)
	}
	log.Reset()
	ask(h, "PATCH", "/v1/services/web", `{"scheduler":"xx"}`)
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "who=tester status=422") {
		t.Errorf("a change that is refused:\n%s", got)
	}
	log.Reset()
	fake.FailIf(func(director.Operation) error { return directortest.ErrInjected })
	ask(h, "PATCH", "/v1/services/web", `{"scheduler":"mh"}`)
	if got := log.String(); strings.Count(got, "event="+string(event.ChangeFailed)) != 1 || !strings.Contains(got, "status=500") {
		t.Errorf("a change that fails:\n%s", got)
	}
	failures := 0
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, directortest.ErrInjected.Error()) && !strings.Contains(line, "event=") {
			failures++
		}
	}
	if failures > 0 {
		t.Errorf("the failure is told beside its event:\n%s", log)
	}
}
