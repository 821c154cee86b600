package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/event"
)

// watched is a served director whose events the API shows.
type watched struct {
	director *director.Director
	fake     *directortest.Fake
	events   *event.Stream
	handler  *api.Handler
	client   *api.Client
	socket   string
}

func serveWatched(t *testing.T, capacity int) *watched {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	w := &watched{fake: directortest.NewFake(director.State{}), events: event.NewStream(quiet, capacity)}
	w.director = director.New(w.fake, &directortest.Store{}, director.Options{Log: quiet, Events: w.events})
	if err := w.director.Start(t.Context(), director.State{}, director.Request{Who: "shuntd"}); err != nil {
		t.Fatal(err)
	}
	w.fake.SetStats(seededStats())
	w.handler = api.NewHandler(w.director, api.Options{Log: quiet, Events: w.events})
	w.handler.SetHeartbeat(10 * time.Millisecond)
	w.socket = filepath.Join(t.TempDir(), "s")
	w.client = serveOn(t, w.handler, w.socket, api.ListenOptions{})
	return w
}

// revise makes a new revision.
func (w *watched) revise(t *testing.T, udp time.Duration) uint64 {
	t.Helper()
	outcome, err := w.client.EditTimeouts(t.Context(), api.TimeoutsEdit{UDP: new(api.Duration(udp))}, api.Terms{})
	if err != nil || !outcome.Changed {
		t.Fatalf("%+v, %v", outcome, err)
	}
	return outcome.Revision.Number
}

func TestEventStream(t *testing.T) {
	w := serveWatched(t, 8)
	w.events.Publish(event.Event{Name: event.Drift, Message: "one", Service: "tcp://192.0.2.10:80"})
	first := w.events.Last()
	w.events.Publish(event.Event{Name: event.Repaired, Message: "two"})
	t.Run("resumes_after_an_id", func(t *testing.T) {
		for m, err := range w.client.FollowEvents(t.Context(), api.EventQuery{After: &first}) {
			if err != nil || m.Event == nil || m.Event.Message != "two" || m.Event.ID != first+1 {
				t.Errorf("%+v, %v", m, err)
			}
			break
		}
	})
	t.Run("begins_with_what_comes_next", func(t *testing.T) {
		// The stream is open once its first heartbeat is there.
		answer := raw(t, w.socket, "GET", "/v1/events", "Accept: text/event-stream")
		lines := bufio.NewReader(answer.Body)
		if line, err := lines.ReadString('\n'); err != nil || line != ":\n" {
			t.Fatalf("%q, %v", line, err)
		}
		w.events.Publish(event.Event{Name: event.Fault, Message: "three"})
		got := readFrame(t, lines)
		if !strings.Contains(got, "event: fault\n") || !strings.Contains(got, `"message":"three"`) ||
			!strings.Contains(got, fmt.Sprintf("id: %d\n", w.events.Last())) {
			t.Errorf("frame:\n%s", got)
		}
	})
	t.Run("takes_the_last_id_of_the_header_before_the_parameter", func(t *testing.T) {
		answer := raw(t, w.socket, "GET", "/v1/events?after=0", "Accept: text/event-stream", fmt.Sprintf("Last-Event-ID: %d", first))
		if got := readFrame(t, bufio.NewReader(answer.Body)); !strings.Contains(got, `"message":"two"`) {
			t.Errorf("frame:\n%s", got)
		}
	})
	t.Run("filters_by_name_and_service", func(t *testing.T) {
		w.events.Publish(event.Event{Name: event.Drift, Message: "four", Service: "tcp://192.0.2.11:80"})
		w.events.Publish(event.Event{Name: event.Drift, Message: "five", Service: "tcp://192.0.2.10:80"})
		q := api.EventQuery{After: &first, Names: []string{"drift", "change"}, Service: "tcp://192.0.2.10:80"}
		for m, err := range w.client.FollowEvents(t.Context(), q) {
			if err != nil || m.Event == nil || m.Event.Message != "five" {
				t.Errorf("%+v, %v", m, err)
			}
			break
		}
	})
	t.Run("says_what_was_missed", func(t *testing.T) {
		for range 20 {
			w.events.Publish(event.Event{Name: event.Drift, Message: "more"})
		}
		seen := 0
		for m, err := range w.client.FollowEvents(t.Context(), api.EventQuery{After: &first}) {
			if err != nil {
				t.Fatal(err)
			}
			if seen == 0 && (m.Missed == nil || m.Missed.After != first) {
				t.Errorf("first: %+v", m)
			}
			if seen == 1 {
				if m.Event == nil || m.Event.ID <= first+1 {
					t.Errorf("second: %+v", m)
				}
				break
			}
			seen++
		}
	})
	t.Run("a_bad_id_is_refused", func(t *testing.T) {
		answer := raw(t, w.socket, "GET", "/v1/events", "Accept: text/event-stream", "Last-Event-ID: x")
		if answer.StatusCode != http.StatusBadRequest {
			t.Errorf("status %d", answer.StatusCode)
		}
	})
}

