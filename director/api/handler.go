package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/lease"
)

// Options say what the handler tells about the daemon around it.
type Options struct {
	Version   string    // of the daemon
	Dataplane string    // its name: xdp or ipvs
	Started   time.Time // when the daemon started
	// Forwarding is what it was configured with for the status; nil where the data plane
	// does not have it.
	Forwarding *Forwarding
	// Detach takes the data plane off the interfaces and removes everything it
	// keeps in the kernel. Nil: POST /v1/detach is not supported.
	Detach func(context.Context) error
	// Detached is called once the caller of a successful detach has its answer:
	// the daemon is to end.
	Detached func()
	// Reload reads the configuration file again and applies it. Nil: POST
	// /v1/reload is not supported.
	Reload func(context.Context, director.Request) (director.Outcome, error)
	// Doctor inspects the host. The findings' Ok need not be set. Nil: GET
	// /v1/doctor is not supported.
	Doctor func(context.Context) ([]Finding, error)
	// Migrate moves services from the kernel's IPVS to this data plane; what was
	// done before a failure is reported beside the error. Nil: POST /v1/migration
	// is not supported.
	Migrate func(context.Context, director.Request, Migration) (MigrationReport, error)
	// Ready returns why the daemon is not ready; nil if it is. Nil: it is ready
	// as soon as the director is started.
	Ready func() error
	// Health says what is offered of servers, and why. Nil: GET /v1/health is not
	// supported.
	Health HealthSource
	// Leases are what agents have registered. Nil: pools are not supported.
	Leases *lease.Registry
	// Metrics answers GET /metrics. Nil: it is not supported.
	Metrics http.Handler
	// Events is the stream the director publishes to: the API shows it, wakes
	// its streams by it and publishes refused callers. Nil: there are none, and
	// streams look for news at each heartbeat only.
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
	if o.Events == nil {
		o.Events = event.NewStream(slog.New(slog.DiscardHandler), 1)
	}
	return o
}

// Handler answers the control API. Safe for concurrent use.
type Handler struct {
	director *director.Director
	opts     Options
	mux      *http.ServeMux
	byRoute  map[string]operation // by ServeMux pattern
	refusals *refusals
	limits   limits
	detached atomic.Bool

	shares    *shares
	counts    *sampler
	examining sync.Mutex // one inspection of the host at a time
}

// limits are the times that tests shorten.
type limits struct {
	header    time.Duration // for a request's header to come
	body      time.Duration // for a body to come
	turn      time.Duration // for there to be room for a large one
	write     time.Duration // for a reader to take what it is sent
	heartbeat time.Duration // at most between two signs of life of a stream
}

// NewHandler returns a handler for the director.
func NewHandler(d *director.Director, opts Options) *Handler {
	h := &Handler{
		director: d, opts: opts.withDefaults(), mux: http.NewServeMux(), byRoute: make(map[string]operation),
		limits: limits{header: headerTimeout, body: bodyTimeout, turn: turnTimeout, write: writeTimeout, heartbeat: heartbeatEvery},
		shares: newShares(), counts: newSampler(),
	}
	h.refusals = newRefusals(h.opts.Events)
	for _, op := range operations() {
		h.byRoute[op.pattern()] = op
	}
	mount(h.mux, &ServerInterfaceWrapper{Handler: endpoints{h}, ErrorHandlerFunc: badParameter})
	return h
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setWriteDeadline(w, h.limits.write) // not that of the connection's last answer
	if r.ContentLength != 0 {
		// Also for a body that nobody reads: the server drains it.
		setReadDeadline(w, time.Now().Add(h.limits.body))
	}
	start := time.Now()
	answer := &recorder{ResponseWriter: w, limit: h.limits.write}
	who, err := h.serve(answer, r)
	if err != nil {
		// Not logged, or anybody could fill the log: that callers were refused
		// is an event, of which there are few.
		writeProblem(answer, problemOf(err))
		return
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return
	}
	level := slog.LevelInfo
	if r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/v1/pools/") && answer.status == http.StatusOK {
		level = slog.LevelDebug // each agent's, every few seconds: of what is new there are events
	}
	h.opts.Log.Log(r.Context(), level, "request answered", "method", r.Method, "path", r.URL.Path, "who", who,
		"status", answer.status, "took", time.Since(start))
}

// serve lets the request in and passes it to its operation, which answers errors
// of its own. It returns why the request got no further.
func (h *Handler) serve(w *recorder, r *http.Request) (who string, err error) {
	if h.detached.Load() {
		return "", newProblem(http.StatusServiceUnavailable, "detached", "shuntd is detached and ending", "")
	}
	refused, pattern := h.mux.Handler(r)
	op, found := h.byRoute[pattern]
	if !found || op.role != public {
		c, err := identify(r)
		if err != nil {
			h.refusals.publish(r, err)
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.Header().Set("Connection", "close")
			return "", err
		}
		who = c.who
		if found && c.role < op.role {
			err := forbidden(c, op)
			h.refusals.publish(r, err)
			return who, err
		}
		// A stream outlives the credentials it was opened with: it asks again.
		opened := r
		still := func() error {
			now, err := identify(opened)
			switch {
			case err != nil:
				return err
			case now.role < op.role:
				return forbidden(now, op)
			case now.role < c.role: // and may not see what the stream was begun to show
				return newProblem(http.StatusForbidden, "forbidden", fmt.Sprintf("%s is %s now", now.who, withArticle(now.role)), "ask anew")
			}
			return nil
		}
		ctx := context.WithValue(r.Context(), callerKey{}, c)
		r = r.WithContext(context.WithValue(ctx, stillKey{}, still))
	}
	switch {
	case !found:
		return who, noRoute(w, r, refused)
	case !isClean(r):
		return who, noResource(r)
	}
	// A page of another site may have made a browser send this, with the
	// client certificate that the browser holds.
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		h.refusals.publish(r, err)
		return who, newProblem(http.StatusForbidden, "cross-origin", err.Error(), "")
	}
	if err := op.checkQuery(r); err != nil {
		return who, err
	}
	h.mux.ServeHTTP(w, r)
	return who, nil
}
