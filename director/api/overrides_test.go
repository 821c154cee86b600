package api_test

import (
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

const overridePath = "/v1/services/web/servers/10.0.0.11:8080/override"

func TestOverrideRequests(t *testing.T) {
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		want                     string // in the answer
	}{
		{"down", "PUT", overridePath, `{"state":"down"}`, 200, `"action":"set down: server 10.0.0.11:8080 of tcp://192.0.2.10:80"`},
		{"up_for_a_while", "PUT", overridePath, `{"state":"up","for":"2h"}`, 200, `"changed":true`},
		{"until_then", "PUT", overridePath, `{"state":"up","until":"2126-11-22T04:00:00+01:00"}`, 200, `"changed":true`},
		{"no_state", "PUT", overridePath, `{}`, 422, `unknown state \"\": want up or down`},
		{"another_state", "PUT", overridePath, `{"state":"auto"}`, 422, `withdraw the override`},
		{"both", "PUT", overridePath, `{"state":"up","until":"2126-11-22T04:00:00Z","for":"1m"}`, 422, "until and for exclude each other"},
		{"no_time", "PUT", overridePath, `{"state":"up","until":"soon"}`, 422, `until \"soon\" is not a time`},
		{"the_past", "PUT", overridePath, `{"state":"up","until":"2001-01-01T00:00:00Z"}`, 422, "has passed"},
		{"too_short", "PUT", overridePath, `{"state":"up","for":"999ms"}`, 422, "for 999ms is out of range"},
		{"unknown_field", "PUT", overridePath, `{"state":"up","why":"x"}`, 422, `unknown field \"why\"`},
		{"of_no_service", "PUT", "/v1/services/nobody/servers/10.0.0.11:8080/override", `{"state":"up"}`, 404, "not-found"},
		{"of_no_server", "PUT", "/v1/services/web/servers/10.0.0.99:80/override", `{"state":"up"}`, 404, "server: not found"},
		{"clears_none", "DELETE", overridePath, "", 404, "server 10.0.0.11:8080 of tcp://192.0.2.10:80 has no override"},
		{"clears_of_no_server", "DELETE", "/v1/services/web/servers/10.0.0.99:80/override", "", 404, "server: not found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHandler(t, directortest.NewFake(director.State{}))
			w := ask(h, test.method, test.path, test.body)
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) {
				t.Fatalf("%d %s\nwant %d with %s", w.Code, w.Body, test.status, test.want)
			}
		})
	}
	for _, op := range api.Operations() {
		if strings.HasSuffix(op.Path, "/override") && op.Role != api.Operator {
			t.Errorf("%s %s is open to a %s", op.Method, op.Path, op.Role)
		}
	}
}

// TestOverride: an order is shown with its server until it is withdrawn, and made
// against a revision.
func TestOverride(t *testing.T) {
	h := newHandler(t, directortest.NewFake(director.State{}))
	client := serve(t, h)
	ctx := t.Context()
	override := func() *api.Override {
		t.Helper()
		service, err := client.Service(ctx, "web")
		if err != nil {
			t.Fatal(err)
		}
		return service.Servers[0].Override
	}
	if o := override(); o != nil {
		t.Errorf("%+v before there is one", o)
	}
	if _, err := client.OverrideServer(ctx, "web", "10.0.0.11:8080", api.OverrideOrder{State: "down", For: new(api.Duration(time.Hour))}, api.Terms{Why: "disk"}); err != nil {
		t.Fatal(err)
	}
	if o := override(); o == nil || o.State != "down" || o.Why != "disk" || o.Until == nil || o.Until.Sub(o.Since) < time.Hour || o.Until.Sub(o.Since) > time.Hour+3*time.Second {
		t.Errorf("%+v", o)
	}
	for _, method := range []string{"PUT", "DELETE"} {
		if w := send(h, method, overridePath, `{"state":"up"}`, `If-Match: "1"`); w.Code != 412 {
			t.Errorf("%s after another change: %d %s", method, w.Code, w.Body)
		}
	}
	if _, err := client.ClearOverride(ctx, "web", "10.0.0.11:8080", api.Terms{}); err != nil {
		t.Fatal(err)
	}
	if o := override(); o != nil {
		t.Errorf("%+v after it was withdrawn", o)
	}
}

