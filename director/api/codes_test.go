package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// TestCodes: a program can tell what is there already, what is not, and what cannot
// be, without reading texts.
func TestCodes(t *testing.T) {
	const web, server = "/v1/services/web", `{"address":"10.0.0.11:8080","method":"nat"}`
	refused := func(err error) func(director.Operation) error {
		return func(director.Operation) error { return fmt.Errorf("the kernel: %w", err) }
	}
	for _, test := range []struct {
		name, method, path, body string
		fails                    error // of the kernel
		status                   int
		want                     api.ProblemCode
	}{
		{"the_service", "POST", "/v1/services", `{"listen":"tcp://192.0.2.10:80"}`, nil, 409, api.ProblemCodeServiceExists},
		{"a_foreign_service", "POST", "/v1/services", `{"listen":"udp://192.0.2.99:53"}`, nil, 409, api.ProblemCodeServiceExists},
		{"the_server", "POST", web + "/servers", server, nil, 409, api.ProblemCodeServerExists},
		{"the_foreign_sync_daemon", "POST", "/v1/sync", `{"role":"backup"}`, nil, 409, api.ProblemCodeSyncRunning},
		{"no_service", "GET", "/v1/services/nobody", "", nil, 404, api.ProblemCodeNoService},
		{"no_service_by_url", "GET", "/v1/services/tcp:%2F%2F192.0.2.10:81", "", nil, 404, api.ProblemCodeNoService},
		{"no_service_to_edit", "PATCH", "/v1/services/tcp:%2F%2F192.0.2.10:81", `{}`, nil, 404, api.ProblemCodeNoService},
		{"no_service_to_remove", "DELETE", "/v1/services/tcp:%2F%2F192.0.2.10:81", "", nil, 404, api.ProblemCodeNoService},
		{"no_service_to_zero", "POST", "/v1/zero", `{"service":"tcp://192.0.2.10:81"}`, nil, 404, api.ProblemCodeNoService},
		{"no_name_to_zero", "POST", "/v1/zero", `{"service":"nobody"}`, nil, 404, api.ProblemCodeNoService},
		{"no_service_of_connections", "GET", "/v1/connections?service=nobody", "", nil, 404, api.ProblemCodeNoService},
		{"no_service_of_the_server", "POST", "/v1/services/nobody/servers", server, nil, 404, api.ProblemCodeNoService},
		{"no_service_of_the_edited_server", "PATCH", "/v1/services/nobody/servers/10.0.0.11:8080", `{}`, nil, 404, api.ProblemCodeNoService},
		{"no_server_to_edit", "PATCH", web + "/servers/10.0.0.12:80", `{}`, nil, 404, api.ProblemCodeNoServer},
		{"no_server_to_remove", "DELETE", web + "/servers/10.0.0.12:80", "", nil, 404, api.ProblemCodeNoServer},
		{"no_server_to_drain", "PUT", web + "/servers/10.0.0.12:80/drain", `{}`, nil, 404, api.ProblemCodeNoServer},
		{"no_drain", "DELETE", web + "/servers/10.0.0.11:8080/drain", "", nil, 404, api.ProblemCodeNotDraining},
		{"no_override", "DELETE", web + "/servers/10.0.0.11:8080/override", "", nil, 404, api.ProblemCodeNotOverridden},
		{"no_health", "GET", "/v1/health", "", nil, 501, api.ProblemCodeUnsupported},
		{"no_sync", "DELETE", "/v1/sync/master", "", nil, 404, api.ProblemCodeNoSync},
		{"no_sync_but_a_foreign_one", "DELETE", "/v1/sync/backup", "", nil, 404, api.ProblemCodeNoSync},
		{"no_revision", "GET", "/v1/revisions/99", "", nil, 404, api.ProblemCodeNoRevision},
		{"no_revision_to_go_back_to", "POST", "/v1/revisions/99/rollback", "", nil, 404, api.ProblemCodeNoRevision},
		{"invalid", "POST", "/v1/services", `{"listen":"tcp://192.0.2.1:80","scheduler":"xx"}`, nil, 422, api.ProblemCodeInvalid},
		{"unsupported", "POST", "/v1/services", `{"listen":"tcp://192.0.2.1:80","access":{"deny":["10.0.0.0/8"]}}`, nil, 501, api.ProblemCodeUnsupported},
		{"guarded", "PUT", "/v1/configuration", `{"services":[]}`, nil, 409, api.ProblemCodeGuard},
		{"no_module", "PATCH", web, `{"scheduler":"fo"}`, director.ErrNoScheduler, 422, api.ProblemCodeSchedulerMissing},
		{"no_memory", "PATCH", web, `{"scheduler":"fo"}`, director.ErrNoMemory, 507, api.ProblemCodeFull},
		{"busy", "PATCH", web, `{"scheduler":"fo"}`, director.ErrBusy, 503, api.ProblemCodeBusy},
		{"no_interface", "POST", "/v1/sync", `{"role":"master"}`, director.ErrNoInterface, 422, api.ProblemCodeNoInterface},
		{"in_the_kernel_already", "POST", "/v1/services", `{"listen":"tcp://192.0.2.1:80"}`, director.ErrExists, 409, api.ProblemCodeServiceExists},
		{"of_the_kernel_no_more", "PATCH", web + "/servers/10.0.0.11:8080", `{"weight":7}`, director.ErrNotFound, 404, api.ProblemCodeNoServer},
		{"not_in_the_kernel", "PATCH", web, `{"scheduler":"fo"}`, director.ErrNotFound, 404, api.ProblemCodeNoService},
		{"runs_already", "POST", "/v1/sync", `{"role":"master"}`, director.ErrExists, 409, api.ProblemCodeSyncRunning},
		{"failed", "PATCH", web, `{"scheduler":"fo"}`, errors.New("no memory"), 500, api.ProblemCodeInternal},
		{"no_json", "POST", "/v1/zero", `x`, nil, 400, api.ProblemCodeBadRequest},
		{"no_route", "GET", "/v1/nothing", "", nil, 404, api.ProblemCodeNoRoute},
		{"no_method", "PUT", "/v1/sync", "", nil, 405, api.ProblemCodeMethod},
	} {
		t.Run(test.name, func(t *testing.T) {
			state := seededState()
			state.Sync = []director.SyncDaemon{director.SyncDaemon{Role: director.SyncBackup}.Normalize()}
			fake := newKernel(t, state)
			h := newHandler(t, fake)
			if test.fails != nil {
				fake.FailIf(refused(test.fails))
			}
			w := ask(h, test.method, test.path, test.body)
			var p api.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatalf("%d %s: %v", w.Code, w.Body, err)
			}
			if w.Code != test.status || p.Code != test.want || !p.Code.Valid() {
				t.Errorf("%d %+v, want %d %s", w.Code, p, test.status, test.want)
			}
			fake.FailIf(nil)
		})
	}
}

var madeProblem = regexp.MustCompile(`newProblem\(\s*[^,"]+,\s*"([a-z-]+)"`)

// TestCodesAreDocumented: every kind of problem that the code makes is a code of
// the document, which says what it means.
func TestCodesAreDocumented(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range madeProblem.FindAllSubmatch(text, -1) {
			if made++; !api.ProblemCode(match[1]).Valid() {
				t.Errorf("%s: the document has no code %s", file, match[1])
			}
		}
	}
	if made < 30 {
		t.Errorf("%d problems are made", made)
	}
	doc := parsed(t)
	schema := at(t, doc, doc, "components", "schemas", "ProblemCode")
	var words []string
	for _, item := range regexp.MustCompile(`(?m)^- ([a-z, -]+):`).FindAllStringSubmatch(at(t, doc, schema, "description").(string), -1) {
		words = append(words, strings.Split(item[1], ", ")...)
	}
	for _, code := range at(t, doc, schema, "enum").([]any) {
		if !slices.Contains(words, code.(string)) {
			t.Errorf("the description does not say what %s is", code)
		}
	}
}
