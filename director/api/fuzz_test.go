package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// bodied are the operations with a body.
var bodied = []struct{ method, path string }{
	{"POST", "/v1/services"},
	{"PATCH", "/v1/services/web"},
	{"POST", "/v1/services/web/servers"},
	{"PATCH", "/v1/services/web/servers/10.0.0.11:8080"},
	{"PUT", "/v1/timeouts"},
	{"PATCH", "/v1/timeouts"},
	{"PUT", "/v1/configuration?force=true"},
	{"POST", "/v1/plan"},
	{"POST", "/v1/sync"},
	{"POST", "/v1/zero"},
	{"POST", "/v1/connections/resize"},
}

// judge fails unless the answer is a success, or a problem that is the
// caller's fault or a matter of what this version has.
func judge(t *testing.T, what string, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Code < 400 {
		return
	}
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%s: %d, no problem: %v: %.200q", what, w.Code, err, w.Body)
	}
	if p.Status != w.Code || p.Detail == "" || !strings.HasPrefix(p.Type, "urn:shunt:problem:") {
		t.Fatalf("%s: %d %+v", what, w.Code, p)
	}
	if w.Code >= 500 && w.Code != http.StatusNotImplemented {
		t.Fatalf("%s: %d %s", what, w.Code, p.Detail)
	}
}

// FuzzBodies: no body makes the daemon fail, and every one is answered in form.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{
		`{"listen":"tcp://192.0.2.1:80","name":"web","scheduler":"sh","flags":["sh-port"],"vip":"external","access":{"allow":["10.0.0.0/8"]},"servers":[{"address":"10.0.0.1","method":"dr","weight":0}]}`,
		`{"services":[{"listen":"udp://[2001:db8::1]:53","servers":[{"address":"[2001:db8::2]:5353","method":"nat"}]}],"timeouts":{"udp":"7s"}}`,
		`{"mss":1400}`, `{"mss":65536}`, `{"method":"fullnat"}`,
		`{"limits":{"rate":0,"connections":1,"source":{"prefix":1,"rate":null}},"guard":{"mode":"auto","on":5,"off":5}}`,
		`{"name":null,"access":{"deny":["::/0","x"]}}`, `{"weight":4294967296}`, `{"method":"local","weight":1e3}`, `{"tcp":"1h","tcp-fin":"-1s","udp":""}`,
		`{"role":"master","interface":"eth1","id":255,"group":"ff02::81","port":0,"max-length":65535}`, `{"services":[],"sync":[{"role":"backup"},{}]}`, `{"service":"fwmark://7"}`,
		`{"listen":"fwmark6://7","persistence":{"timeout":"5m","engine":"sip"},"servers":[{"address":"::1","method":"tunnel","tunnel":{"type":"gue","port":1,"checksum":"remote"}}]}`,
		`{"services":[],"ſervices":[]}`, `{"services":null}`, "{\"name\":\"\xff\"}", `{"a":{"a":{"a":[[[[[{}]]]]]}}}`, `[`, ``, `{}`, `{}{}`, `null`,
	} {
		for i := range bodied {
			f.Add(uint8(i), []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, op uint8, body []byte) {
		h := newHandler(t, directortest.NewFake(director.State{}))
		o := bodied[int(op)%len(bodied)]
		w := ask(h, o.method, o.path, string(body))
		judge(t, fmt.Sprintf("%s %s %q", o.method, o.path, body), w)
	})
}

