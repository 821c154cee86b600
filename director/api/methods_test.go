package api_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// TestMethods: servers of every method, of the other address family where the
// method can, and segments' sizes come and go.
func TestMethods(t *testing.T) {
	fake := directortest.NewFake(director.State{})
	features := director.XDPFeatures()
	features.Tunnels, features.FullNAT, features.MSS = true, true, true
	fake.SetFeatures(features)
	h := newHandler(t, fake)
	const web, servers = "/v1/services/web", "/v1/services/web/servers"
	for _, step := range []struct {
		name, method, path, body string
		status                   int
		want                     string // in the answer
	}{
		{"fullnat", "POST", servers, `{"address":"10.0.0.12:8080","method":"fullnat"}`, 201, `"text":"add server 10.0.0.12:8080 to tcp://192.0.2.10:80: method fullnat, weight 1"`},
		{"tunnel", "POST", servers, `{"address":"2001:db8:1::1","method":"tunnel","tunnel":{"type":"gue","port":5555}}`, 201, `method tunnel, tunnel gue port 5555, weight 1`},
		{"method_changed", "PATCH", servers + "/10.0.0.11:8080", `{"method":"fullnat"}`, 200, `"field":"method","old":"nat","new":"fullnat"`},
		{"fullnat_of_the_other_family", "POST", servers, `{"address":"[2001:db8:1::2]:80","method":"fullnat"}`, 422, "only tunnels can mix them"},
		{"tunnel_of_fullnat", "POST", servers, `{"address":"10.0.0.13","method":"fullnat","tunnel":{"type":"gre"}}`, 422, "method fullnat has no tunnel"},
		{"without_a_method", "POST", servers, `{"address":"10.0.0.13"}`, 422, "give nat, dr, tunnel, fullnat or local"},
		{"mss", "PATCH", web, `{"mss":1400}`, 200, `"field":"mss","old":"none","new":"1400"`},
		{"mss_shown", "GET", web, "", 200, `"mss":1400`},
		{"mss_kept", "PATCH", web, `{"scheduler":"wrr"}`, 200, `"changes":[{"field":"scheduler","old":"rr","new":"wrr"}]`},
		{"mss_too_small", "PATCH", web, `{"mss":535}`, 422, "mss 535: want 536 to 65535"},
		{"mss_too_large", "PATCH", web, `{"mss":65536}`, 422, "mss"},
		{"mss_of_udp", "POST", "/v1/services", `{"listen":"udp://192.0.2.10:53","mss":1400}`, 422, "mss is for tcp"},
		{"mss_of_a_new_service", "POST", "/v1/services", `{"listen":"tcp://[2001:db8::10]:80","mss":1220}`, 201, "mss 1220"},
		{"mss_taken_away", "PATCH", web, `{"mss":0}`, 200, `"field":"mss","old":"1400","new":"none"`},
	} {
		w := ask(h, step.method, step.path, step.body)
		if w.Code != step.status || !strings.Contains(w.Body.String(), step.want) {
			t.Errorf("%s: %d %s\nwant %d with %s", step.name, w.Code, w.Body, step.status, step.want)
		}
	}
	if shown := ask(h, "GET", web, "").Body.String(); strings.Contains(shown, `"mss"`) {
		t.Errorf("shown %s, want no mss", shown)
	}
}

// TestForwarding: the status has what the daemon was configured with.
func TestForwarding(t *testing.T) {
	want := &api.Forwarding{Echo: "stack", TunnelSources: []string{"10.0.0.32/28"}, LocalAddresses: []string{}, LocalPorts: "1024-65535"}
	h := api.NewHandler(newDirector(t, directortest.NewFake(director.State{})), api.Options{Log: slog.New(slog.DiscardHandler), Forwarding: want})
	if diff := cmp.Diff(want, decoded[api.Status](t, ask(h, "GET", "/v1/status", "")).Forwarding); diff != "" {
		t.Errorf("forwarding (-want +got):\n%s", diff)
	}
	if w := ask(newHandler(t, directortest.NewFake(director.State{})), "GET", "/v1/status", ""); strings.Contains(w.Body.String(), "forwarding") {
		t.Errorf("status %s, want no forwarding", w.Body)
	}
}
