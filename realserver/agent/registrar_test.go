package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// told is a director that notes what it is told, and refuses the first messages.
type told struct {
	mu     sync.Mutex
	refuse int
	// superseded is whether another run of the agent was heard.
	superseded bool
	left       uint64 // connections of a server that drains
	leftOut    []leftOut
	messages   []message
	deletes    []string
}

func (d *told) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer secret" || !strings.HasPrefix(r.URL.Path, "/v1/pools/web/members/s1") {
		http.Error(w, `{"detail":"not you"}`, http.StatusForbidden)
		return
	}
	if r.Method == http.MethodDelete {
		d.deletes = append(d.deletes, r.URL.RawQuery)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	var m message
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	d.messages = append(d.messages, m)
	if d.refuse > 0 {
		d.refuse--
		http.Error(w, `{"detail":"shuntd is starting"}`, http.StatusServiceUnavailable)
		return
	}
	if d.superseded {
		http.Error(w, `{"code":"superseded","detail":"the run b1 is over","hint":"do two hosts run it?"}`, http.StatusConflict)
		return
	}
	answer := leased{LeftOut: d.leftOut}
	if m.Draining {
		left := d.left
		answer.Connections = &left
		d.left -= min(d.left, 1)
	}
	_ = json.NewEncoder(w).Encode(struct {
		Connections *uint64   `json:"connections,omitempty"`
		LeftOut     []leftOut `json:"left-out,omitempty"`
	}{answer.Connections, answer.LeftOut})
}

// pipe has requests answered at once by a handler, so that time in a test stands still
// meanwhile.
type pipe struct{ handler http.Handler }

func (p pipe) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

// registrar returns one whose directors are the handlers.
func registrar(t *testing.T, directors ...http.Handler) *Registrar {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := Settings{
		Agent: "s1", TokenFile: token, Lease: 30 * time.Second, Drain: time.Minute,
		Members: []MemberSettings{{Pool: "web", Address: "10.0.0.11", Method: "dr", Weight: 100}},
	}
	for range directors {
		s.Directors = append(s.Directors, "https://director")
	}
	r, err := NewRegistrar(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i, handler := range directors {
		r.directors[i].client.Transport = pipe{handler}
	}
	return r
}

// A server is registered although a director is away at first, renewed before half of
// its lease is over, drained until no connection is left, and taken away.
func TestRegistrar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, late := &told{left: 3}, &told{refuse: 4}
		r := registrar(t, good, late)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for name, d := range map[string]*told{"good": good, "late": late} {
			d.mu.Lock()
			if n := len(d.messages); n < 9 || n > 20 || d.refuse > 0 {
				t.Errorf("%s: %d messages in two minutes", name, n)
			}
			d.mu.Unlock()
		}
		began := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 2*time.Second || took > 4*time.Second {
			t.Errorf("3 connections that end one a second are through after %s", took)
		}
		last := uint64(0)
		for i, m := range good.messages {
			draining := i >= len(good.messages)-4
			if m.Sequence <= last || m.Boot != r.boot || m.Lifetime != "30s" || m.Draining != draining {
				t.Errorf("message %d of %d: %+v after %d", i, len(good.messages), m, last)
			}
			last = m.Sequence
		}
		if diff := cmp.Diff(messageServer{Address: "10.0.0.11", Method: "dr", Weight: 100}, good.messages[0].Server); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if len(good.deletes) != 1 || len(late.deletes) != 1 || !strings.HasPrefix(good.deletes[0], "boot="+r.boot+"&sequence=") {
			t.Errorf("left by %q and %q", good.deletes, late.deletes)
		}
	})
}

// Connections that do not end keep it no longer than the drain may last.
func TestRegistrarGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := &told{left: 1 << 40}
		r := registrar(t, busy)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Minute || len(busy.deletes) != 1 {
			t.Errorf("after %s: %q", took, busy.deletes)
		}
	})
}

// An agent that a director has never let in has nothing to drain there, and ends at once.
func TestRegistrarIsDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		r := registrar(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked++
			http.Error(w, `{"code":"forbidden","detail":"token s1 may not speak for agent s2"}`, http.StatusForbidden)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		before, began := asked, time.Now()
		cancel()
		if err := <-done; err != nil || before == 0 || asked != before || !time.Now().Equal(began) {
			t.Errorf("after %s: %v, asked %d times, then %d", time.Since(began), err, before, asked-before)
		}
	})
}

