package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
)

// fixed is an authenticator that lets everybody in as one caller.
type fixed struct{ caller caller }

func (f fixed) connected(ctx context.Context, _ net.Conn) context.Context { return ctx }

func (f fixed) authenticate(*http.Request) (caller, error) { return f.caller, nil }

// AsAdmin gives a request that comes by no listener the caller "tester".
func AsAdmin(r *http.Request) *http.Request {
	who := authenticator(fixed{caller{who: "tester", role: Admin}})
	return r.WithContext(context.WithValue(r.Context(), authenticatorKey{}, who))
}

// SetHeartbeat makes streams show life more often.
func (h *Handler) SetHeartbeat(d time.Duration) { h.limits.heartbeat = d }

// SetWriteLimit gives readers less time.
func (h *Handler) SetWriteLimit(d time.Duration) { h.limits.write = d }

// SetTurn lets configurations wait less for room.
func (h *Handler) SetTurn(d time.Duration) { h.limits.turn = d }

// MaxBodies is how many bytes of configurations are read at once.
const MaxBodies = maxBodies

// SetReadLimits gives senders less time.
func (h *Handler) SetReadLimits(header, body time.Duration) {
	h.limits.header, h.limits.body = header, body
}

// SetCheck makes the listener look at its files more often.
func (l *TLSListener) SetCheck(d time.Duration) { l.check.Store(int64(d)) }

// Document is what GET /v1/openapi.yaml answers.
func Document() []byte { return document }

// Op is an operation, for tests outside the package.
type Op struct {
	ID, Method, Path string
	Role             Role
}

// Operations are those of the generated table.
func Operations() []Op {
	var all []Op
	for _, o := range operations() {
		all = append(all, Op{o.id, o.method, o.path, o.role})
	}
	return all
}

// MaxStreams is how many streams can be open.
const MaxStreams = maxStreams

// AwaitNoStreams waits until every stream is over, and lets none begin until
// then.
func (h *Handler) AwaitNoStreams(ctx context.Context) error {
	for _, share := range h.shares {
		for taken := range cap(share.streams) {
			select {
			case share.streams <- struct{}{}:
				defer func() { <-share.streams }()
			case <-ctx.Done():
				return fmt.Errorf("%d streams go on: %w", cap(share.streams)-taken, ctx.Err())
			}
		}
	}
	return nil
}

// ConnectionForms returns a connection as a line of the list and as the model.
func ConnectionForms(timed bool, c conntrack.Connection) ([]byte, *Connection) {
	form := connectionForm{timed: timed}
	return form.appendConnection(nil, &c), form.model(&c)
}
