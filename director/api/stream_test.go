package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
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
		m := pull(t, w.client.FollowEvents(patience(t), api.EventQuery{After: &first}))()
		if m.Event == nil || m.Event.Message != "two" || m.Event.ID != first+1 {
			t.Errorf("%+v", m)
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
		if m := pull(t, w.client.FollowEvents(patience(t), q))(); m.Event == nil || m.Event.Message != "five" {
			t.Errorf("%+v", m)
		}
	})
	t.Run("says_what_was_missed", func(t *testing.T) {
		for range 20 {
			w.events.Publish(event.Event{Name: event.Drift, Message: "more"})
		}
		next := pull(t, w.client.FollowEvents(patience(t), api.EventQuery{After: &first}))
		if m := next(); m.Missed == nil || m.Missed.After != first {
			t.Errorf("first: %+v", m)
		}
		if m := next(); m.Event == nil || m.Event.ID <= first+1 {
			t.Errorf("second: %+v", m)
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
		next := pull(t, w.client.FollowState(patience(t), 0))
		m := next()
		if m.Configuration == nil || m.Configuration.Number != second || *m.Configuration.Configuration.Timeouts.UDP != api.Duration(time.Minute) {
			t.Fatalf("%+v", m)
		}
		w.revise(t, 2*time.Minute)
		if m = next(); m.Change == nil || m.Change.Revision.Number != second+1 {
			t.Fatalf("%+v", m)
		}
		want := []api.Difference{{Field: "udp", Old: "1m0s", New: "2m0s"}}
		if diff := cmp.Diff(want, m.Change.Steps[0].Changes); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	t.Run("resumes_with_each_revision_after", func(t *testing.T) {
		w.revise(t, 3*time.Minute)
		next := pull(t, w.client.FollowState(patience(t), 1))
		for _, want := range []uint64{2, 3, 4} {
			if m := next(); m.Change == nil || m.Change.Revision.Number != want {
				t.Fatalf("%+v, want revision %d", m, want)
			}
		}
	})
	t.Run("starts_over_where_the_client_knows_of_more", func(t *testing.T) {
		next := pull(t, w.client.FollowState(patience(t), 99))
		if m := next(); m.Missed == nil || m.Missed.After != 99 {
			t.Errorf("first: %+v", m)
		}
		if m := next(); m.Configuration == nil || m.Configuration.Number != 4 {
			t.Errorf("second: %+v", m)
		}
	})
}

func TestCountStream(t *testing.T) {
	w := serveWatched(t, 0)
	const target = "/v1/connections/count/stream?interval=100ms"
	lines := bufio.NewReader(raw(t, w.socket, "GET", target).Body)
	id, counts := readCounts(t, lines)
	want := api.ConnectionCounts{Active: 2, Inactive: 5, Services: []api.ServiceConnections{{Listen: webKey.String(), Active: 2, Inactive: 5}}}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	stats := seededStats()
	stats.Services[0].Servers[0].Active = 9
	w.fake.SetStats(stats)
	again, counts := readCounts(t, lines)
	if counts.Active != 9 || again != id+1 {
		t.Errorf("%d: %+v, want id %d", again, counts, id+1)
	}
	// Who knows the newest numbers hears of the next ones.
	answer := raw(t, w.socket, "GET", target, fmt.Sprintf("Last-Event-ID: %d", again))
	lines = bufio.NewReader(answer.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != ":\n" {
		t.Fatalf("%q, %v", line, err)
	}
	w.fake.SetStats(director.Stats{})
	if id, counts := readCounts(t, lines); id != again+1 || counts.Active != 0 {
		t.Errorf("%d: %+v, want id %d", id, counts, again+1)
	}
}

// stuck is a data plane whose counters take until released.
type stuck struct {
	*directortest.Fake
	asked    chan struct{} // a value for each reading that begins
	released chan struct{} // closed: readings end
}

func (s stuck) Stats(ctx context.Context) (director.Stats, error) {
	s.asked <- struct{}{}
	<-s.released
	return s.Fake.Stats(ctx)
}

// TestCountingIsWaitedForWithAnEnd: a caller who gives up does not wait until
// the data plane has answered another one.
func TestCountingIsWaitedForWithAnEnd(t *testing.T) {
	dp := stuck{directortest.NewFake(director.State{}), make(chan struct{}), make(chan struct{})}
	h := newHandler(t, dp)
	stream := func(ctx context.Context) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, api.AsAdmin(httptest.NewRequest("HEAD", "/v1/connections/count/stream", nil).WithContext(ctx)))
		return w
	}
	first := make(chan int, 1) // one value, sent once
	go func() { first <- stream(t.Context()).Code }()
	<-dp.asked
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if w := stream(gone); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "unfinished") {
		t.Errorf("a caller who has gone: %d %s", w.Code, w.Body)
	}
	close(dp.released)
	if code := <-first; code != http.StatusOK {
		t.Errorf("the first caller: %d", code)
	}
}

