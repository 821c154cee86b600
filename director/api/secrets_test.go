package api_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/realserver"
)

// secretHealth has the secret in each place that may have one.
func secretHealth(secret string) director.Health {
	return director.Health{
		Checks: []realserver.Check{
			{Kind: realserver.CheckHTTP, HTTP: &realserver.HTTPCheck{
				Path: "/healthz?token=" + secret, Headers: []realserver.Header{{Name: "Authorization", Value: "Bearer " + secret}, {Name: "Cookie", Value: "id=" + secret}},
			}},
			{Kind: realserver.CheckTCP, Exchange: &realserver.ExchangeCheck{Send: []byte(secret), Expect: "^PONG"}},
			{Kind: realserver.CheckUDP, Exchange: &realserver.ExchangeCheck{Send: []byte(secret)}},
			{Kind: realserver.CheckScript, Script: &realserver.ScriptCheck{Command: []string{"/usr/bin/check", "-p", secret}}},
		},
		Notify: director.Notify{
			Up: []string{"/usr/bin/up", secret}, Down: []string{"/usr/bin/down", secret}, QuorumUp: []string{"/usr/bin/qu", secret}, QuorumDown: []string{"/usr/bin/qd", secret},
		},
	}
}

// checking is the health of a daemon that makes the checks.
type checking struct{ *fakeHealth }

func (checking) Health(...director.ServiceKey) []api.ServiceHealth {
	server := api.ServerHealth{Server: "10.0.0.11:8080", Origin: "configured", Steps: []api.HealthStep{}}
	for _, check := range secretHealth(theSecret).Checks {
		server.Checks = append(server.Checks, api.CheckHealth{Check: api.CheckModel(check), Target: "10.0.0.11:8080", Last: []api.CheckResult{}})
	}
	return []api.ServiceHealth{{Service: webKey.String(), Name: "web", Servers: []api.ServerHealth{server}}}
}

const (
	oldSecret = "hunter2-old"
	theSecret = "hunter2-new"
)