// FuzzRequests: no path, query or header makes the daemon fail.
func FuzzRequests(f *testing.F) {
	for _, op := range api.Operations() {
		f.Add(op.Method, strings.NewReplacer("{ref}", "web", "{address}", "10.0.0.11:8080", "{number}", "1").Replace(op.Path), "limit=1&after=0", `"1"`, "why", "1", "application/json")
	}
	f.Add("GET", "/v1/services/%2e%2e/%00", "service=%ff&client=::/0", "*", "\x1b", "-1", "text/event-stream")
	f.Add("PATCH", "//v1/./services//web", "a=b;c", `W/"1"`, "\u202e", "18446744073709551616", ";")
	f.Add("CONNECT", "*", "%zz", `"`, "", "", "")
	f.Fuzz(func(t *testing.T, method, path, query, match, why, last, media string) {
		u, err := url.ParseRequestURI("/" + strings.TrimPrefix(path, "/"))
		if err != nil {
			t.Skip("http would not pass it on")
		}
		endless := strings.Contains(u.Path, "/stream") || strings.Contains(u.Path, "/watch") || strings.Contains(strings.ToLower(media), "event-stream")
		u.RawQuery = query
		r, err := http.NewRequest("GET", "http://shunt/", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Method, r.URL, r.RequestURI = method, u, u.String()
		for name, value := range map[string]string{"If-Match": match, "Shunt-Why": why, "Last-Event-ID": last, "Content-Type": media, "Origin": media, "Accept": media} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		h := newHandler(t, directortest.NewFake(director.State{}))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if endless {
			cancel() // it ends at once
		}
		h.ServeHTTP(w, api.AsAdmin(r.WithContext(ctx)))
		if endless && w.Code == http.StatusServiceUnavailable {
			return
		}
		judge(t, fmt.Sprintf("%s %s", method, u), w)
	})
}

// TestHugeBodies: what is large is refused or taken, and takes a bounded amount
// of memory.
func TestHugeBodies(t *testing.T) {
	const size = 10 << 20
	fill := func(head, item, tail string) string {
		return head + strings.TrimSuffix(strings.Repeat(item+",", size/(len(item)+1)), ",") + tail
	}
	for _, test := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"empty_services", fill(`{"services":[`, `{}`, `]}`), 422, "more than 524288 values"},
		{"services", fill(`{"services":[`, `{"listen":"tcp://192.0.2.1:80"}`, `]}`), 422, "more than 524288 values"},
		{"fewer_services", fill(`{"services":[`, `{"listen":"tcp://192.0.2.1:80"                                        }`, `]}`), 422, "is services[0] already"},
		{"servers", fill(`{"services":[{"listen":"tcp://192.0.2.1:80","servers":[`, `{"address":"10.0.0.1","method":     "dr","weight":1}`, `]}]}`), 422, "more than 524288 values"},
		{"fewer_servers", fill(`{"services":[{"listen":"tcp://192.0.2.1:80","servers":[`, `{"address":"10.0.0.1",                                    "method":"dr"}`, `]}]}`), 422, "a service has at most"},
		{"numbers", fill(`{"services":[`, `0`, `]}`), 422, "more than 524288 values"},
		{"depth", `{"services":[{"listen":` + strings.Repeat(`[`, size), 422, "nested more than 16 deep"},
		{"a_string", `{"services":[{"listen":"` + strings.Repeat("x", size) + `"}]}`, 422, "services[0].listen: longer than 4096 bytes"},
		{"a_name", `{"services":[{"listen":"tcp://192.0.2.1:80","name":"` + strings.Repeat("x", size) + `"}]}`, 422, "services[0].name: longer than 4096 bytes"},
		{"a_key", `{"services":[],"` + strings.Repeat("x", size) + `":1}`, 422, "unknown field"},
		{"keys", "{" + manyKeys(size) + "}", 422, "unknown field"},
		{"spaces", strings.Repeat(" ", size) + `{"services":[]}`, 409, "guard"},
		{"too_large", `{"services":[` + strings.Repeat(" ", 16<<20) + `]}`, 413, "larger than 16777216 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHandler(t, directortest.NewFake(director.State{}))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			w := ask(h, "PUT", "/v1/configuration", test.body)
			runtime.ReadMemStats(&after)
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) {
				t.Errorf("%d %.300s\nwant %d with %s", w.Code, w.Body, test.status, test.want)
			}
			if n := w.Body.Len(); n > 256<<10 {
				t.Errorf("the answer has %d bytes", n)
			}
			// All that was allocated, freed or not: far more than what was in
			// use at once.
			if used := after.TotalAlloc - before.TotalAlloc; used > 60*size {
				t.Errorf("%d MiB allocated for %d MiB", used>>20, size>>20)
			}
		})
	}
}

func manyKeys(size int) string {
	var keys strings.Builder
	for i := 0; keys.Len() < size; i++ {
		if i > 0 {
			keys.WriteByte(',')
		}
		fmt.Fprintf(&keys, `"k%d":0`, i)
	}
	return keys.String()
}
