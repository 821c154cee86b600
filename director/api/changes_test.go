package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// send sends a request with headers, given as "Name: value".
func send(h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := api.AsAdmin(httptest.NewRequest(method, path, strings.NewReader(body)))
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// decoded reads a good answer.
func decoded[T any](t *testing.T, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code >= 300 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return v
}

func TestTerms(t *testing.T) {
	for _, test := range []struct {
		name    string
		headers []string
		status  int
		want    string
	}{
		{"the_newest_revision", []string{`If-Match: "1"`}, 200, `"number":2`},
		{"without_quotes", []string{"If-Match: 1"}, 200, `"number":2`},
		{"any_revision", []string{"If-Match: *"}, 200, `"number":2`},
		{"a_newer_revision_than_there_is", []string{`If-Match: "2"`}, 412, "urn:shunt:problem:conflict"},
		{"revision_0_is_not_any", []string{`If-Match: "0"`}, 400, "is not a revision"},
		{"a_weak_tag", []string{`If-Match: W/"1"`}, 400, "is not a revision"},
		{"a_list", []string{`If-Match: "1", "2"`}, 400, "is not a revision"},
		{"an_empty_tag", []string{"If-Match: "}, 400, "is not a revision"},
		{"two_headers", []string{`If-Match: "1"`, `If-Match: "2"`}, 422, "expected one value"},
		{"why", []string{"Shunt-Why: neue Platten, Regal 4 ✓"}, 200, `"why":"neue Platten, Regal 4 ✓"`},
		{"why_of_500", []string{"Shunt-Why: " + strings.Repeat("é", 500)}, 200, "éé"},
		{"why_of_501", []string{"Shunt-Why: " + strings.Repeat("é", 501)}, 422, "501 characters"},
		{"why_with_an_escape", []string{"Shunt-Why: a\x1b[2Jb"}, 422, "U+001B is not allowed"},
		{"why_with_a_line_break", []string{"Shunt-Why: a\nb"}, 422, "U+000A is not allowed"},
		{"why_turned_round", []string{"Shunt-Why: a\u202eb"}, 422, "U+202E is not allowed"},
		{"why_with_nothing_to_see", []string{"Shunt-Why: a\u200bb"}, 422, "U+200B is not allowed"},
		{"why_with_a_byte_order_mark", []string{"Shunt-Why: a\ufeffb"}, 422, "U+FEFF is not allowed"},
		{"why_with_a_tag", []string{"Shunt-Why: a\U000e0041b"}, 422, "U+E0041 is not allowed"},
		{"why_with_a_separator", []string{"Shunt-Why: a\u2028b"}, 422, "U+2028 is not allowed"},
		{"why_not_in_utf8", []string{"Shunt-Why: a\xff"}, 422, "not UTF-8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHandler(t, directortest.NewFake(director.State{}))
			w := send(h, "PATCH", "/v1/timeouts", `{"udp":"10s"}`, test.headers...)
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) {
				t.Fatalf("%d %s\nwant %d with %s", w.Code, w.Body, test.status, test.want)
			}
			if w.Code == 200 {
				if !strings.Contains(w.Body.String(), `"who":"tester"`) || w.Header().Get("ETag") != `"2"` {
					t.Errorf("ETag %s, %s", w.Header().Get("ETag"), w.Body)
				}
			} else if after := ask(h, "GET", "/v1/timeouts", ""); after.Header().Get("ETag") != `"1"` {
				t.Errorf("a refused change made revision %s", after.Header().Get("ETag"))
			}
		})
	}
}

// TestTwoWriters: of writers that started from the same revision one wins, and
// the others are told.
func TestTwoWriters(t *testing.T) {
	client := serve(t, newHandler(t, directortest.NewFake(director.State{})))
	const rounds, writers = 20, 4
	for range rounds {
		_, base, err := client.Configuration(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		results := make([]error, writers)
		for i := range results {
			group.Go(func() {
				edit := api.ServerEdit{Weight: new(uint32(base*writers) + uint32(i))}
				_, results[i] = client.EditServer(t.Context(), "web", "10.0.0.11:8080", edit, api.Terms{Revision: base})
			})
		}
		group.Wait()
		winner := -1
		for i, err := range results {
			problem, refused := errors.AsType[*api.Problem](err)
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatalf("writers %d and %d both won", winner, i)
			case !refused || problem.Status != http.StatusPreconditionFailed || problem.Hint == "":
				t.Fatalf("writer %d: %v", i, err)
			}
		}
		if winner < 0 {
			t.Fatal("nobody won")
		}
		service, err := client.Service(t.Context(), "web")
		if want := uint32(base*writers) + uint32(winner); err != nil || service.Servers[0].Weight != want {
			t.Fatalf("weight %d, want the winner's %d (%v)", service.Servers[0].Weight, want, err)
		}
	}
	if _, head, err := client.Configuration(t.Context()); err != nil || head != 1+rounds {
		t.Errorf("revision %d, want %d: an update was lost or made twice (%v)", head, 1+rounds, err)
	}
}

