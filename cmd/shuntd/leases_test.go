package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// A server that an agent registers is offered, drains and leaves; a restart offers what
// was registered before, although nobody has said it again, and drains what an operator
// ordered.
func TestServeLeases(t *testing.T) {
	cfg := testConfig(t)
	cfg.State.Services[0].Health = director.Health{Pool: "web"}
	key, configured := cfg.State.Services[0].Key, len(cfg.State.Services[0].Servers)
	plane := newPlane()
	d := startDaemon(t, cfg, plane)
	sequence := 0
	ask := func(method, path, body string) {
		t.Helper()
		caller := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", cfg.Director.Socket)
		}}}
		defer caller.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://shunt"+path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := caller.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode >= 300 {
			t.Fatalf("%s %s: %d %s %v", method, path, answer.StatusCode, text, err)
		}
	}
	send := func(method, body string) {
		t.Helper()
		sequence++
		if method == http.MethodPut {
			body = fmt.Sprintf(`{"boot":"b1","sequence":%d,"lifetime":"1m","server":{"address":"10.0.0.99","method":"nat","weight":5}%s}`, sequence, body)
		}
		ask(method, "/v1/pools/web/members/s9", body)
	}
	drain := fmt.Sprintf("/v1/services/%s/servers/10.0.0.99/drain", url.PathEscape(key.String()))
	// offered waits until the kernel has so many servers besides the configured ones,
	// each with its weight, and draining or not.
	offered := func(servers int, draining bool) {
		t.Helper()
		for {
			found, err := plane.Found(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			i, right := found.Service(key), 0
			if i >= 0 {
				for _, server := range found.Services[i].Servers {
					if server.Address.Addr().String() == "10.0.0.99" && server.Weight == 5 && server.Draining == draining {
						right++
					}
				}
			}
			if i >= 0 && right == servers && len(found.Services[i].Servers) == configured+servers {
				return
			}
			select {
			case err := <-d.done:
				t.Fatalf("serve: %v", err)
			case <-time.After(5 * time.Millisecond): // until the test's time is over
			}
		}
	}
	send(http.MethodPut, "")
	offered(1, false)
	restart := func() {
		t.Helper()
		d.cancel()
		if err := <-d.done; err != nil {
			t.Fatal(err)
		}
		plane = newPlane()
		d = startDaemon(t, cfg, plane)
	}
	restart()
	offered(1, false)
	ask(http.MethodPut, drain, "{}")
	offered(1, true)
	send(http.MethodPut, "")
	restart()
	offered(1, true)
	ask(http.MethodDelete, drain, "")
	offered(1, false)
	send(http.MethodPut, `,"draining":true`)
	offered(1, true)
	send(http.MethodDelete, "")
	offered(0, false)
}
