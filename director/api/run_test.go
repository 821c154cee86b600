package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// TestSlowSenders: who does not send is not waited for.
func TestSlowSenders(t *testing.T) {
	h := newHandler(t, directortest.NewFake(director.State{}))
	h.SetReadLimits(20*time.Millisecond, 20*time.Millisecond)
	socket := filepath.Join(t.TempDir(), "s")
	client := serveOn(t, h, socket, api.ListenOptions{})
	dial := func(text string) net.Conn {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		fmt.Fprint(c, text)
		return c
	}
	t.Run("of_headers", func(t *testing.T) {
		if _, err := io.ReadAll(dial("GET /v1/status HTTP/1.1\r\nHost: shunt\r\nX:")); err != nil {
			t.Error(err)
		}
	})
	t.Run("of_bodies", func(t *testing.T) {
		answer, err := http.ReadResponse(bufio.NewReader(dial("PATCH /v1/timeouts HTTP/1.1\r\nHost: shunt\r\nContent-Length: 20\r\n\r\n{")), nil)
		if err != nil {
			t.Fatal(err)
		}
		var p api.Problem
		if err := json.NewDecoder(answer.Body).Decode(&p); err != nil || answer.StatusCode != http.StatusRequestTimeout || p.Type != "urn:shunt:problem:timeout" {
			t.Errorf("%d %+v, %v", answer.StatusCode, p, err)
		}
	})
	t.Run("of_a_body_that_nobody_reads", func(t *testing.T) {
		text, err := io.ReadAll(dial("GET /v1/timeouts HTTP/1.1\r\nHost: shunt\r\nContent-Length: 20\r\n\r\n{"))
		if err != nil || len(text) == 0 {
			t.Errorf("%q, %v", text, err)
		}
	})
	t.Run("a_stream_outlives_the_limits", func(t *testing.T) {
		h.SetHeartbeat(30 * time.Millisecond)
		answer := raw(t, socket, "GET", "/v1/state/stream")
		lines := bufio.NewReader(answer.Body)
		for beats := 0; beats < 5; {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("after %d heartbeats: %v", beats, err)
			}
			if line == ":\n" {
				beats++
			}
		}
	})
	if _, err := client.Timeouts(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOtherSites: a page of another site cannot use a browser's certificate.
func TestOtherSites(t *testing.T) {
	h := newHandler(t, directortest.NewFake(director.State{}))
	for header, want := range map[string]int{"Sec-Fetch-Site: cross-site": 403, "Origin: https://evil.example": 403, "Sec-Fetch-Site: same-origin": 200} {
		if w := send(h, "PATCH", "/v1/timeouts", `{}`, header, "Content-Type: application/x-www-form-urlencoded"); w.Code != want {
			t.Errorf("%s: %d %s", header, w.Code, w.Body)
		}
	}
}

// BenchmarkEdit is one change by HTTP among 1000 services with 10 servers each.
func BenchmarkEdit(b *testing.B) {
	fake := directortest.NewFake(director.State{})
	d := director.New(fake, &directortest.Store{}, director.Options{Log: slog.New(slog.DiscardHandler)})
	var state director.State
	for i := range 1000 {
		s := director.Service{Key: director.ServiceKey{
			Protocol: conntrack.TCP, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(2 + i/250), byte(i % 250)}), 80),
		}}
		for j := range 10 {
			s.Servers = append(s.Servers, realserver.Server{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(j), byte(i / 250), byte(i % 250)}), 80), Method: realserver.DR, Weight: 1})
		}
		state.Services = append(state.Services, s)
	}
	if err := d.Start(b.Context(), state, director.Request{}); err != nil {
		b.Fatal(err)
	}
	h := api.NewHandler(d, api.Options{Log: slog.New(slog.DiscardHandler)})
	for i := 0; b.Loop(); i++ {
		w := send(h, "PATCH", "/v1/services/tcp:%2F%2F192.0.2.7:80/servers/10.0.0.7:80", fmt.Sprintf(`{"weight":%d}`, 2+i%2))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
