package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

const drainPath = "/v1/services/web/servers/10.0.0.11:8080/drain"

func TestDrainRequests(t *testing.T) {
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		want                     string // in the answer
	}{
		{"orders_a_drain", "PUT", drainPath, `{}`, 200, `"text":"drain server 10.0.0.11:8080 of tcp://192.0.2.10:80: draining none → yes"`},
		{"to_a_deadline", "PUT", drainPath, `{"deadline":"2126-11-22T04:00:00+01:00","kill":true}`, 200, `"action":"drain server 10.0.0.11:8080 of tcp://192.0.2.10:80"`},
		{"within_a_second", "PUT", drainPath, `{"within":"1s"}`, 200, `"changed":true`},
		{"of_an_escaped_url", "PUT", "/v1/services/tcp:%2F%2F192.0.2.10:80/servers/10.0.0.11:8080/drain", `{}`, 200, `"changed":true`},
		{"both", "PUT", drainPath, `{"deadline":"2126-11-22T04:00:00Z","within":"10m"}`, 422, "deadline and within exclude each other"},
		{"a_deadline_that_is_none", "PUT", drainPath, `{"deadline":"soon"}`, 422, `deadline \"soon\" is not a time","hint":"write it as 2026-11-22T04:00:00Z`},
		{"a_deadline_of_the_past", "PUT", drainPath, `{"deadline":"2001-01-01T00:00:00Z"}`, 422, "deadline 2001-01-01T00:00:00Z has passed"},
		{"within_no_time", "PUT", drainPath, `{"within":"999ms"}`, 422, "within 999ms is out of range: want 1s or more"},
		{"within_a_negative_time", "PUT", drainPath, `{"within":"-1h"}`, 422, "within -1h0m0s is out of range"},
		{"within_a_number", "PUT", drainPath, `{"within":10}`, 422, "10 is not a duration"},
		{"an_unknown_term", "PUT", drainPath, `{"force":true}`, 422, `unknown field \"force\"`},
		{"no_order", "PUT", drainPath, ``, 400, "want a JSON object"},
		{"of_no_service", "PUT", "/v1/services/nobody/servers/10.0.0.11:8080/drain", `{}`, 404, "not-found"},
		{"of_no_server", "PUT", "/v1/services/web/servers/10.0.0.99:80/drain", `{}`, 404, "server: not found"},
		{"of_no_address", "PUT", "/v1/services/web/servers/here/drain", `{}`, 422, "here"},
		{"cancels_none", "DELETE", drainPath, "", 404, `not-draining","title":"Not Found","status":404,"detail":"server 10.0.0.11:8080 of tcp://192.0.2.10:80 is not being drained"`},
		{"cancels_of_no_server", "DELETE", "/v1/services/web/servers/10.0.0.99:80/drain", "", 404, "server: not found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := directortest.NewFake(director.State{})
			h := newHandler(t, fake)
			fake.Operations()
			w := ask(h, test.method, test.path, test.body)
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) {
				t.Fatalf("%d %s\nwant %d with %s", w.Code, w.Body, test.status, test.want)
			}
			if ops := fake.Operations(); (w.Code < 400) != (len(ops) == 1) {
				t.Errorf("%d operations", len(ops))
			}
		})
	}
	t.Run("needs_an_operator", func(t *testing.T) {
		for _, op := range api.Operations() {
			if strings.HasSuffix(op.Path, "/drain") && op.Role != api.Operator {
				t.Errorf("%s %s is open to a %s", op.Method, op.Path, op.Role)
			}
		}
	})
	t.Run("is_made_against_a_revision", func(t *testing.T) {
		h := newHandler(t, directortest.NewFake(director.State{}))
		if w := send(h, "PUT", drainPath, `{}`, `If-Match: "1"`, "Shunt-Why: kernel"); w.Code != 200 || w.Header().Get("ETag") != `"2"` || !strings.Contains(w.Body.String(), `"why":"kernel"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		for _, method := range []string{"PUT", "DELETE"} {
			if w := send(h, method, drainPath, `{}`, `If-Match: "1"`); w.Code != http.StatusPreconditionFailed {
				t.Errorf("%s after another change: %d %s", method, w.Code, w.Body)
			}
		}
	})
}

// TestDrain orders one by the client and follows it to its end.
func TestDrain(t *testing.T) {
	fake := directortest.NewFake(director.State{})
	fake.SetStats(seededStats())
	h := newHandler(t, fake)
	client := serve(t, h)
	if all, err := client.Drains(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("%v, %v", all, err)
	}
	if w := ask(h, "GET", "/v1/drains", ""); w.Body.String() != `{"drains":[],"revision":1}`+"\n" {
		t.Errorf("without a drain: %s", w.Body)
	}
	before := time.Now()
	order := api.DrainOrder{Within: new(api.Duration(10 * time.Minute)), Kill: true}
	outcome, err := client.DrainServer(t.Context(), "web", "10.0.0.11:8080", order, api.Terms{Revision: 1, Why: "kernel"})
	if err != nil || !outcome.Changed || outcome.Revision.Why != "kernel" {
		t.Fatalf("%+v, %v", outcome, err)
	}
	all, err := client.Drains(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []api.DrainStatus{{
		Service: webKey.String(), Name: "web", Server: "10.0.0.11:8080", Kill: true,
		Phase: "draining", Active: 2, Inactive: 1, UDP: 4, Templates: 3,
	}}
	if diff := cmp.Diff(want, all, cmpopts.IgnoreFields(api.DrainStatus{}, "Since", "Deadline")); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
	// Whole seconds, and no less time than was given.
	d := all[0]
	if left := d.Deadline.Sub(before); left < 10*time.Minute || d.Deadline.Nanosecond() != 0 || d.Deadline.Location() != time.UTC || d.Since.IsZero() {
		t.Errorf("since %s, deadline %s, %s after the order", d.Since, d.Deadline, left)
	}
	service, err := client.Service(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	terms := &api.Drain{Since: d.Since, Deadline: d.Deadline, Kill: true, Phase: "draining"}
	if diff := cmp.Diff(terms, service.Servers[0].Drain); diff != "" || !service.Servers[0].Draining {
		t.Errorf("the server: (-want +got)\n%s", diff)
	}
	if w := ask(h, "GET", "/v1/drains", ""); w.Header().Get("ETag") != `"2"` || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("ETag %s", w.Header().Get("ETag"))
	}
	if _, err := client.CancelDrain(t.Context(), "web", "10.0.0.11:8080", api.Terms{}); err != nil {
		t.Fatal(err)
	}
	if service, err = client.Service(t.Context(), "web"); err != nil || service.Servers[0].Drain != nil || service.Servers[0].Draining {
		t.Errorf("cancelled: %+v, %v", service.Servers[0], err)
	}
	if all, err := client.Drains(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("cancelled: %v, %v", all, err)
	}
}

// TestDrainKeepsItsDeadline: other terms may leave a deadline that has passed, and
// give no other one.
func TestDrainKeepsItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := directortest.NewFake(director.State{})
		fake.SetStats(seededStats())
		h := newHandler(t, fake)
		deadline := time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
		order := func(kill bool) string { return fmt.Sprintf(`{"deadline":%q,"kill":%t}`, deadline, kill) }
		if w := ask(h, "PUT", drainPath, order(true)); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		time.Sleep(2 * time.Minute)
		if w := ask(h, "PUT", drainPath, order(false)); w.Code != 200 || !strings.Contains(w.Body.String(), `"changes":[{"field":"drain kill","old":"yes","new":"none"}]`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if list := decoded[api.DrainList](t, ask(h, "GET", "/v1/drains", "")); len(list.Drains) != 1 || list.Drains[0].Phase != "overdue" {
			t.Errorf("%+v", list.Drains)
		}
		other := time.Now().Add(-time.Second).UTC().Format(time.RFC3339)
		if w := ask(h, "PUT", drainPath, fmt.Sprintf(`{"deadline":%q}`, other)); w.Code != 422 || !strings.Contains(w.Body.String(), "has passed") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// TestDrainIsNoConfiguration: what can be exported, and applied again, says
// nothing of a drain, and ends none.
func TestDrainIsNoConfiguration(t *testing.T) {
	h := newHandler(t, directortest.NewFake(director.State{}))
	before := ask(h, "GET", "/v1/configuration", "").Body.String()
	if w := ask(h, "PUT", drainPath, `{"within":"1h"}`); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if after := ask(h, "GET", "/v1/configuration", "").Body.String(); after != before {
		t.Errorf("the configuration was\n%sand is\n%s", before, after)
	}
	for _, body := range []string{before, strings.Replace(before, `"weight":1`, `"weight":5`, 1)} {
		plan := decoded[api.Plan](t, ask(h, "POST", "/v1/plan", body))
		outcome := decoded[api.Outcome](t, ask(h, "PUT", "/v1/configuration", body))
		changed := body != before
		if outcome.Changed != changed || (len(plan.Steps) > 0) != changed {
			t.Errorf("steps %+v, changed %t: want %t", plan.Steps, outcome.Changed, changed)
		}
		for _, step := range plan.Steps {
			if strings.Contains(step.Text, "draining") {
				t.Errorf("step %s", step.Text)
			}
		}
		if list := decoded[api.DrainList](t, ask(h, "GET", "/v1/drains", "")); len(list.Drains) != 1 {
			t.Errorf("drains %+v", list.Drains)
		}
	}
	var revision api.Revision
	if err := json.Unmarshal(ask(h, "GET", "/v1/revisions/2", "").Body.Bytes(), &revision); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(revision.Configuration); strings.Contains(text, "drain") || !strings.HasPrefix(revision.Action, "drain server") {
		t.Errorf("revision %+v", revision)
	}
}

// TestDrainOfAWideService: the server of a service of several ports has port 0.
func TestDrainOfAWideService(t *testing.T) {
	h := newHandler(t, directortest.NewFake(director.State{}))
	client := serve(t, h)
	listen := "tcp://198.51.100.0/24:8000-8999"
	config := api.ServiceConfig{Listen: listen, VIP: "external", Servers: []api.ServerConfig{{Address: "10.0.0.1", Method: "dr"}}}
	if _, err := client.AddService(t.Context(), config, api.Terms{}); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"10.0.0.1", "10.0.0.1:0"} {
		if _, err := client.DrainServer(t.Context(), listen, address, api.DrainOrder{}, api.Terms{}); err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		all, err := client.Drains(t.Context())
		if err != nil || len(all) != 1 || all[0].Service != listen || all[0].Server != "10.0.0.1:0" || all[0].Deadline != nil || all[0].Phase != "drained" {
			t.Errorf("%s: %+v, %v", address, all, err)
		}
		if _, err := client.CancelDrain(t.Context(), listen, address, api.Terms{}); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}
