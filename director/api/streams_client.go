package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
)

// Explain says which server a client's first packet would get, and why. The
// protocol is tcp or udp, client an address with or without a port, virtual an
// address and port.
func (c *Client) Explain(ctx context.Context, protocol, client, virtual string) (Decision, error) {
	return as[Decision](c)(c.raw.ExplainConnection(ctx, &ExplainConnectionParams{Protocol: protocol, Client: client, Virtual: virtual}))
}

// EventQuery selects events.
type EventQuery struct {
	// After is the id of the last event known; nil: Events returns the newest,
	// FollowEvents begins with what comes next.
	After   *uint64
	Limit   int      // events a page, up to 1000; 0: 100; FollowEvents does not look at it
	Names   []string // any of them; none: all
	Service string   // URL or name
}

func (q EventQuery) params() *ListEventsParams {
	return &ListEventsParams{After: q.After, Limit: given(q.Limit), Name: q.Names, Service: given(q.Service)}
}

// Events reads a page of events.
func (c *Client) Events(ctx context.Context, q EventQuery) (EventList, error) {
	return as[EventList](c)(c.raw.ListEvents(ctx, q.params()))
}

// EventMessage is an item of the stream of events: an event, or that some are
// missing before the next one.
type EventMessage struct {
	Event  *Event
	Missed *Missed
}

// FollowEvents yields events as they come until the daemon or the context ends.
// To go on after a broken stream, give the last event's id as After.
func (c *Client) FollowEvents(ctx context.Context, q EventQuery) iter.Seq2[EventMessage, error] {
	p := q.params()
	p.Limit = nil
	return stream(c, func() (*http.Response, error) {
		return c.raw.ListEvents(ctx, p, acceptStream)
	}, func(f frame) (EventMessage, error) {
		if f.name == missedName {
			m, err := decodeFrame[Missed](f)
			return EventMessage{Missed: &m}, err
		}
		e, err := decodeFrame[Event](f)
		return EventMessage{Event: &e}, err
	})
}

// StateMessage is an item of the stream of states; one field is set.
type StateMessage struct {
	Configuration *Revision // the newest revision as a whole
	Change        *RevisionChange
	Missed        *Missed
}

// FollowState yields the newest revision and then each new one, or, if after is
// not 0, each revision after it, until the daemon or the context ends.
func (c *Client) FollowState(ctx context.Context, after uint64) iter.Seq2[StateMessage, error] {
	p := &StreamStateParams{LastEventID: lastID(after)}
	return stream(c, func() (*http.Response, error) {
		return c.raw.StreamState(ctx, p, acceptStream)
	}, func(f frame) (StateMessage, error) {
		switch f.name {
		case configurationName:
			r, err := decodeFrame[Revision](f)
			return StateMessage{Configuration: &r}, err
		case missedName:
			m, err := decodeFrame[Missed](f)
			return StateMessage{Missed: &m}, err
		default:
			r, err := decodeFrame[RevisionChange](f)
			return StateMessage{Change: &r}, err
		}
	})
}

func acceptStream(_ context.Context, r *http.Request) error {
	r.Header.Set("Accept", eventStream)
	return nil
}

func lastID(id uint64) *string {
	if id == 0 {
		return nil
	}
	return new(strconv.FormatUint(id, 10))
}

// frame is one Server-Sent Event, without its id: our data have it.
type frame struct{ name, data string }

// decodeFrame reads the frame's data.
func decodeFrame[T any](f frame) (T, error) {
	var v T
	if err := json.Unmarshal([]byte(f.data), &v); err != nil {
		return v, fmt.Errorf("read the stream: event %q: %w", f.name, err)
	}
	return v, nil
}

// stream asks and yields what comes.
func stream[T any](c *Client, ask func() (*http.Response, error), decode func(frame) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		answer, err := ask()
		if err := c.check(answer, err); err != nil {
			yield(none, err)
			return
		}
		defer func() { _ = answer.Body.Close() }()
		for f, err := range frames(answer.Body) {
			if err != nil {
				yield(none, fmt.Errorf("read the stream: %w", err))
				return
			}
			v, err := decode(f)
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// frames reads Server-Sent Events (HTML Living Standard §9.2), as far as ours
// go: comments are passed over, and data is one line.
func frames(r io.Reader) iter.Seq2[frame, error] {
	return func(yield func(frame, error) bool) {
		var f frame
		for lines := bufio.NewReader(r); ; {
			line, err := lines.ReadString('\n')
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(frame{}, err)
				return
			}
			line = strings.TrimSuffix(line, "\n")
			if line == "" {
				if f.data != "" && !yield(f, nil) {
					return
				}
				f = frame{}
				continue
			}
			switch field, value, _ := strings.Cut(line, ": "); field {
			case "event":
				f.name = value
			case "data":
				f.data = value
			}
		}
	}
}
