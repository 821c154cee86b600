package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// Options say what the handler tells about the daemon around it.
type Options struct {
	Version   string    // of the daemon
	Dataplane string    // its name: xdp or ipvs
	Started   time.Time // when the daemon started
	// Detach takes the data plane off the interfaces and removes everything it
	// keeps in the kernel. Nil: POST /v1/detach is not supported.
	Detach func(context.Context) error
	// Detached is called once the caller of a successful detach has its answer:
	// the daemon is to end.
	Detached func()
	// Reload reads the configuration file again and applies it. Nil: POST
	// /v1/reload is not supported.
	Reload func(context.Context, director.Request) (director.Outcome, error)
	// Doctor inspects the host. Nil: GET /v1/doctor is not supported.
	Doctor func(context.Context) ([]Finding, error)
	// Ready returns why the daemon is not ready; nil if it is. Nil: it is ready
	// as soon as the director is started.
	Ready func() error
	// Metrics answers GET /metrics. Nil: it is not supported.
	Metrics http.Handler
	// Events is the stream the director publishes to: the API shows it, wakes
	// its streams by it and publishes refused callers. Nil: there are none.
	Events *event.Stream
	Log    *slog.Logger // nil: slog.Default()
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Detached == nil {
		o.Detached = func() {}
	}
	return o
}

// Limits on a caller. The socket is root's, so these guard against accidents.
const (
	headerTimeout   = 10 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 5 * time.Second
	// changeTimeout bounds a change, which runs to its end even when the caller
	// has gone: half a change helps nobody.
	changeTimeout = time.Minute
)

// Handler answers the control API. Safe for concurrent use.
type Handler struct {
	director *director.Director
	opts     Options
	mux      *http.ServeMux
	detached atomic.Bool
}

// NewHandler returns a handler for the director.
func NewHandler(d *director.Director, opts Options) *Handler {
	h := &Handler{director: d, opts: opts.withDefaults(), mux: http.NewServeMux()}
	for _, r := range h.routes() {
		h.mux.Handle(r.pattern, h.handler(r.handle))
	}
	return h
}

// Run serves the listener until the context ends, then lets requests in flight
// finish for a few seconds and closes the listener. It returns nil on cancel.
func (h *Handler) Run(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(h.opts.Log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1) // one value, sent once
	go func() { done <- server.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the control socket: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the control socket: %w", err)
	}
	return nil
}

// ServeHTTP answers one request. What no route takes is answered as a problem
// too, not as the mux's plain text.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.detached.Load() {
		writeProblem(w, newProblem(http.StatusServiceUnavailable, "detached", "shuntd is detached and ending", ""))
		return
	}
	refused, pattern := h.mux.Handler(r)
	if h.routed(pattern) {
		h.mux.ServeHTTP(w, r)
		return
	}
	var refusal refusal
	refused.ServeHTTP(&refusal, r)
	writeProblem(w, refusal.problem(w, r))
}

// change returns the context a change runs in: it outlives the caller.
func change(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
}
