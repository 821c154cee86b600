package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// TestMigrate hands the order over, and tells what became of it.
func TestMigrate(t *testing.T) {
	d := newDirector(t, directortest.NewFake(director.State{}))
	var got api.Migration
	var by director.Request
	answer, failure := api.MigrationReport{Bypassed: []string{}, Services: []api.MigratedService{}}, error(nil)
	h := api.NewHandler(d, api.Options{Migrate: func(_ context.Context, r director.Request, m api.Migration) (api.MigrationReport, error) {
		got, by = m, r
		return answer, failure
	}})
	t.Run("order", func(t *testing.T) {
		w := ask(h, "POST", "/v1/migration", `{"services":["tcp://192.0.2.1:80","tcp://192.0.2.1:80"],"force":true,"dry-run":true}`)
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		key, err := director.ParseServiceKey("tcp://192.0.2.1:80")
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Services) != 1 || got.Services[0] != key || !got.Force || !got.DryRun || by.Who == "" {
			t.Errorf("the order came as %+v by %+v", got, by)
		}
	})
	t.Run("failed_half_way", func(t *testing.T) {
		answer.Services, failure = []api.MigratedService{{Service: "tcp://192.0.2.1:80", Moved: true}}, errors.New("broken")
		report := decoded[api.MigrationReport](t, ask(h, "POST", "/v1/migration", `{}`))
		want := answer
		want.Failure = "broken"
		if diff := cmp.Diff(want, report); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
	})
	t.Run("bypassed", func(t *testing.T) {
		answer.Services, failure = nil, &director.BypassedError{Rules: []string{"ip filter input: drop"}}
		p := refusal(t, ask(h, "POST", "/v1/migration", `{}`))
		if p.Status != http.StatusConflict || p.Code != "bypassed" || !strings.Contains(p.Detail, "\nip filter input: drop") || !strings.Contains(p.Hint, "--force") {
			t.Errorf("problem %+v", p)
		}
	})
	for name, tt := range map[string]struct {
		body string
		err  error
		want int
	}{
		"no_url":      {`{"services":["web"]}`, nil, http.StatusUnprocessableEntity},
		"unknown_key": {`{"server":[]}`, nil, http.StatusUnprocessableEntity},
		"not_there":   {`{}`, director.ErrNotFound, http.StatusNotFound},
		"unsupported": {`{}`, director.ErrUnsupported, http.StatusNotImplemented},
	} {
		t.Run(name, func(t *testing.T) {
			answer.Services, failure = nil, tt.err
			if w := ask(h, "POST", "/v1/migration", tt.body); w.Code != tt.want {
				t.Errorf("%d %s: want %d", w.Code, w.Body, tt.want)
			}
		})
	}
	t.Run("other_data_plane", func(t *testing.T) {
		h := api.NewHandler(d, api.Options{Dataplane: "ipvs"})
		p := refusal(t, ask(h, "POST", "/v1/migration", `{}`))
		if want := "migrate: not supported by the data plane ipvs: services are moved to xdp, and a shuntd that starts with it takes its own over"; p.Detail != want {
			t.Errorf("detail %q, want %q", p.Detail, want)
		}
	})
}

// refusal reads the problem of an answer.
func refusal(t *testing.T, w *httptest.ResponseRecorder) (p api.Problem) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code {
		t.Fatalf("%d %s: want a problem: %v", w.Code, w.Body, err)
	}
	return p
}