// manyServices is a state with n services, foreign where the number is odd.
func manyServices(n int) (desired, found director.State) {
	found.Timeouts = conntrack.DefaultTimeouts()
	for i := range n {
		s := director.Service{Key: director.ServiceKey{
			Protocol: conntrack.TCP, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 80),
		}}.Normalize()
		found.Services = append(found.Services, s)
		if i%2 == 0 {
			desired.Services = append(desired.Services, s)
		}
	}
	// The kernel has only what is foreign yet.
	odd := found.Services[:0:0]
	for i, s := range found.Services {
		if i%2 == 1 {
			odd = append(odd, s)
		}
	}
	found.Services = odd
	return desired, found
}

func TestPages(t *testing.T) {
	const n = 25
	desired, found := manyServices(n + 1)
	d := director.New(directortest.NewFake(found), &directortest.Store{}, director.Options{Log: slog.New(slog.DiscardHandler)})
	if err := d.Start(t.Context(), desired, director.Request{}); err != nil {
		t.Fatal(err)
	}
	h := api.NewHandler(d, api.Options{Log: slog.New(slog.DiscardHandler)})
	client := serve(t, h)
	t.Run("services", func(t *testing.T) {
		var got []string
		foreign := 0
		for after := ""; ; {
			target := "/v1/services?limit=10"
			if after != "" {
				target += "&after=" + after
			}
			list := decoded[api.ServiceList](t, ask(h, "GET", target, ""))
			for _, s := range list.Services {
				got = append(got, s.Listen)
				if s.Foreign {
					foreign++
				}
			}
			if len(list.Services) > 10 {
				t.Fatalf("%d services in a page of 10", len(list.Services))
			}
			if after = list.Next; after == "" {
				break
			}
		}
		var want []string
		for i := range n + 1 {
			want = append(want, fmt.Sprintf("tcp://192.0.2.%d:80", i))
		}
		if diff := cmp.Diff(want, got); diff != "" || foreign != (n+1)/2 {
			t.Errorf("%d foreign; (-want +got)\n%s", foreign, diff)
		}
	})
	t.Run("services_without_foreign_ones", func(t *testing.T) {
		list := decoded[api.ServiceList](t, ask(h, "GET", "/v1/services?foreign=false&limit=1000", ""))
		if len(list.Services) != len(desired.Services) || list.Next != "" {
			t.Errorf("%d services, next %q", len(list.Services), list.Next)
		}
	})
	t.Run("a_cursor_that_is_gone", func(t *testing.T) {
		list := decoded[api.ServiceList](t, ask(h, "GET", "/v1/services?limit=1&after=tcp://192.0.2.3:79", ""))
		if list.Services[0].Listen != "tcp://192.0.2.3:80" {
			t.Errorf("goes on with %s", list.Services[0].Listen)
		}
	})
	t.Run("the_client_reads_all", func(t *testing.T) {
		if all, err := client.Services(t.Context()); err != nil || len(all) != n+1 {
			t.Errorf("%d services, %v", len(all), err)
		}
	})
	t.Run("revisions", func(t *testing.T) {
		for i := range 250 {
			if _, err := d.SetTimeouts(t.Context(), director.Request{Why: "x"}, conntrack.Timeouts{UDP: time.Minute}); err != nil {
				t.Fatal(i, err)
			}
			if _, err := d.SetTimeouts(t.Context(), director.Request{Why: "x"}, conntrack.DefaultTimeouts()); err != nil {
				t.Fatal(i, err)
			}
		}
		want := uint64(501)
		for info, err := range client.Revisions(t.Context()) {
			if err != nil || info.Number != want {
				t.Fatalf("revision %d, want %d: %v", info.Number, want, err)
			}
			want--
		}
		if want != 0 {
			t.Errorf("ends before revision %d", want)
		}
	})
	t.Run("adopts", func(t *testing.T) {
		report, err := client.Adopt(t.Context(), []string{"tcp://192.0.2.77:80", "tcp://192.0.2.1:80", "tcp://192.0.2.2:80"}, api.Terms{Why: "ours"})
		if err != nil || !report.Changed || report.Revision.Number != 502 || report.Revision.Why != "ours" {
			t.Fatalf("%+v, %v", report, err)
		}
		if diff := cmp.Diff([]string{"tcp://192.0.2.1:80"}, report.Adopted); diff != "" {
			t.Errorf("adopted (-want +got):\n%s", diff)
		}
		var refused []string
		for _, r := range report.Refused {
			refused = append(refused, fmt.Sprintf("%s: %d %s: %s; %s", r.Service, r.Problem.Status, r.Problem.Code, r.Problem.Detail, r.Problem.Hint))
		}
		if diff := cmp.Diff([]string{
			"tcp://192.0.2.77:80: 404 no-service: adopt service tcp://192.0.2.77:80: not found; `shunt drift` shows which there are",
			"tcp://192.0.2.2:80: 409 service-exists: adopt service tcp://192.0.2.2:80: exists already; change it with `shunt service edit` or `shunt server edit`",
		}, refused); diff != "" {
			t.Errorf("refused (-want +got):\n%s", diff)
		}
		service, err := client.Service(t.Context(), "tcp://192.0.2.1:80")
		if err != nil || service.Foreign {
			t.Errorf("%+v, %v", service, err)
		}
		report, err = client.Adopt(t.Context(), nil, api.Terms{})
		if err != nil || report.Revision.Number != 503 || len(report.Adopted) != (n-1)/2 || len(report.Refused) > 0 {
			t.Errorf("all: %+v, %v", report, err)
		}
		report, err = client.Adopt(t.Context(), nil, api.Terms{})
		if err != nil || report.Changed || len(report.Adopted)+len(report.Refused) > 0 {
			t.Errorf("none: %+v, %v", report, err)
		}
	})
}