func TestStreamsAreLimited(t *testing.T) {
	w := serveWatched(t, 0)
	for range api.MaxStreams {
		answer := raw(t, w.socket, "GET", "/v1/state/stream")
		readFrame(t, bufio.NewReader(answer.Body)) // it is open
	}
	answer := raw(t, w.socket, "GET", "/v1/state/stream")
	var problem api.Problem
	if err := json.NewDecoder(answer.Body).Decode(&problem); err != nil || problem.Status != http.StatusServiceUnavailable || !strings.Contains(problem.Detail, "64 streams") {
		t.Errorf("one more: %+v, %v", problem, err)
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
	ctx, cancel := context.WithCancel(patience(t))
	next, stop := iter.Pull2(w.client.FollowEvents(ctx, api.EventQuery{After: &after}))
	if m, err, ok := next(); !ok || err != nil || m.Event == nil || m.Event.ID != after+1 {
		t.Errorf("a reader beside it: %+v, %v", m, err)
	}
	cancel()
	stop()
	if err := w.handler.AwaitNoStreams(patience(t)); err != nil { // until the daemon gives it up
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, slow.Body); err == nil || n >= 64*64<<10 {
		t.Errorf("%d bytes were kept for it, and its end was %v", n, err)
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

// interrupted is a client's end of a stream: while the first event is on its way,
// something happens.
type interrupted struct {
	*httptest.ResponseRecorder
	happen func()
}

func (w interrupted) Write(text []byte) (int, error) {
	if strings.Contains(string(text), "data: ") {
		w.happen()
	}
	return w.ResponseRecorder.Write(text)
}

// TestEventStreamSendsItsEnd: an end that comes while the client is being told of
// something else is not lost.
func TestEventStreamSendsItsEnd(t *testing.T) {
	w := serveWatched(t, 0) // one event is there
	ctx, cancel := context.WithCancel(t.Context())
	client := interrupted{httptest.NewRecorder(), sync.OnceFunc(func() {
		w.events.Publish(event.Event{Name: event.Stopping})
		cancel()
	})}
	r := httptest.NewRequest("GET", "/v1/events?after=0", nil).WithContext(ctx)
	r.Header.Set("Accept", "text/event-stream")
	w.handler.ServeHTTP(client, api.AsAdmin(r))
	var got []string
	for line := range strings.Lines(client.Body.String()) {
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			got = append(got, strings.TrimSpace(name))
		}
	}
	if diff := cmp.Diff([]string{"change", "stopping"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// patience is a context that ends when nothing will come any more.
func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// pull returns a function that returns the stream's next item, or fails.
func pull[T any](t *testing.T, items iter.Seq2[T, error]) func() T {
	next, stop := iter.Pull2(items)
	t.Cleanup(stop)
	return func() T {
		t.Helper()
		item, err, ok := next()
		if !ok || err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		return item
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
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil { // nothing will come any more
		t.Fatal(err)
	}
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

// readCounts reads the next event of the stream of counts.
func readCounts(t *testing.T, lines *bufio.Reader) (id uint64, counts api.ConnectionCounts) {
	t.Helper()
	text := readFrame(t, lines)
	if _, err := fmt.Sscanf(text, "id: %d\nevent: counts\n", &id); err != nil {
		t.Fatalf("frame %q: %v", text, err)
	}
	_, data, _ := strings.Cut(text, "\ndata: ")
	if err := json.Unmarshal([]byte(data), &counts); err != nil {
		t.Fatalf("frame %q: %v", text, err)
	}
	return id, counts
}