// serveSecrets serves a service whose checks have secrets: revision 2 has the old ones and
// revision 3 the new.
func serveSecrets(t *testing.T) *remote {
	t.Helper()
	r := serveTLSBy(t, func(r *remote) *api.Handler {
		d := newDirector(t, directortest.NewFake(director.State{}))
		for _, secret := range []string{oldSecret, theSecret} {
			_, err := d.EditService(t.Context(), director.Request{}, webKey, func(s *director.Service) error {
				s.Health = secretHealth(secret)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return api.NewHandler(d, api.Options{Log: slog.New(slog.DiscardHandler), Events: r.events, Health: checking{&fakeHealth{}}})
	})
	r.listener.SetCheck(0)
	return r
}

// get asks by the token of the role, and returns what comes before the stream is idle, or
// all of the body.
func (r *remote) get(t *testing.T, role api.Role, method, path, body string, headers ...string) (int, string) {
	t.Helper()
	caller := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer caller.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // for an answer that does not end
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+r.tokens[role.String()])
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	answer, err := caller.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.Header.Get("Content-Type") != "text/event-stream" {
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	var text strings.Builder
	buffer := make([]byte, 64<<10)
	for strings.Count(text.String(), ":\n\n") < 3 { // what there is to tell is told before the second heartbeat
		n, err := answer.Body.Read(buffer)
		text.Write(buffer[:n])
		if err != nil {
			break
		}
	}
	return answer.StatusCode, text.String()
}

func encode(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// leaked returns the secrets that a text has, in the clear or as JSON has octets.
func leaked(text string) (all []string) {
	for _, secret := range []string{oldSecret, theSecret} {
		for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(text, form) {
				all = append(all, form)
			}
		}
	}
	return all
}

// TestSecrets: whoever may not change a check is not shown what it may have of secrets,
// by any operation; names, and that something changes, are.
func TestSecrets(t *testing.T) {
	r := serveSecrets(t)
	operator := r.client(t, "", r.tokens["operator"])
	configuration, _, err := operator.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := strings.NewReplacer(theSecret, "another", base64.StdEncoding.EncodeToString([]byte(theSecret)), "YW5vdGhlcg==").Replace(encode(t, configuration))
	const header = "Authorization: (redacted)"
	shows := map[string]string{ // what viewers see
		"/v1/services": header, "/v1/services/web": header, "/v1/configuration": header, "/v1/revisions/2": header, "/v1/health": header, "/v1/found": "",
		"/v1/revisions/2/diff?to=3": header, "/v1/revisions/2/diff": header, "/v1/state/stream": header,
	}
	asked := 0
	eachOperation(t, parsed(t), func(method, path string, op object) {
		if method != http.MethodGet {
			return
		}
		path = strings.NewReplacer("{ref}", "web", "{address}", "10.0.0.11:8080", "{number}", "2", "{pool}", "web").Replace(path)
		if _, has := shows[path]; !has {
			shows[path] = ""
		}
	})
	for path, has := range shows {
		asked++
		if _, text := r.get(t, api.Viewer, http.MethodGet, path, ""); len(leaked(text)) > 0 || !strings.Contains(text, has) {
			t.Errorf("GET %s shows a viewer %q, want %q in\n%s", path, leaked(text), has, text)
		}
		if has == "" {
			continue
		}
		for _, role := range []api.Role{api.Operator, api.Admin} {
			if status, text := r.get(t, role, http.MethodGet, path, ""); status != http.StatusOK || len(leaked(text)) == 0 || strings.Contains(text, realserver.Redacted) {
				t.Errorf("GET %s is %d and shows an %s no secret:\n%s", path, status, role, text)
			}
		}
	}
	if _, text := r.get(t, api.Viewer, http.MethodGet, "/v1/state/stream", "", "Last-Event-ID: 2"); len(leaked(text)) > 0 || !strings.Contains(text, header) {
		t.Errorf("a viewer is told of revision 3 by %s", text)
	}
	if _, text := r.get(t, api.Operator, http.MethodGet, "/v1/state/stream", "", "Last-Event-ID: 2"); len(leaked(text)) == 0 {
		t.Errorf("an operator is told of revision 3 by %s", text)
	}
	if asked < 30 {
		t.Errorf("%d paths", asked)
	}
	status, text := r.get(t, api.Viewer, http.MethodPost, "/v1/plan", other)
	if status != http.StatusOK || len(leaked(text)) > 0 || !strings.Contains(text, header) {
		t.Errorf("a viewer's plan: %d %s", status, text)
	}
	if status, text = r.get(t, api.Operator, http.MethodPost, "/v1/plan", other); status != http.StatusOK || len(leaked(text)) == 0 {
		t.Errorf("an operator's plan: %d %s", status, text)
	}
}

// TestRedactedIsRefused: what a viewer was shown is never made what is desired.
func TestRedactedIsRefused(t *testing.T) {
	r := serveSecrets(t)
	_, shown := r.get(t, api.Viewer, http.MethodGet, "/v1/configuration", "")
	operator := r.client(t, "", r.tokens["operator"])
	before, revision, err := operator.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []struct{ method, path string }{{http.MethodPut, "/v1/configuration"}, {http.MethodPost, "/v1/plan"}} {
		status, text := r.get(t, api.Operator, request.method, request.path, shown)
		for _, want := range []string{
			"check[0]: the path's query is (redacted)", "check[0]: the value of header Authorization is (redacted), which stands for a value that viewers are not shown: have an operator export it",
			"check[0]: the value of header Cookie is", "check[1]: what is sent is", "check[2]: what is sent is", "check[3]: argument 1 is", "notify quorum-down: argument 1 is",
		} {
			if status != http.StatusUnprocessableEntity || !strings.Contains(text, want) {
				t.Errorf("%s: %d, want %q in %s", request.path, status, want, text)
			}
		}
	}
	after, is, err := operator.Configuration(t.Context())
	if err != nil || is != revision || encode(t, after) != encode(t, before) {
		t.Errorf("revision %d is %d now: %v", revision, is, err)
	}
}

// TestStreamEndsWithItsRole: one that shows secrets ends when its caller may not see them
// any more.
func TestStreamEndsWithItsRole(t *testing.T) {
	r := serveSecrets(t)
	r.events.Publish(event.Event{Name: event.Started})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // for a stream that goes on
	defer cancel()
	token := r.tokens["operator"]
	seen := 0
	for _, err := range r.client(t, "", token).FollowEvents(ctx, api.EventQuery{After: new(uint64)}) {
		if err != nil {
			break
		}
		if seen++; seen == 1 {
			sum := sha256.Sum256([]byte(token))
			line, err := api.TokenLine("operator", api.Viewer, hex.EncodeToString(sum[:]), time.Time{}, api.AgentTerms{})
			if err != nil {
				t.Fatal(err)
			}
			r.writeTokens(t, line+"\n")
		}
	}
	if seen != 1 || ctx.Err() != nil {
		t.Errorf("%d events, then %v: want one, and the end", seen, ctx.Err())
	}
}