// A run that another has followed says so once, keeps quiet, and has nothing to leave.
func TestRegistrarIsSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &told{}
		var log strings.Builder
		r := registrar(t, d)
		r.log = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Minute)
		d.mu.Lock()
		d.superseded = true
		d.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait() // and orders what follows after what the run has done
		heard := len(d.messages)
		time.Sleep(time.Hour)
		began := time.Now()
		cancel()
		if err := <-done; err != nil || len(d.messages) != heard || len(d.deletes) > 0 || time.Since(began) > 0 {
			t.Errorf("%v; %d messages after %d, %d leaves, %s to the end", err, len(d.messages), heard, len(d.deletes), time.Since(began))
		}
		want := "another host, or another process, has registered as this agent"
		if text := log.String(); strings.Count(text, want) != 1 || !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "the run b1 is over: do two hosts run it?") {
			t.Errorf("log %s", text)
		}
	})
}

// What keeps a server out is said once, and what keeps it out then: who mends the first
// is to hear of the second.
func TestRegistrarSaysWhatIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		var log strings.Builder
		r := registrar(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked++; asked <= 10 {
				http.Error(w, `{"code":"not-ready","detail":"shuntd is starting"}`, http.StatusServiceUnavailable)
				return
			}
			http.Error(w, `{"code":"not-its-own","detail":"not of this pool"}`, http.StatusForbidden)
		}))
		r.log = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"shuntd is starting", "not of this pool"} {
			if n := strings.Count(log.String(), text); n != 1 {
				t.Errorf("%q is said %d times:\n%s", text, n, &log)
			}
		}
	})
}

// The files of a certificate that cannot be used are named.
func TestDirectorOfUnusableCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(&told{})
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()
	file := filepath.Join(t.TempDir(), "agent.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := newDirector(server.URL, &Settings{Agent: "s1", CA: file, Certificate: file})
	if err != nil {
		t.Fatal(err)
	}
	defer d.client.CloseIdleConnections()
	if _, err := d.register(t.Context(), "web", message{}); err == nil || !strings.Contains(err.Error(), "read the certificate "+file+" with the key of "+file) {
		t.Errorf("without a key: %v", err)
	}
}

// A registration without effect in a service is told once, and again when that changes.
func TestRegistrarIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &told{leftOut: []leftOut{{"tcp://192.0.2.10:80", "it is configured there"}}}
		var log strings.Builder
		r := registrar(t, d)
		r.log = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Hour)
		d.mu.Lock()
		d.leftOut = nil
		d.mu.Unlock()
		time.Sleep(time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for text, n := range map[string]int{
			"msg=registered": 1,
			`level=WARN msg="a service does not take the server: the registration has no effect there" director=https://director pool=web server=10.0.0.11 service=tcp://192.0.2.10:80 why="it is configured there"`: 1,
			"all services of the pool take the server now": 1,
		} {
			if got := strings.Count(log.String(), text); got != n {
				t.Errorf("%q is said %d times, want %d:\n%s", text, got, n, &log)
			}
		}
	})
}

// Over TLS the director is known by its CA, and what it refuses is said in its words.
func TestDirectorOverTLS(t *testing.T) {
	server := httptest.NewTLSServer(&told{})
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(s Settings) error {
		d, err := newDirector(server.URL, &s)
		if err != nil {
			t.Fatal(err)
		}
		defer d.client.CloseIdleConnections()
		_, err = d.register(t.Context(), "web", message{})
		return err
	}
	if err := ask(Settings{Agent: "s1", TokenFile: token, CA: ca}); err == nil || !strings.HasSuffix(err.Error(), ": not you") {
		t.Errorf("a wrong token: %v", err)
	}
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask(Settings{Agent: "s1", TokenFile: token, CA: ca}); err != nil {
		t.Errorf("%v", err)
	}
	if err := ask(Settings{Agent: "s1", TokenFile: token}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown CA: %v", err)
	}
}

