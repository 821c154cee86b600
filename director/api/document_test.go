package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// object is a JSON object.
type object = map[string]any

// parsed returns the document as JSON values.
func parsed(t *testing.T) object {
	t.Helper()
	var v any
	if err := yaml.Load(api.Document(), &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return out.(object)
}

// at follows keys, and references on the way.
func at(t *testing.T, doc object, v any, keys ...string) any {
	t.Helper()
	resolve := func(v any) any {
		for {
			o, ok := v.(object)
			if !ok {
				return v
			}
			ref, ok := o["$ref"].(string)
			if !ok {
				return v
			}
			v = any(doc)
			for _, key := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
				if v, ok = v.(object)[key]; !ok {
					t.Fatalf("%s: nothing there", ref)
				}
			}
		}
	}
	v = resolve(v)
	for _, key := range keys {
		o, ok := v.(object)
		if !ok || o[key] == nil {
			return nil
		}
		v = resolve(o[key])
	}
	return v
}

var methods = []string{"get", "put", "post", "patch", "delete"}

// eachOperation calls the function for every operation of the document.
func eachOperation(t *testing.T, doc object, do func(method, path string, op object)) {
	t.Helper()
	paths := doc["paths"].(object)
	for path, item := range paths {
		for method, op := range item.(object) {
			if slices.Contains(methods, method) {
				do(strings.ToUpper(method), path, op.(object))
			} else if method != "parameters" {
				t.Errorf("%s: unexpected %s", path, method)
			}
		}
	}
}

func TestDocumentIsComplete(t *testing.T) {
	doc := parsed(t)
	if doc["openapi"] != "3.1.0" {
		t.Errorf("openapi: %v", doc["openapi"])
	}
	ids := map[string]bool{}
	eachOperation(t, doc, func(method, path string, op object) {
		where := method + " " + path
		id, _ := op["operationId"].(string)
		if id == "" || ids[id] {
			t.Errorf("%s: operationId %q is missing or there twice", where, id)
		}
		ids[id] = true
		for _, key := range []string{"summary", "description", "x-role", "tags", "responses"} {
			if op[key] == nil {
				t.Errorf("%s: no %s", where, key)
			}
		}
		responses := op["responses"].(object)
		if op["x-role"] == "public" {
			return
		}
		want := []string{"401", "403"}
		if op["requestBody"] != nil {
			want = append(want, "400", "413", "415", "422")
		}
		switch {
		case method == "GET", id == "makePlan", id == "detach":
		case slices.Contains([]string{"killConnections", "loadConnections", "resizeTables", "zeroCounters", "migrate", "registerMember", "deregisterMember", "reportUnreachable"}, id): // makes no revision, or one a service
			want = append(want, "422", "503")
		default:
			want = append(want, "412", "422", "503")
		}
		for _, status := range want {
			if at(t, doc, responses, status, "content", "application/problem+json") == nil {
				t.Errorf("%s: no problem %s", where, status)
			}
		}
	})
}

// Services and edits of them name every scheduler, which clients are made from.
func TestDocumentNamesEveryScheduler(t *testing.T) {
	doc := parsed(t)
	for _, model := range []string{"ServiceConfig", "ServiceEdit"} {
		enum, _ := at(t, doc, doc, "components", "schemas", model, "properties", "scheduler", "enum").([]any)
		var got []director.Scheduler
		for _, name := range enum {
			got = append(got, director.Scheduler(name.(string)))
		}
		if diff := cmp.Diff(director.Schedulers(), got); diff != "" {
			t.Errorf("scheduler of %s (-want +got):\n%s", model, diff)
		}
	}
}

// TestExamples compiles every schema of the document and checks every example
// against the schema beside it.
func TestExamples(t *testing.T) {
	doc := parsed(t)
	const url = "openapi.json"
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(url, any(doc)); err != nil {
		t.Fatal(err)
	}
	schema := func(pointer string) *jsonschema.Schema {
		s, err := compiler.Compile(url + "#" + pointer)
		if err != nil {
			t.Fatalf("%s: %v", pointer, err)
		}
		return s
	}
	for name, v := range at(t, doc, doc, "components", "schemas").(object) {
		schema("/components/schemas/" + name)
		if v.(object)["description"] == nil {
			t.Errorf("%s: no description", name)
		}
		for field, property := range fieldsOf(t, doc, v) {
			if at(t, doc, property, "description") == nil {
				t.Errorf("%s.%s: no description", name, field)
			}
		}
	}
	checked := 0
	var walk func(pointer string, v any)
	walk = func(pointer string, v any) {
		switch v := v.(type) {
		case []any:
			for i, inner := range v {
				walk(fmt.Sprintf("%s/%d", pointer, i), inner)
			}
		case object:
			if v["schema"] != nil && v["examples"] != nil {
				for name, example := range v["examples"].(object) {
					value := at(t, doc, example, "value")
					if err := schema(pointer + "/schema").Validate(value); err != nil {
						t.Errorf("%s: example %s: %v", pointer, name, err)
					}
					checked++
				}
			}
			if v["schema"] != nil && v["example"] != nil {
				if err := schema(pointer + "/schema").Validate(v["example"]); err != nil {
					t.Errorf("%s: example: %v", pointer, err)
				}
				checked++
			}
			for key, inner := range v {
				walk(pointer+"/"+strings.NewReplacer("~", "~0", "/", "~1", "%", "%25", "{", "%7B", "}", "%7D").Replace(key), inner)
			}
		}
	}
	walk("", any(doc))
	if checked < 60 {
		t.Errorf("%d examples", checked)
	}
	// Every body and every answer that is JSON has one.
	eachOperation(t, doc, func(method, path string, op object) {
		if body := at(t, doc, op, "requestBody", "content", "application/json"); body != nil && body.(object)["examples"] == nil {
			t.Errorf("%s %s: the body has no example", method, path)
		}
	})
}

