package api_test

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// TestETag: whatever shows what is desired says of which revision it is, so that
// a change made after it loses no other.
func TestETag(t *testing.T) {
	const web = "/v1/services/web"
	paths := []string{"/v1/services", web, "/v1/services/tcp:%2F%2F192.0.2.10:80", "/v1/status", "/v1/drift", "/v1/timeouts", "/v1/configuration", "/v1/drains"}
	h := newHandler(t, directortest.NewFake(director.State{}))
	read := func(path, want string) {
		w := send(h, "GET", path, "")
		if got := w.Header().Get("ETag"); w.Code != http.StatusOK || got != want || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d, ETag %s, want %s; %s", path, w.Code, got, want, w.Header().Get("Cache-Control"))
		}
	}
	for _, path := range paths {
		read(path, `"1"`)
	}
	if w := send(h, "PATCH", web, `{"scheduler":"sh"}`, `If-Match: "1"`); w.Code != http.StatusOK {
		t.Errorf("a change of what was read: %d %s", w.Code, w.Body)
	}
	for _, path := range paths {
		read(path, `"2"`)
	}
	read("/v1/revisions/2", `"2"`)
	if w := send(h, "PATCH", web, `{"scheduler":"rr"}`, `If-Match: "1"`); w.Code != http.StatusPreconditionFailed {
		t.Errorf("a change of what was read before another: %d %s", w.Code, w.Body)
	}
	if w := send(h, "GET", "/v1/services/nobody", ""); w.Header().Get("ETag") != "" {
		t.Error("what is not there has a revision")
	}
}

// TestUnreachable: the servers that the status counts are those of Shunt's
// services, and not those of foreign ones, which the data plane sees as well.
func TestUnreachable(t *testing.T) {
	fake := directortest.NewFake(director.State{})
	server := func(address string, reachable bool) director.ServerStats {
		return director.ServerStats{Server: realserver.Server{Address: netip.MustParseAddrPort(address), Weight: 1}, Reachable: reachable}
	}
	client := serve(t, newHandler(t, fake))
	for _, test := range []struct {
		name string
		web  director.ServerStats
		want int
	}{{"reachable", server("10.0.0.11:8080", true), 0}, {"unreachable", server("10.0.0.11:8080", false), 1}, {"unseen", server("10.0.0.12:80", true), 1}} {
		t.Run(test.name, func(t *testing.T) {
			fake.SetStats(director.Stats{Services: []director.ServiceStats{
				{Key: webKey, Servers: []director.ServerStats{test.web}},
				{Key: foreignKey, Servers: []director.ServerStats{server("10.0.0.98:53", false), server("10.0.0.99:53", false)}},
			}})
			status, err := client.Status(t.Context())
			if err != nil || status.Servers != 1 || status.Unreachable != test.want {
				t.Errorf("%d servers, %d unreachable: want 1 and %d; %v", status.Servers, status.Unreachable, test.want, err)
			}
		})
	}
}
