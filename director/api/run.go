package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits on a caller.
const (
	headerTimeout   = 10 * time.Second
	headerBytes     = 64 << 10
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 5 * time.Second
	// bodyTimeout is for a whole body to come.
	bodyTimeout = 30 * time.Second
	// turnTimeout is for a configuration to wait until there is room for it.
	turnTimeout = 10 * time.Second
	// writeTimeout is for a reader to take an answer, or an item of a stream.
	writeTimeout = 30 * time.Second
	// heartbeatEvery is how long a stream is silent at most, so that whoever is
	// between the two ends keeps the connection, and either end sees it break.
	heartbeatEvery = 15 * time.Second
	// changeTimeout bounds a change, which runs to its end even when the caller
	// has gone: half a change helps nobody.
	changeTimeout = time.Minute
)

// Run serves a listener of Listen or ListenTLS until the context ends, then ends
// streams, lets other requests in flight finish for a few seconds and closes the
// listener. It returns nil on cancel. Several listeners may be served at once.
func (h *Handler) Run(ctx context.Context, l net.Listener) error {
	who, ok := l.(authenticator)
	if !ok {
		return fmt.Errorf("serve the API on %s: a %T does not tell callers apart", l.Addr(), l)
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: h.limits.header,
		MaxHeaderBytes:    headerBytes,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(h.opts.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return context.WithValue(ctx, authenticatorKey{}, who) },
		ConnContext:       who.connected,
	}
	done := make(chan error, 1) // one value, sent once
	go func() { done <- server.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the API on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API on %s: %w", l.Addr(), err)
	}
	return nil
}

// setWriteDeadline gives the reader some time for what comes next. A writer
// without deadlines is a test's.
func setWriteDeadline(w http.ResponseWriter, d time.Duration) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d))
}

// setReadDeadline sets when the rest of the request has to be there; zero: at
// any time.
func setReadDeadline(w http.ResponseWriter, at time.Time) {
	_ = http.NewResponseController(w).SetReadDeadline(at)
}
