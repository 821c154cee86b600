package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The media type of Server-Sent Events, and the names of those that are not
// named after an event of the event stream.
const (
	eventStream       = "text/event-stream"
	countsName        = "counts"
	configurationName = "configuration"
	revisionName      = "revision"
	missedName        = "missed"
)

// sender writes Server-Sent Events to one client.
type sender struct {
	w     http.ResponseWriter
	flush *http.ResponseController
	limit time.Duration // for the client to take an event
	still func() error  // why the client may see no more; nil: it may for ever
}

// stillKey is the context's key of a sender's still.
type stillKey struct{}

// stream opens a stream and runs it; send is called until it returns an error,
// which only says that it is over. The answer's status has gone out by then.
func (h *Handler) stream(w http.ResponseWriter, r *http.Request, send func(context.Context, *sender) error) {
	streams := h.shares.of(callerOf(r.Context())).streams
	select {
	case streams <- struct{}{}:
		defer func() { <-streams }()
	default:
		writeProblem(w, newProblem(http.StatusServiceUnavailable, "busy",
			fmt.Sprintf("%d streams are open", cap(streams)), "end one, or try again later"))
		return
	}
	w.Header().Set("Content-Type", eventStream)
	w.Header().Set("Cache-Control", "no-store")
	// A stream takes its connection with it: what is left of it is not known.
	w.Header().Set("Connection", "close")
	if r.Method == http.MethodHead {
		return
	}
	s := &sender{w: w, flush: http.NewResponseController(w), limit: h.limits.write}
	s.still, _ = r.Context().Value(stillKey{}).(func() error)
	if err := s.heartbeat(); err != nil {
		return
	}
	_ = send(r.Context(), s)
}

// event sends one event; id 0 leaves the client's last id as it is.
func (s *sender) event(id uint64, name string, data any) error {
	text, err := json.Marshal(data) // has no line breaks
	if err != nil {
		return err
	}
	var frame bytes.Buffer
	if id != 0 {
		fmt.Fprintf(&frame, "id: %d\n", id)
	}
	fmt.Fprintf(&frame, "event: %s\ndata: %s\n\n", name, text)
	return s.write(frame.Bytes())
}

// heartbeat sends a comment, unless the client's credentials count no more.
func (s *sender) heartbeat() error {
	if s.still != nil {
		if err := s.still(); err != nil {
			return err
		}
	}
	return s.write([]byte(":\n\n"))
}

// write gives a client that reads too slowly up: it can resume.
func (s *sender) write(text []byte) error {
	setWriteDeadline(s.w, s.limit)
	if _, err := s.w.Write(text); err != nil {
		return err
	}
	return s.flush.Flush()
}

// lastEventID reads the id that a client resumes from; ok is whether it does.
func lastEventID(text *string) (id uint64, ok bool, err error) {
	if text == nil || *text == "" {
		return 0, false, nil
	}
	if id, err = strconv.ParseUint(*text, 10, 64); err != nil {
		return 0, false, newProblem(http.StatusBadRequest, "bad-request", fmt.Sprintf("Last-Event-ID: %.40q is not a number", *text), "")
	}
	return id, true, nil
}

// wantsStream reports whether the client prefers events to a page.
func wantsStream(r *http.Request) bool { return wants(r, eventStream, "application/json") }

// wants reports whether the client names the media type, and before the other one.
func wants(r *http.Request, media, other string) bool {
	for _, accept := range r.Header.Values("Accept") {
		for _, one := range strings.Split(accept, ",") {
			name, _, _ := strings.Cut(one, ";")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case media:
				return true
			case other:
				return false
			}
		}
	}
	return false
}
