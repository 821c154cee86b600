package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// route is one line of the table: a ServeMux pattern and its handler.
type route struct {
	pattern string
	handle  func(http.ResponseWriter, *http.Request) error
}

// routes is the whole API. {ref} is a service's URL or name and {address} a
// server's address, each escaped as one path segment.
func (h *Handler) routes() []route {
	return []route{
		{"GET /v1/status", h.getStatus},
		{"GET /v1/stats", h.getStats},
		{"GET /v1/services", h.listServices},
		{"POST /v1/services", h.addService},
		{"GET /v1/services/{ref}", h.getService},
		{"PATCH /v1/services/{ref}", h.editService},
		{"DELETE /v1/services/{ref}", h.removeService},
		{"POST /v1/services/{ref}/servers", h.addServer},
		{"PATCH /v1/services/{ref}/servers/{address}", h.editServer},
		{"DELETE /v1/services/{ref}/servers/{address}", h.removeServer},
		{"GET /v1/connections", h.listConnections},
		{"GET /v1/connections/count", h.countConnections},
		{"GET /v1/timeouts", h.getTimeouts},
		{"PUT /v1/timeouts", h.setTimeouts},
		{"PATCH /v1/timeouts", h.editTimeouts},
		{"POST /v1/detach", h.detach},
	}
}

// routed reports whether the pattern is one of ours and not a redirect or a
// refusal of the mux.
func (h *Handler) routed(pattern string) bool {
	return slices.ContainsFunc(h.routes(), func(r route) bool { return r.pattern == pattern })
}

// handler answers a handler's error as a problem and logs what changes state.
func (h *Handler) handler(handle func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		err := handle(w, r)
		if err != nil {
			writeProblem(w, problemOf(err))
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			return
		}
		log := h.opts.Log.With("method", r.Method, "path", r.URL.Path, "took", time.Since(start))
		if err != nil {
			log.Warn("change refused", "err", err)
			return
		}
		log.Info("change made")
	})
}

// writeJSON sends v as the answer.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client has gone: nobody to tell
	return nil
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

// problem says what the mux refused, in our form. It sets Allow on the answer
// where there is one.
func (r *refusal) problem(w http.ResponseWriter, req *http.Request) *Problem {
	if allow := r.header.Get("Allow"); r.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		return newProblem(r.status, "method", fmt.Sprintf("%s %s: method not allowed", req.Method, req.URL.Path), "allowed: "+allow)
	}
	return newProblem(http.StatusNotFound, "no-route", fmt.Sprintf("%s %s: no such resource", req.Method, req.URL.Path),
		"a service's URL in a path is escaped as one segment: tcp:%2F%2F192.0.2.1:80")
}