func TestReloadAndDoctor(t *testing.T) {
	var asked director.Request
	d := newDirector(t, directortest.NewFake(director.State{}))
	h := api.NewHandler(d, api.Options{
		Log: slog.New(slog.DiscardHandler),
		Reload: func(_ context.Context, by director.Request) (director.Outcome, error) {
			asked = by
			return director.Outcome{Revision: d.Head().RevisionInfo}, nil
		},
		Doctor: func(context.Context) ([]api.Finding, error) {
			return []api.Finding{
				{Check: "jit", Severity: api.FindingSeverityOk, Title: "JIT", What: "on"},
				{Check: "lro", Severity: api.FindingSeverityError, Title: "LRO", What: "on", Fix: "ethtool -K eth0 lro off"},
			}, nil
		},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "shunt_services 1") }),
		Ready:   func() error { return errors.New("attaching") },
	})
	w := send(h, "POST", "/v1/reload?force=true", "", `If-Match: "1"`, "Shunt-Why: typo")
	if diff := cmp.Diff(director.Request{Who: "tester", Why: "typo", Base: 1, Force: true}, asked); w.Code != 200 || diff != "" {
		t.Errorf("%d %s (-want +got)\n%s", w.Code, w.Body, diff)
	}
	report := decoded[api.DoctorReport](t, ask(h, "GET", "/v1/doctor", ""))
	if len(report.Findings) != 2 || !report.Findings[0].Ok || report.Findings[1].Ok {
		t.Errorf("%+v", report)
	}
	if w := ask(h, "GET", "/metrics", ""); w.Body.String() != "shunt_services 1\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(h, "GET", "/readyz", ""); w.Code != 503 || w.Body.String() != "attaching\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if s := decoded[api.Status](t, ask(h, "GET", "/v1/status", "")); s.Ready || s.NotReady != "attaching" {
		t.Errorf("%+v", s)
	}
}

func TestBeforeTheStart(t *testing.T) {
	d := director.New(directortest.NewFake(director.State{}), &directortest.Store{}, director.Options{Log: slog.New(slog.DiscardHandler)})
	h := api.NewHandler(d, api.Options{Log: slog.New(slog.DiscardHandler)})
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/healthz", "", 200},
		{"GET", "/readyz", "", 503},
		{"GET", "/v1/status", "", 200},
		{"PATCH", "/v1/timeouts", `{"udp":"10s"}`, 503},
		{"PUT", "/v1/configuration", `{"services":[]}`, 503},
		{"POST", "/v1/plan", `{"services":[]}`, 503},
	} {
		if w := ask(h, test.method, test.path, test.body); w.Code != test.status {
			t.Errorf("%s %s: %d %s, want %d", test.method, test.path, w.Code, w.Body, test.status)
		}
	}
}