// TestAskDirectors: one that knows the agent is fine, and the others are named.
func TestAskDirectors(t *testing.T) {
	asked := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.Method != http.MethodGet || r.URL.Path != "/v1/pools/web" || r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, `{"detail":"not you"}`, http.StatusForbidden)
		}
	}))
	defer server.Close()
	folder := t.TempDir()
	s := Settings{Directors: []string{server.URL}, CA: filepath.Join(folder, "ca"), TokenFile: filepath.Join(folder, "token")}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := errors.Join(os.WriteFile(s.CA, text, 0o600), os.WriteFile(s.TokenFile, []byte("secret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s.Members = []MemberSettings{{Pool: "web"}, {Pool: "web"}}
	if wrong := AskDirectors(t.Context(), s); len(wrong) > 0 || asked != 1 {
		t.Errorf("asked %d times: %v", asked, wrong)
	}
	s.Members = append(s.Members, MemberSettings{Pool: "mail"})
	if wrong := AskDirectors(t.Context(), s); len(wrong) != 1 || wrong[server.URL] == nil || !strings.HasSuffix(wrong[server.URL].Error(), ": not you") {
		t.Errorf("a pool of others: %v", wrong)
	}
	s.CA = filepath.Join(folder, "none")
	if wrong := AskDirectors(t.Context(), s); wrong[server.URL] == nil || !strings.Contains(wrong[server.URL].Error(), "read the CA") {
		t.Errorf("a CA that is missing: %v", wrong)
	}
}

func TestReadSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	read := func(text string) (Settings, error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return ReadSettings(file)
	}
	const good = "agent: s1\ndirectors: [\"https://10.0.0.1:9443\"]\ntoken-file: /t\nlease: 20s\nmembers: [{pool: web, address: 10.0.0.11, method: dr}]\n"
	got, err := read(good)
	want := Settings{
		Agent: "s1", Directors: []string{"https://10.0.0.1:9443"}, TokenFile: "/t", Lease: 20 * time.Second, Drain: 5 * time.Minute,
		Members: []MemberSettings{{Pool: "web", Address: "10.0.0.11", Method: "dr", Weight: 1}},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	got, err = read(good + "load-command: [/usr/bin/load, -x]\nload-user: www\nhost: {prepare: true, vips: [192.0.2.1, \"2001:db8::/64\"], interfaces: [eth0], directors: [10.0.0.1], clients: [10.1.0.0/16], route: true, gue-ports: [5555]}\n")
	want.LoadCommand, want.LoadTimeout, want.LoadUser = []string{"/usr/bin/load", "-x"}, 5*time.Second, "www"
	want.Host = HostSettings{
		Prepare: true, VIPs: prefixes("192.0.2.1/32", "2001:db8::/64"), Interfaces: []string{"eth0"},
		Directors: prefixes("10.0.0.1/32"), Clients: prefixes("10.1.0.0/16"), Route: true, GUEPorts: []uint16{5555},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	for change, want := range map[[2]string]string{
		{"agent: s1", "agent: ../s"}: `agent "../s": want`,
		{"https://", "http://"}:      `directors[0]: "http://10.0.0.1:9443" is not a URL`,
		{"token-file: /t\n", ""}:     "token-file or certificate: want one",
		{"20s", "1s"}:                "lease: 1s is out of range: want 5s to 10m0s",
		{"20s", "soon"}:              `lease: "soon" is not a duration`,
		{"10.0.0.11", "ten"}:         `members[0]: address "ten"`,
		{"dr}", "dr}, {pool: web, address: 10.0.0.12, method: dr}"}:  "members[1]: members[0] is in pool web already",
		{"lease: 20s", "key: /k"}:                                    "key: there is no certificate",
		{"method: dr", "method: masq"}:                               "members[0]: unknown forwarding method",
		{"pool: web", "pool: \"\""}:                                  `members[0]: pool ""`,
		{"lease: 20s", "leese: 20s"}:                                 "leese",
		{"lease: 20s", "load-command: [up]"}:                         `load-command: "up" is not the whole path`,
		{"lease: 20s", "load-user: nobody"}:                          "load-timeout and load-user are of a load-command",
		{"lease: 20s", "load-command: [/bin/up]\nload-timeout: 1ms"}: "load-timeout: 1ms is out of range: want 100ms to 1m0s",
		{"lease: 20s", "host: {vips: [192.0.2]}"}:                    `host.vips[0]: "192.0.2" is no address`,
		{"lease: 20s", "host: {directors: [10.0.0.1, 10.0.0.1/8]}"}:  "host.directors[1]: 10.0.0.1/8 has bits behind its length: want 10.0.0.0/8",
		{"lease: 20s", "host: {clients: [all]}"}:                     `host.clients[0]: "all" is no address`,
		{"lease: 20s", "host: {gue-ports: [70000]}"}:                 "70000",
		{"members: [{pool", "members: []\nx: [{"}:                    "agent.yaml",
	} {
		if _, err := read(strings.Replace(good, change[0], change[1], 1)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v, want %s", change, err, want)
		}
	}
}

func TestMeasure(t *testing.T) {
	l := newMeter().measure()
	if l == nil || l.CPU == nil || l.Memory == nil || l.Value < *l.CPU || l.Value < *l.Memory || l.Value > 1 || l.Connections == nil || l.RunQueue == nil {
		t.Errorf("%+v", l)
	}
}