func TestStateStream(t *testing.T) {
	w := serveWatched(t, 0)
	second := w.revise(t, time.Minute)
	t.Run("begins_with_the_newest_and_goes_on_with_each", func(t *testing.T) {
		step := 0
		for m, err := range w.client.FollowState(t.Context(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			if step == 0 {
				if m.Configuration == nil || m.Configuration.Number != second || *m.Configuration.Configuration.Timeouts.UDP != api.Duration(time.Minute) {
					t.Fatalf("%+v", m)
				}
				w.revise(t, 2*time.Minute)
				step++
				continue
			}
			if m.Change == nil || m.Change.Revision.Number != second+1 {
				t.Fatalf("%+v", m)
			}
			want := []api.Difference{{Field: "udp", Old: "1m0s", New: "2m0s"}}
			if diff := cmp.Diff(want, m.Change.Steps[0].Changes); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			break
		}
	})
	t.Run("resumes_with_each_revision_after", func(t *testing.T) {
		third := w.revise(t, 3*time.Minute)
		var got []uint64
		for m, err := range w.client.FollowState(t.Context(), 1) {
			if err != nil || m.Change == nil {
				t.Fatalf("%+v, %v", m, err)
			}
			if got = append(got, m.Change.Revision.Number); len(got) == int(third)-1 {
				break
			}
		}
		if diff := cmp.Diff([]uint64{2, 3, 4}, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	t.Run("starts_over_where_the_client_knows_of_more", func(t *testing.T) {
		step := 0
		for m, err := range w.client.FollowState(t.Context(), 99) {
			if err != nil {
				t.Fatal(err)
			}
			if step == 0 && (m.Missed == nil || m.Missed.After != 99) {
				t.Errorf("first: %+v", m)
			}
			if step == 1 {
				if m.Configuration == nil || m.Configuration.Number != 4 {
					t.Errorf("second: %+v", m)
				}
				break
			}
			step++
		}
	})
}

func TestCountStream(t *testing.T) {
	w := serveWatched(t, 0)
	step, id := 0, uint64(0)
	for m, err := range w.client.FollowCounts(t.Context(), "100ms", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if step == 0 {
			want := api.ConnectionCounts{Active: 2, Inactive: 5, Services: []api.ServiceConnections{{Listen: webKey.String(), Active: 2, Inactive: 5}}}
			if diff := cmp.Diff(want, m.Counts); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			stats := seededStats()
			stats.Services[0].Servers[0].Active = 9
			w.fake.SetStats(stats)
			id = m.ID
			step++
			continue
		}
		if m.Counts.Active != 9 || m.ID != id+1 {
			t.Errorf("%+v", m)
		}
		id = m.ID
		break
	}
	// Who knows the newest numbers hears of the next ones.
	answer := raw(t, w.socket, "GET", "/v1/connections/count/stream?interval=100ms", fmt.Sprintf("Last-Event-ID: %d", id))
	lines := bufio.NewReader(answer.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != ":\n" {
		t.Fatalf("%q, %v", line, err)
	}
	w.fake.SetStats(director.Stats{})
	if got := readFrame(t, lines); !strings.Contains(got, fmt.Sprintf("id: %d\n", id+1)) || !strings.Contains(got, `"active":0`) {
		t.Errorf("frame:\n%s", got)
	}
}

func TestStreamsAreLimited(t *testing.T) {
	w := serveWatched(t, 0)
	for range api.MaxStreams {
		answer := raw(t, w.socket, "GET", "/v1/state/stream")
		readFrame(t, bufio.NewReader(answer.Body)) // it is open
	}
	for _, err := range w.client.FollowState(t.Context(), 0) {
		problem, ok := errors.AsType[*api.Problem](err)
		if !ok || problem.Status != http.StatusServiceUnavailable || !strings.Contains(problem.Detail, "64 streams") {
			t.Errorf("error %v", err)
		}
	}
	if _, err := w.client.Status(t.Context()); err != nil {
		t.Errorf("a request beside the streams: %v", err)
	}
}

// TestSlowReader: a client that does not read loses its stream, and nobody waits
// for it.
func TestSlowReader(t *testing.T) {
	w := serveWatched(t, 0)
	w.handler.SetWriteLimit(50 * time.Millisecond)
	slow := raw(t, w.socket, "GET", "/v1/events", "Accept: text/event-stream")
	message := strings.Repeat("x", 64<<10)
	for range 64 { // far more than the socket's buffers hold
		w.events.Publish(event.Event{Name: event.Drift, Message: message})
	}
	after := w.events.Last() - 1
	for m, err := range w.client.FollowEvents(t.Context(), api.EventQuery{After: &after}) {
		if err != nil || m.Event == nil || m.Event.ID != after+1 {
			t.Errorf("a reader beside it: %v", err)
		}
		break
	}
	for w.handler.OpenStreams() > 0 { // until the daemon gives it up
		time.Sleep(time.Millisecond)
	}
	if n, err := io.Copy(io.Discard, slow.Body); err == nil && n >= 64*64<<10 {
		t.Errorf("%d bytes were kept for it", n)
	}
}

func TestStreamsEndWithTheDaemon(t *testing.T) {
	w := serveWatched(t, 0)
	l, err := api.Listen(filepath.Join(t.TempDir(), "s2"), api.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // one value, sent once
	go func() { done <- w.handler.Run(ctx, l) }()
	answer := raw(t, l.Addr().String(), "GET", "/v1/state/stream")
	readFrame(t, bufio.NewReader(answer.Body))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
}

// raw sends a request on a connection of its own.
func raw(t *testing.T, socket, method, target string, headers ...string) *http.Response {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: shunt\r\n", method, target)
	for _, header := range headers {
		fmt.Fprintf(c, "%s\r\n", header)
	}
	fmt.Fprint(c, "\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// readFrame returns the next event's lines; heartbeats are passed over.
func readFrame(t *testing.T, lines *bufio.Reader) string {
	t.Helper()
	frame := ""
	for {
		line, err := lines.ReadString('\n')
		switch {
		case err != nil:
			t.Fatalf("%q: %v", frame, err)
		case strings.HasPrefix(line, ":"):
		case line != "\n":
			frame += line
		case frame != "":
			return frame
		}
	}
}
