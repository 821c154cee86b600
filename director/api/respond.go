package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// recorder remembers what was answered, for the log. The client's time to take
// the answer begins with the answer: what was asked for may have taken longer.
type recorder struct {
	http.ResponseWriter
	limit  time.Duration
	status int // 0: nothing yet
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	r.status = status
	setWriteDeadline(r.ResponseWriter, r.limit)
	r.ResponseWriter.WriteHeader(status)
}

// Write writes a part of the answer.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// endpoints implements the generated ServerInterface.
type endpoints struct{ *Handler }

var _ ServerInterface = endpoints{}

// read answers with what find returns, as JSON.
func (e endpoints) read(w http.ResponseWriter, find func() (any, error)) {
	v, err := find()
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	writeJSON(w, http.StatusOK, v)
}

// readAt is read for what is of a revision, which the answer's ETag has: a change
// made after what was read gives it as If-Match. What is live is in the answer
// too, so that nobody may keep it.
func (e endpoints) readAt(w http.ResponseWriter, find func() (v any, revision uint64, err error)) {
	e.read(w, func() (any, error) {
		v, revision, err := find()
		if err != nil {
			return nil, err
		}
		w.Header().Set("ETag", etag(revision))
		w.Header().Set("Cache-Control", "no-store")
		return v, nil
	})
}

// change runs a change on the caller's terms and answers with its outcome. A
// location is that of what was made; empty: nothing was.
func (e endpoints) change(w http.ResponseWriter, r *http.Request, t terms, run func(context.Context, director.Request) (director.Outcome, string, error)) {
	e.perform(w, r, t, func(ctx context.Context, by director.Request) (performed, error) {
		outcome, location, err := run(ctx, by)
		return performed{outcomeModel(ctx, outcome), outcome.Revision.Number, location}, err
	})
}

// performed is what is answered to a change.
type performed struct {
	answer   any
	revision uint64 // the newest
	location string // of what was made; empty: nothing was
}

// perform is change for those whose answer is not an outcome alone.
func (e endpoints) perform(w http.ResponseWriter, r *http.Request, t terms, run func(context.Context, director.Request) (performed, error)) {
	done, err := func() (performed, error) {
		by, err := t.request(callerOf(r.Context()))
		if err != nil {
			return performed{}, err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
		defer cancel()
		return run(ctx, by)
	}()
	if err != nil {
		writeProblem(w, e.changeProblem(err))
		return
	}
	status := http.StatusOK
	if done.location != "" {
		status = http.StatusCreated
		w.Header().Set("Location", done.location)
	}
	w.Header().Set("ETag", etag(done.revision))
	writeJSON(w, status, done.answer)
}

// changeProblem says of a failure before the start that it will pass.
func (e endpoints) changeProblem(err error) *Problem {
	p := problemOf(err)
	if p.Status == http.StatusInternalServerError && e.director.Head().Number == 0 {
		return newProblem(http.StatusServiceUnavailable, "not-ready", p.Detail, "shuntd is starting: try again")
	}
	return p
}

// writeJSON sends v as the answer. What cannot be written as JSON is a fault of
// ours, and no answer has gone out by then.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var text bytes.Buffer
	if err := json.NewEncoder(&text).Encode(v); err != nil {
		writeProblem(w, problemOf(fmt.Errorf("write the answer: %w", err)))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes()) // the client has gone: nobody to tell
}

// checkQuery refuses what the operation does not take: a misspelt filter would
// show everything.
func (o operation) checkQuery(r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return newProblem(http.StatusBadRequest, "bad-request", fmt.Sprintf("query: %v", err), "")
	}
	for name, values := range query {
		if !slices.Contains(o.query, name) {
			hint := "it takes none"
			if len(o.query) > 0 {
				hint = "known: " + strings.Join(o.query, ", ")
			}
			return invalid(fmt.Sprintf("query: unknown parameter %q", name), hint)
		}
		if len(values) > 1 && !slices.Contains(o.lists, name) {
			return invalid(fmt.Sprintf("query: parameter %q is given %d times", name, len(values)), "")
		}
	}
	return nil
}

// badParameter answers what the generated code could not read.
func badParameter(w http.ResponseWriter, _ *http.Request, err error) {
	text := err.Error()
	writeProblem(w, invalid(strings.ToLower(text[:1])+text[1:], ""))
}

// noRoute says what the mux refused, in our form and not as its plain text. It
// sets Allow on the answer where there is one.
func noRoute(w http.ResponseWriter, r *http.Request, refused http.Handler) *Problem {
	var caught refusal
	refused.ServeHTTP(&caught, r)
	if caught.status == http.StatusMethodNotAllowed {
		allow := caught.header.Get("Allow")
		w.Header().Set("Allow", allow)
		return newProblem(caught.status, "method", fmt.Sprintf("%s %s: method not allowed", r.Method, r.URL.Path), "allowed: "+allow)
	}
	return noResource(r)
}

func noResource(r *http.Request) *Problem {
	return newProblem(http.StatusNotFound, "no-route", fmt.Sprintf("%s %s: no such resource", r.Method, r.URL.Path),
		"a service's URL in a path is escaped as one segment: tcp:%2F%2F192.0.2.1:80")
}

// isClean reports whether the mux takes the path as it is. It would redirect
// others, such as /v1//status, with a page for browsers.
func isClean(r *http.Request) bool {
	escaped := r.URL.EscapedPath()
	return path.Clean(escaped) == escaped
}

// refusal catches what the mux answers to a request without a route.
type refusal struct {
	header http.Header
	status int
}

// Header returns the caught header.
func (r *refusal) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

// WriteHeader notes the status.
func (r *refusal) WriteHeader(status int) { r.status = status }

// Write drops the mux's text.
func (r *refusal) Write(b []byte) (int, error) { return len(b), nil }

// extend gives a long answer more time, now that some of it was taken.
func (h *Handler) extend(w http.ResponseWriter) {
	_ = http.NewResponseController(w).Flush()
	setWriteDeadline(w, h.limits.write)
}
