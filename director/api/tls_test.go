package api_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
)

// remote is a daemon on TLS, with a CA, tokens and its events.
type remote struct {
	ca, clients *authority
	listener    *api.TLSListener
	handler     *api.Handler
	url         string
	cert        string
	tokensFile  string
	tokens      map[string]string // by name; the names are those of the roles, and expired
	events      *event.Stream
	log         *buffer // of the listener
}

func serveTLS(t *testing.T) *remote {
	t.Helper()
	return serveTLSBy(t, func(r *remote) *api.Handler {
		return api.NewHandler(newDirector(t, directortest.NewFake(director.State{})), api.Options{
			Log: slog.New(slog.DiscardHandler), Events: r.events,
			Detach: func(context.Context) error { return errors.New("not in this test") },
		})
	})
}

// serveTLSBy serves what the function makes.
func serveTLSBy(t *testing.T, handler func(*remote) *api.Handler) *remote {
	t.Helper()
	r := &remote{
		ca: newAuthority(t, "servers"), clients: newAuthority(t, "clients"),
		tokensFile: filepath.Join(t.TempDir(), "tokens"), tokens: map[string]string{},
		events: event.NewStream(slog.New(slog.DiscardHandler), 0), log: &buffer{},
	}
	r.cert = r.ca.issue(t, "shuntd", leaf{server: true})
	lines := "# tokens\n\n"
	for _, role := range []api.Role{api.Viewer, api.Operator, api.Admin} {
		lines += r.newToken(t, role.String(), role, time.Time{}) + " # a comment\n"
	}
	lines += r.newToken(t, "expired", api.Admin, time.Now().Add(-time.Minute)) + "\n"
	lines += r.newAgentToken(t, "agent", api.AgentTerms{Pools: []string{"web", "mail"}}) + "\n"
	lines += r.newToken(t, "later", api.Viewer, time.Now().Add(time.Hour)) + "\n"
	r.writeTokens(t, lines)
	var err error
	r.listener, err = api.ListenTLS(api.TLSOptions{
		Address: "127.0.0.1:0", Certificate: r.cert, ClientCA: r.clients.file, Tokens: r.tokensFile, Log: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.url = "https://" + r.listener.Addr().String()
	r.handler = handler(r)
	r.handler.SetHeartbeat(20 * time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1) // one value, sent once
	go func() { done <- r.handler.Run(ctx, r.listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

func (r *remote) newToken(t *testing.T, name string, role api.Role, expires time.Time) string {
	t.Helper()
	return r.addToken(t, name, role, expires, api.AgentTerms{})
}

func (r *remote) newAgentToken(t *testing.T, name string, terms api.AgentTerms) string {
	t.Helper()
	return r.addToken(t, name, api.Agent, time.Time{}, terms)
}

func (r *remote) addToken(t *testing.T, name string, role api.Role, expires time.Time, terms api.AgentTerms) string {
	t.Helper()
	token, hash := api.NewToken()
	line, err := api.TokenLine(name, role, hash, expires, terms)
	if err != nil {
		t.Fatal(err)
	}
	r.tokens[name] = token
	return line
}

func (r *remote) writeTokens(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(r.tokensFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// client returns a client with the certificate file or the token, or neither.
func (r *remote) client(t *testing.T, certificate, token string) *api.Client {
	t.Helper()
	opts := api.TLSClientOptions{Server: r.url, CA: r.ca.file, Certificate: certificate}
	if token != "" {
		opts.TokenFile = filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(opts.TokenFile, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client, err := api.NewTLSClient(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func TestCredentials(t *testing.T) {
	r := serveTLS(t)
	strangers := newAuthority(t, "strangers")
	for _, test := range []struct {
		name, certificate, token string
		want                     string // in the error; empty: let in
	}{
		{"viewers_certificate", r.clients.issue(t, "v", leaf{units: []string{"Operations", "shunt-viewer"}}), "", ""},
		{"token", "", r.tokens["viewer"], ""},
		{"token_before_its_expiry", "", r.tokens["later"], ""},
		{"nothing", "", "", "no credentials"},
		{"certificate_of_another_ca", strangers.issue(t, "s", leaf{units: []string{"shunt-admin"}}), "", "not signed by the daemon's client CA"},
		{"certificate_of_the_servers_ca", r.ca.issue(t, "s", leaf{units: []string{"shunt-admin"}}), "", "not signed by the daemon's client CA"},
		{"expired_certificate", r.clients.issue(t, "e", leaf{units: []string{"shunt-admin"}, expired: true}), "", "only"},
		{"servers_certificate", r.clients.issue(t, "x", leaf{units: []string{"shunt-admin"}, server: true}), "", "incompatible key usage"},
		{"certificate_without_a_role", r.clients.issue(t, "n", leaf{}), "", "no organizational unit gives it a role"},
		{"certificate_with_an_unknown_role", r.clients.issue(t, "n", leaf{units: []string{"shunt-root", "admin"}}), "", "no organizational unit gives it a role"},
		{"certificate_with_two_roles", r.clients.issue(t, "n", leaf{units: []string{"shunt-viewer", "shunt-admin"}}), "", "more than one role"},
		{"wrong_token", "", "shunt_wrong", "the token is not known"},
		{"part_of_a_token", "", r.tokens["admin"][:20], "the token is not known"},
		{"expired_token", "", r.tokens["expired"], "token expired expired at"},
		{"wrong_token_with_a_good_certificate", r.clients.issue(t, "v", leaf{units: []string{"shunt-admin"}}), "shunt_wrong", "the token is not known"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.client(t, test.certificate, test.token).Timeouts(t.Context())
			if test.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			problem, ok := errors.AsType[*api.Problem](err)
			if !ok || problem.Status != http.StatusUnauthorized || !strings.Contains(problem.Detail, test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
	refused := r.events.Counts()[event.AccessRefused]
	if refused < 10 || refused > 13 {
		t.Errorf("%d refusals published: want most of them, and not more than there were", refused)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	r := serveTLS(t)
	_, err := tls.Dial("tcp", r.listener.Addr().String(), &tls.Config{MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true})
	if err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
}

func TestWhoMadeARevision(t *testing.T) {
	r := serveTLS(t)
	operator := r.client(t, r.clients.issue(t, "alice", leaf{units: []string{"shunt-operator"}}), "")
	outcome, err := operator.EditServer(t.Context(), "web", "10.0.0.11:8080", api.ServerEdit{Weight: new(uint32(3))}, api.Terms{Why: "wärmer ☀"})
	if err != nil || outcome.Revision.Who != "certificate CN=alice,OU=shunt-operator" || outcome.Revision.Why != "wärmer ☀" {
		t.Errorf("by certificate: %+v, %v", outcome.Revision, err)
	}
	outcome, err = r.client(t, "", r.tokens["operator"]).RemoveServer(t.Context(), "web", "10.0.0.11:8080", api.Terms{})
	if err != nil || outcome.Revision.Who != "token operator" {
		t.Errorf("by token: %+v, %v", outcome.Revision, err)
	}
}

// TestRoles walks over every operation of the document with every role.
func TestRoles(t *testing.T) {
	r := serveTLS(t)
	doc := parsed(t)
	caller := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer caller.CloseIdleConnections()
	ranks := map[string]int{"public": 0, "agent": 1, "viewer": 2, "operator": 3, "admin": 4}
	walked := 0
	eachOperation(t, doc, func(method, path string, op object) {
		target := strings.NewReplacer("{ref}", "nobody", "{address}", "10.0.0.1:80", "{number}", "99").Replace(path)
		needs := op["x-role"].(string)
		for name, rank := range ranks {
			ctx, cancel := context.WithCancel(t.Context())
			request, err := http.NewRequestWithContext(ctx, method, r.url+target, nil)
			if err != nil {
				t.Fatal(err)
			}
			if name != "public" {
				request.Header.Set("Authorization", "Bearer "+r.tokens[name])
			}
			answer, err := caller.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			switch {
			case rank >= ranks[needs]:
			case name == "public":
				want = "401"
			default:
				want = "403"
			}
			got := fmt.Sprint(answer.StatusCode)
			if refused := got == "401" || got == "403"; refused != (want != "") || refused && got != want {
				t.Errorf("%s %s needs %s: %s gets %s", method, path, needs, name, got)
			}
			cancel() // ends streams
			_ = answer.Body.Close()
			walked++
		}
	})
	if walked < 5*30 {
		t.Errorf("%d requests", walked)
	}
}

// TestChangedFiles: what the files say counts as soon as they change. Files that
// cannot be read let nobody in; only the daemon's own certificate stays.
// A stream ends when the token it was opened with is revoked.
func TestRevokedTokenEndsItsStream(t *testing.T) {
	r := serveTLS(t)
	r.listener.SetCheck(0)
	r.events.Publish(event.Event{Name: event.Started})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // for a stream that goes on
	defer cancel()
	seen := 0
	for message, err := range r.client(t, "", r.tokens["viewer"]).FollowEvents(ctx, api.EventQuery{After: new(uint64)}) {
		if err != nil {
			break
		}
		if message.Event != nil && message.Event.Name == string(event.Started) {
			seen++
			r.writeTokens(t, "# nobody\n")
		}
	}
	if seen != 1 || ctx.Err() != nil {
		t.Errorf("%d events, then %v: want one, and the end", seen, ctx.Err())
	}
}

func TestChangedFiles(t *testing.T) {
	r := serveTLS(t)
	r.listener.SetCheck(0)
	admin := r.client(t, "", r.tokens["admin"])
	certificate := r.client(t, r.clients.issue(t, "v", leaf{units: []string{"shunt-viewer"}}), "")
	ask := func(c *api.Client) error { _, err := c.Timeouts(t.Context()); return err }
	good, err := os.ReadFile(r.tokensFile)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(t *testing.T, c *api.Client, want string) {
		t.Helper()
		p, ok := errors.AsType[*api.Problem](ask(c))
		if !ok || p.Status != http.StatusUnauthorized || p.Detail != want {
			t.Errorf("%v, want %s", p, want)
		}
	}
	for name, spoil := range map[string]func() error{
		"no_file":         func() error { return os.Remove(r.tokensFile) },
		"one_bad_line":    func() error { return os.WriteFile(r.tokensFile, append(good, "broken line\n"...), 0o600) },
		"others_may_read": func() error { return os.Chmod(r.tokensFile, 0o644) },
	} {
		t.Run("tokens_with_"+name, func(t *testing.T) {
			if err := ask(admin); err != nil {
				t.Fatal(err)
			}
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			refused(t, admin, "tokens cannot be checked now")
			if err := ask(certificate); err != nil {
				t.Errorf("a certificate: %v", err)
			}
			_ = os.Remove(r.tokensFile)
			r.writeTokens(t, string(good))
			if err := ask(admin); err != nil {
				t.Errorf("the file is good again: %v", err)
			}
		})
	}
	t.Run("a_client_ca_that_is_gone", func(t *testing.T) {
		if err := os.Rename(r.clients.file, r.clients.file+".away"); err != nil {
			t.Fatal(err)
		}
		refused(t, certificate, "client certificates cannot be checked now")
		if err := ask(admin); err != nil {
			t.Errorf("a token: %v", err)
		}
		if err := os.Rename(r.clients.file+".away", r.clients.file); err != nil {
			t.Fatal(err)
		}
		if err := ask(certificate); err != nil {
			t.Errorf("the file is good again: %v", err)
		}
	})
	t.Run("a_revoked_token", func(t *testing.T) {
		r.writeTokens(t, r.newToken(t, "other", api.Viewer, time.Time{})+"\n")
		refused(t, admin, "the token is not known")
		if err := ask(r.client(t, "", r.tokens["other"])); err != nil {
			t.Errorf("the new token is refused: %v", err)
		}
	})
	t.Run("a_certificate", func(t *testing.T) {
		before := serial(t, r)
		r.ca.issueTo(t, r.cert, "shuntd", leaf{server: true})
		after := serial(t, r)
		if after == before {
			t.Error("the old certificate is served")
		}
		if err := os.Remove(r.cert); err != nil {
			t.Fatal(err)
		}
		if now := serial(t, r); now != after {
			t.Errorf("certificate %s is served, want the last good one, %s", now, after)
		}
	})
	t.Run("is_logged_once", func(t *testing.T) {
		before := strings.Count(r.log.String(), "the API's certificate cannot be read; the one before stays")
		serial(t, r)
		if before != 1 || strings.Count(r.log.String(), "the API's certificate cannot be read") != 1 {
			t.Errorf("log:\n%s", r.log.String())
		}
		if n := strings.Count(r.log.String(), "no token is accepted"); n != 3 {
			t.Errorf("%d lines of three bad tokens files:\n%s", n, r.log.String())
		}
	})
}

// serial returns the serial number of the certificate that is served.
func serial(t *testing.T, r *remote) string {
	t.Helper()
	c, err := tls.Dial("tcp", r.listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// buffer holds a log. Safe for concurrent use.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write adds to the text.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns the text.
func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
