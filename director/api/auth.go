package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/shunt-lb/shunt/director/event"
)

// caller is who asks, and what they may do.
type caller struct {
	who  string // as the history has it: "root (uid 0)", "token deploy"
	role Role
	// scope is an agent's.
	scope scope
	// local is whether it comes by the socket of this host.
	local bool
}

// authenticator tells the callers of a listener apart. The listeners of Listen
// and ListenTLS are ones; the Handler serves no other.
type authenticator interface {
	// connected keeps what the connection itself says of its peer.
	connected(ctx context.Context, c net.Conn) context.Context
	// authenticate returns who sent the request; *Problem if nobody knows.
	authenticate(r *http.Request) (caller, error)
}

// The keys of what a request's context has.
type (
	authenticatorKey struct{}
	callerKey        struct{}
)

// identify returns who sent the request.
func identify(r *http.Request) (caller, error) {
	a, ok := r.Context().Value(authenticatorKey{}).(authenticator)
	if !ok {
		return caller{}, unauthorized("the request came by no listener that tells callers apart", "")
	}
	return a.authenticate(r)
}

// callerOf returns who sent a request that was let in.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// unauthorized is a caller without credentials, or with wrong ones.
func unauthorized(detail, hint string) *Problem {
	return newProblem(http.StatusUnauthorized, "unauthorized", detail, hint)
}

// forbidden is a caller whose role is too small.
func forbidden(c caller, op operation) *Problem {
	return newProblem(http.StatusForbidden, "forbidden",
		fmt.Sprintf("%s is %s; %s needs %s", c.who, withArticle(c.role), op.id, withArticle(op.role)),
		fmt.Sprintf("ask with the credentials of %s", withArticle(op.role)))
}

func withArticle(r Role) string {
	if r == Viewer {
		return "a viewer"
	}
	return "an " + r.String()
}

// How many refusals are published: anybody can cause them.
const (
	refusalsEvery = time.Second
	refusalsBurst = 10
)

// refusals publishes callers that were refused, not too many of them.
type refusals struct {
	events *event.Stream
	limit  *rate.Limiter
}

func newRefusals(events *event.Stream) *refusals {
	return &refusals{events: events, limit: rate.NewLimiter(rate.Every(refusalsEvery), refusalsBurst)}
}

func (f *refusals) publish(r *http.Request, err error) {
	if !f.limit.Allow() {
		return
	}
	from := r.RemoteAddr
	if from == "" || from == "@" {
		from = "the socket"
	}
	f.events.Publish(event.Event{
		Name:    event.AccessRefused,
		Message: fmt.Sprintf("%.20s %.200q from %s: %v", r.Method, r.URL.Path, from, err),
	})
}