func fieldsOf(t *testing.T, doc object, schema any) object {
	fields, _ := at(t, doc, schema, "properties").(object)
	return fields
}

// TestRoutes: what the document has is served, and nothing else.
func TestRoutes(t *testing.T) {
	doc := parsed(t)
	h := newHandler(t, directortest.NewFake(director.State{}))
	documented := map[string]string{}
	eachOperation(t, doc, func(method, path string, op object) {
		documented[method+" "+path] = op["x-role"].(string)
		target := strings.NewReplacer("{ref}", "web", "{address}", "10.0.0.11:8080", "{number}", "1").Replace(path)
		if strings.HasSuffix(target, "/stream") || strings.HasSuffix(target, "/watch") {
			target += "?unknown=1" // a stream does not end by itself
		}
		var p api.Problem
		w := ask(h, method, target, "")
		_ = json.Unmarshal(w.Body.Bytes(), &p)
		if w.Code == http.StatusMethodNotAllowed || strings.HasSuffix(p.Type, ":no-route") {
			t.Errorf("%s %s is not served: %d %s", method, path, w.Code, w.Body)
		}
	})
	served := map[string]string{}
	for _, op := range api.Operations() {
		served[op.Method+" "+op.Path] = op.Role.String()
	}
	if diff := cmp.Diff(documented, served); diff != "" {
		t.Errorf("the generated table is not the document's (-document +table)\n%s", diff)
	}
	for path := range doc["paths"].(object) {
		target := strings.NewReplacer("{ref}", "web", "{address}", "10.0.0.11:8080", "{number}", "1").Replace(path)
		for _, method := range methods {
			method = strings.ToUpper(method)
			if _, ok := documented[method+" "+path]; ok {
				continue
			}
			if w := ask(h, method, target, ""); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s is not documented, but answers %d", method, path, w.Code)
			}
		}
	}
}

// TestAnswersFitTheDocument checks real answers against the schemas.
func TestAnswersFitTheDocument(t *testing.T) {
	doc := parsed(t)
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource("openapi.json", any(doc)); err != nil {
		t.Fatal(err)
	}
	features := director.XDPFeatures()
	features.Sync = true // for its answers, too
	fake := directortest.NewFake(seededState())
	fake.SetFeatures(features)
	fake.SetStats(seededStats())
	fake.SetDecision(seededDecision())
	h := api.NewHandler(newDirector(t, fake), api.Options{Log: slog.New(slog.DiscardHandler), Health: &fakeHealth{}})
	for _, test := range []struct{ method, path, body, schema string }{
		{"GET", "/v1/status", "", "Status"},
		{"GET", "/v1/stats", "", "Stats"},
		{"GET", "/v1/drift", "", "Drift"},
		{"GET", "/v1/services", "", "ServiceList"},
		{"GET", "/v1/services/web", "", "Service"},
		{"GET", "/v1/found", "", "Found"},
		{"POST", "/v1/sync", `{"role":"master","interface":"eth1"}`, "Outcome"},
		{"GET", "/v1/found", "", "Found"},
		{"GET", "/v1/timeouts", "", "Timeouts"},
		{"GET", "/v1/configuration", "", "Configuration"},
		{"POST", "/v1/plan", `{"services":[]}`, "Plan"},
		{"GET", "/v1/revisions", "", "RevisionList"},
		{"GET", "/v1/revisions/1", "", "Revision"},
		{"GET", "/v1/events", "", "EventList"},
		{"GET", "/v1/connections/count", "", "ConnectionCount"},
		{"GET", "/v1/connections/count?by=state", "", "ConnectionCount"},
		{"GET", "/v1/connections/count?by=client&limit=1", "", "ConnectionCount"},
		{"GET", "/v1/connections/count?by=age&min-idle=1s", "", "ConnectionCount"},
		{"GET", "/v1/connections/check", "", "TableCheck"},
		{"POST", "/v1/connections/resize", `{"ipv4":4096}`, "TablesResized"},
		{"GET", "/v1/connections/explain?protocol=tcp&client=198.51.100.7&virtual=192.0.2.10:80", "", "Decision"},
		{"DELETE", "/v1/connections?kind=template", "", "ConnectionsKilled"},
		{"PATCH", "/v1/services/web", `{"persistence":{"timeout":"5m"},"timeouts":{"tcp":"1h"},"conn-reuse-mode":3}`, "Outcome"},
		{"GET", "/v1/services/web", "", "Service"},
		{"GET", "/v1/configuration", "", "Configuration"},
		{"PATCH", "/v1/timeouts", `{"udp":"10s"}`, "Outcome"},
		{"PUT", drainPath, `{"within":"10m"}`, "Outcome"},
		{"GET", "/v1/drains", "", "DrainList"},
		{"PUT", overridePath, `{"state":"down","for":"1h"}`, "Outcome"},
		{"PATCH", "/v1/services/web", `{"health":{"checks":[{"kind":"http","http":{"path":"/","status":["200-299"]},"tls":{}}],"quorum":1,"slow-start":"30s"}}`, "Outcome"},
		{"GET", "/v1/health?changes=1", "", "HealthReport"},
		{"GET", "/v1/services/web", "", "Service"},
		{"GET", "/v1/services/nobody", "", "Problem"},
	} {
		s, err := compiler.Compile("openapi.json#/components/schemas/" + test.schema)
		if err != nil {
			t.Fatal(err)
		}
		w := ask(h, test.method, test.path, test.body)
		v, err := jsonschema.UnmarshalJSON(w.Body)
		if err != nil {
			t.Fatalf("%s %s: %v", test.method, test.path, err)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%s %s: %v", test.method, test.path, err)
		}
	}
}