// fakeHealth says the same of each service it is asked for.
type fakeHealth struct {
	asked    []director.ServiceKey
	services []api.ServiceHealth // nil: one service
}

func (f *fakeHealth) Health(keys ...director.ServiceKey) []api.ServiceHealth {
	f.asked = keys
	if f.services != nil {
		return f.services
	}
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	check := api.CheckModel(realserver.Check{Kind: realserver.CheckTCP}.WithDefaults())
	return []api.ServiceHealth{{
		Service: webKey.String(), Name: "web", Quorum: true, QuorumSince: &at, Weight: 3, Needed: 1,
		Servers: []api.ServerHealth{{
			Server: "10.0.0.11:8080", Origin: "configured", Up: true, Since: &at, Why: "tcp: connected", Weight: 3,
			Steps: []api.HealthStep{{Step: "configured", Weight: 3}, {Step: "health", Weight: 3, Why: "tcp: connected"}},
			Checks: []api.CheckHealth{{
				Check: check, Target: "10.0.0.11:8080", Known: true, Up: true, Since: &at, Reason: "connected", Successes: 7,
				Last: []api.CheckResult{{At: at, Took: api.Duration(time.Millisecond), Passed: true, Text: "connected"}},
			}},
		}},
	}}
}

func (f *fakeHealth) HealthChanges(key director.ServiceKey, limit int) []api.HealthChange {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	return slices.Repeat([]api.HealthChange{{Time: at, Service: key.String(), Server: "10.0.0.11:8080", What: "up", Why: "tcp: connected"}}, limit)
}

func TestHealth(t *testing.T) {
	fake := &fakeHealth{}
	h := api.NewHandler(newDirector(t, directortest.NewFake(director.State{})), api.Options{Log: slog.New(slog.DiscardHandler), Health: fake})
	client := serve(t, h)
	report, err := client.Health(t.Context(), "", 0)
	if diff := cmp.Diff(api.HealthReport{Services: fake.Health()}, report); diff != "" || err != nil || fake.asked != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	report, err = client.Health(t.Context(), "web", 2)
	if diff := cmp.Diff(fake.HealthChanges(webKey, 2), report.Changes); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	for path, want := range map[string]string{
		"/v1/health?changes=4097": "changes 4097 is out of range", "/v1/health?changes=-1": "changes -1 is out of range",
		"/v1/health?service=nobody": `"nobody": not found`, "/v1/health?service=tcp://192.0.2.9:80": "not found",
	} {
		if w := ask(h, "GET", path, ""); w.Code < 400 || !strings.Contains(w.Body.String(), strings.ReplaceAll(want, `"`, `\"`)) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestHealthSummary: the status says what health comes to.
func TestHealthSummary(t *testing.T) {
	fake := &fakeHealth{}
	h := api.NewHandler(newDirector(t, directortest.NewFake(director.State{})), api.Options{Log: slog.New(slog.DiscardHandler), Health: fake})
	summary := func() api.HealthSummary {
		t.Helper()
		w := ask(h, "GET", "/v1/status", "")
		var status api.Status
		if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil || status.Health == nil {
			t.Fatalf("%d %s, %v", w.Code, w.Body, err)
		}
		return *status.Health
	}
	none := api.HealthSummary{WithoutQuorum: []string{}, Panic: []string{}, Sorry: []string{}}
	fake.services = []api.ServiceHealth{{Service: "a", Quorum: true, Servers: []api.ServerHealth{{Up: true, Steps: []api.HealthStep{{Step: "override"}, {Step: "health", Why: "tcp"}}}}}}
	if diff := cmp.Diff(none, summary()); diff != "" {
		t.Errorf("all well (-want +got)\n%s", diff)
	}
	fake.services = append(fake.services, api.ServiceHealth{Service: "b", Panic: true, Sorry: true, Servers: []api.ServerHealth{
		{Suspended: true}, {Steps: []api.HealthStep{{Step: "override", Why: "set down"}}},
	}})
	want := api.HealthSummary{Down: 2, Suspended: 1, Overridden: 1, WithoutQuorum: []string{"b"}, Panic: []string{"b"}, Sorry: []string{"b"}}
	if diff := cmp.Diff(want, summary()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
