package api

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// problemName is the last event of a stream whose source ended with an error.
const problemName = "problem"

// maxBurst is how many changes are sent at once.
const maxBurst = 256

// WatchConnections answers watchConnections.
func (e endpoints) WatchConnections(w http.ResponseWriter, r *http.Request, p WatchConnectionsParams) {
	filter, err := e.connectionFilter(filterParams{p.Service, p.Server, p.Client, p.Kind, p.State, p.MinAge, p.MaxAge, p.MinIdle, p.MaxIdle})
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var changes iter.Seq2[director.ConnectionChange, error]
	if err == nil {
		changes, err = e.director.Watch(ctx, filter)
	}
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	e.stream(w, r, func(_ context.Context, s *sender) error {
		return e.sendChanges(ctx, cancel, s, changes)
	})
}

// change is what a watch yields.
type change struct {
	director.ConnectionChange
	err error
}

// sendChanges sends what the watch yields, as much as is there at once. The watch
// ends by cancel.
func (e endpoints) sendChanges(ctx context.Context, cancel func(), s *sender, changes iter.Seq2[director.ConnectionChange, error]) error {
	news := make(chan change, maxBurst) // a full one stops the watch, which counts what it then loses
	go func() {
		defer close(news)
		for c, err := range changes {
			select {
			case news <- change{c, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range news { // until it has ended
		}
	}()
	alive := time.NewTicker(e.limits.heartbeat)
	defer alive.Stop()
	form := e.form()
	var frames []byte
	for {
		select {
		case <-alive.C:
			if err := s.heartbeat(); err != nil {
				return err
			}
		case next, more := <-news:
			if !more || ctx.Err() != nil { // the client, or the daemon, has gone
				return ctx.Err()
			}
			frames = frames[:0]
			for n := 0; more && n < maxBurst; n++ {
				frames = form.appendFrame(frames, &next)
				if len(news) == 0 {
					break
				}
				next, more = <-news
			}
			if err := s.write(frames); err != nil {
				return err
			}
		}
	}
}

// appendFrame appends the change as a Server-Sent Event.
func (f connectionForm) appendFrame(b []byte, c *change) []byte {
	if c.err != nil {
		b = append(append(append(b, "event: "...), problemName...), "\ndata: "...)
		return append(append(b, problemOf(c.err).text()...), "\n\n"...)
	}
	b = append(append(append(b, "event: "...), c.What...), "\ndata: "...)
	return append(f.appendChange(b, &c.ConnectionChange), "\n\n"...)
}
