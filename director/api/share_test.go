package api_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// open sends a request by TLS as far as the head, on a connection of its own.
func (r *remote) open(t *testing.T, role, request string, headers ...string) *bufio.Reader {
	t.Helper()
	c, err := tls.Dial("tcp", r.listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil { // nothing will come any more
		t.Fatal(err)
	}
	headers = append(headers, "Host: shunt", "Authorization: Bearer "+r.tokens[role])
	fmt.Fprintf(c, "%s HTTP/1.1\r\n%s\r\n\r\n", request, strings.Join(headers, "\r\n"))
	return bufio.NewReader(c)
}

// slowPlan asks for a plan whose body does not come, and returns once the daemon
// has begun to read it.
func (r *remote) slowPlan(t *testing.T, role string, size int) {
	t.Helper()
	answer := r.open(t, role, "POST /v1/plan", fmt.Sprint("Content-Length: ", size), "Expect: 100-continue")
	if line, err := answer.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
}

// TestSharesOfConfigurations: who sends slowly keeps others of its kind away at
// most, and only by as much as it says it will send.
func TestSharesOfConfigurations(t *testing.T) {
	r := serveTLS(t)
	r.handler.SetTurn(20 * time.Millisecond)
	local := serveOn(t, r.handler, filepath.Join(t.TempDir(), "s"), api.ListenOptions{})
	plan := func(c *api.Client) error {
		_, err := c.Plan(t.Context(), api.Configuration{Services: []api.ServiceConfig{}})
		return err
	}
	viewer := r.client(t, "", r.tokens["viewer"])
	const small = 100
	for range 20 {
		r.slowPlan(t, "viewer", small)
	}
	if err := plan(viewer); err != nil {
		t.Errorf("beside small bodies: %v", err)
	}
	r.slowPlan(t, "viewer", api.MaxBodies/2)
	r.slowPlan(t, "viewer", api.MaxBodies/2-20*small)
	err := plan(viewer)
	if p, ok := errors.AsType[*api.Problem](err); !ok || p.Type != "urn:shunt:problem:busy" {
		t.Errorf("beside as much as there may be: %v", err)
	}
	for name, client := range map[string]*api.Client{"operator": r.client(t, "", r.tokens["operator"]), "local": local} {
		if err := plan(client); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := client.Apply(t.Context(), api.Configuration{Services: []api.ServiceConfig{}}, api.Terms{Force: true}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSharesOfStreams: viewers who have all their streams open keep no operator
// and nobody on the host from one.
func TestSharesOfStreams(t *testing.T) {
	r := serveTLS(t)
	socket := filepath.Join(t.TempDir(), "s")
	serveOn(t, r.handler, socket, api.ListenOptions{})
	ask := func(role string) int {
		answer, err := http.ReadResponse(r.open(t, role, "GET /v1/state/stream"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode
	}
	for range api.MaxStreams {
		if code := ask("viewer"); code != http.StatusOK {
			t.Fatalf("answer %d", code)
		}
	}
	if code := ask("viewer"); code != http.StatusServiceUnavailable {
		t.Errorf("one more viewer: %d", code)
	}
	for range api.MaxStreams {
		if code := ask("operator"); code != http.StatusOK {
			t.Fatalf("an operator: %d", code)
		}
	}
	if answer := raw(t, socket, "GET", "/v1/state/stream"); answer.StatusCode != http.StatusOK {
		t.Errorf("on the host: %d", answer.StatusCode)
	}
}

// TestLateProblem: a problem that comes later than an answer may be taken is
// answered all the same.
func TestLateProblem(t *testing.T) {
	h := newHandler(t, directortest.NewFake(director.State{}))
	h.SetWriteLimit(time.Second)
	h.SetReadLimits(time.Minute, 1200*time.Millisecond)
	socket := filepath.Join(t.TempDir(), "s")
	serveOn(t, h, socket, api.ListenOptions{})
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "PUT /v1/configuration HTTP/1.1\r\nHost: shunt\r\nContent-Length: 20\r\n\r\n{")
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	var p api.Problem
	if err := json.NewDecoder(answer.Body).Decode(&p); err != nil || p.Status != http.StatusRequestTimeout {
		t.Errorf("%+v, %v", p, err)
	}
}
