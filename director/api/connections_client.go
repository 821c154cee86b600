package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/conntrack/record"
)

// ConnectionQuery selects connections; empty fields match everything.
type ConnectionQuery struct {
	Service string // URL or name
	Server  string // address and port
	Client  string // address or prefix
	Kind    string // connection or template; empty: both
	State   string // the kernel's name of one, in any case
	// MinAge and MinIdle select what is as old, or as long without a packet, or more;
	// MaxAge and MaxIdle what is less.
	MinAge, MaxAge, MinIdle, MaxIdle time.Duration

	Limit uint64 // connections, or groups of them; 0: all
	// Cursor is where the part before ended; empty: the list begins.
	Cursor string
}

// bound is a duration as a parameter; nil for 0.
func bound(d time.Duration) *string {
	if d == 0 {
		return nil
	}
	return new(d.String())
}

// ConnectionList is a list of connections that comes in: one of its iterators reads
// it, once.
type ConnectionList struct {
	answer *http.Response
	body   *bufio.Reader
	timed  bool // a line had ages
	next   string
}

// ListConnections asks for the connections that match, in the form that is cheapest
// to read into values. The caller closes the list.
func (c *Client) ListConnections(ctx context.Context, q ConnectionQuery) (*ConnectionList, error) {
	return c.listConnections(ctx, q, recordsType+", "+linesType)
}

// ListConnectionLines asks for the connections that match as lines of JSON. The caller
// closes the list.
func (c *Client) ListConnectionLines(ctx context.Context, q ConnectionQuery) (*ConnectionList, error) {
	return c.listConnections(ctx, q, linesType)
}

func (c *Client) listConnections(ctx context.Context, q ConnectionQuery, accept string) (*ConnectionList, error) {
	answer, err := c.raw.ListConnections(ctx, &ListConnectionsParams{
		Service: given(q.Service), Server: given(q.Server), Client: given(q.Client), Kind: given(q.Kind), State: given(q.State),
		MinAge: bound(q.MinAge), MaxAge: bound(q.MaxAge), MinIdle: bound(q.MinIdle), MaxIdle: bound(q.MaxIdle),
		Limit: given(q.Limit), Cursor: given(q.Cursor),
	}, func(_ context.Context, r *http.Request) error {
		r.Header.Set("Accept", accept)
		return nil
	})
	if err := c.check(answer, err); err != nil {
		return nil, err
	}
	return &ConnectionList{answer: answer, body: bufio.NewReaderSize(answer.Body, pushAfter)}, nil
}

// Close ends the list.
func (l *ConnectionList) Close() { _ = l.answer.Body.Close() }

// Type returns the media type that the list came as.
func (l *ConnectionList) Type() string { return l.answer.Header.Get("Content-Type") }

// IsTimed reports whether the ages of the connections are known: those of lines once
// one was read.
func (l *ConnectionList) IsTimed() bool { return l.isRecords() || l.timed }

// Next returns the cursor of the next part once all connections were read; empty if
// there is none.
func (l *ConnectionList) Next() string { return l.next }

// isRecords reports whether records came, and not lines.
func (l *ConnectionList) isRecords() bool { return l.Type() == recordsType }

// readError says that the list cannot be read on.
func readError(err error) error { return fmt.Errorf("read the list of connections: %w", err) }

// Lines iterates over the lines of JSON as they came, without their ends. A line is
// overwritten by the next one. A walk that breaks off ends with an error.
func (l *ConnectionList) Lines() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			line, err := l.body.ReadSlice('\n')
			switch {
			case errors.Is(err, bufio.ErrBufferFull):
				yield(nil, readError(errors.New("a line is too long")))
				return
			case errors.Is(err, io.EOF) && len(line) == 0:
				return
			case err != nil:
				yield(nil, readError(err)) // at the end: half a line
				return
			}
			line = line[:len(line)-1]
			if !bytes.HasPrefix(line, []byte(firstField)) {
				if err := l.end(line); err != nil {
					yield(nil, err)
				}
				return
			}
			if !yield(line, nil) {
				return
			}
		}
	}
}

// firstField begins the line of a connection.
const firstField = `{"protocol":`

// end reads the last line of a list, where it is none of a connection.
func (l *ConnectionList) end(line []byte) error {
	var last lastLine
	if err := json.Unmarshal(line, &last); err != nil {
		return readError(err)
	}
	if l.next = last.Next; last.Problem != nil {
		return last.Problem
	}
	return nil
}

// All iterates over the connections. A walk that breaks off ends with an error. What
// one points to is overwritten by the next one.
func (l *ConnectionList) All() iter.Seq2[*conntrack.Connection, error] {
	if l.isRecords() {
		return l.records()
	}
	return func(yield func(*conntrack.Connection, error) bool) {
		for line, err := range l.Lines() {
			var model Connection
			if err == nil {
				err = unmarshalLine(line, &model)
			}
			var c conntrack.Connection
			if err == nil {
				l.timed = model.Age != nil
				c, err = model.parse()
			}
			if !yield(&c, err) || err != nil {
				return
			}
		}
	}
}

func unmarshalLine(line []byte, model *Connection) error {
	if err := json.Unmarshal(line, model); err != nil {
		return readError(err)
	}
	return nil
}

// records iterates over the connections of a dump.
func (l *ConnectionList) records() iter.Seq2[*conntrack.Connection, error] {
	return func(yield func(*conntrack.Connection, error) bool) {
		records, err := record.NewReader(l.body)
		if err != nil {
			yield(nil, brokenOff(l.answer, err))
			return
		}
		var r record.Record
		for {
			switch err := records.Next(&r); {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(nil, brokenOff(l.answer, err))
				return
			case !yield(&r.Connection, nil):
				return
			}
		}
	}
}

// brokenOff is the problem that the daemon says records broke off with, else the
// reader's error. The trailer is there once the body was read to its end.
func brokenOff(answer *http.Response, err error) error {
	var problem Problem
	if text := answer.Trailer.Get(problemTrailer); text != "" && json.Unmarshal([]byte(text), &problem) == nil {
		return &problem
	}
	return readError(err)
}

// parse reads the model back: what the kernel calls by one name for two protocols
// goes by the protocol.
func (c *Connection) parse() (conntrack.Connection, error) {
	out := conntrack.Connection{
		Method: c.Method, Proven: c.Proven, Template: c.Template, UnderTemplate: c.UnderTemplate,
		Mark: c.Mark, Engine: c.Engine, EngineData: c.EngineData, Expires: time.Duration(c.Expires),
	}
	for _, a := range []struct {
		text string
		to   *netip.AddrPort
	}{{c.Client, &out.Client}, {c.Virtual, &out.Virtual}, {c.Server, &out.Server}, {c.Local, &out.Local}} {
		if a.to == &out.Local && a.text == "" {
			continue
		}
		address, err := netip.ParseAddrPort(a.text)
		if err != nil {
			return out, readError(err)
		}
		*a.to = address
	}
	if c.Mark == 0 { // of a mark's template there is none
		protocol, err := conntrack.ParseProtocol(c.Protocol)
		if err != nil {
			return out, readError(err)
		}
		out.Protocol = protocol
	}
	state, err := conntrack.ParseState(c.State)
	if err != nil {
		return out, readError(err)
	}
	if out.State = state; state == conntrack.Established && out.Protocol == conntrack.SCTP {
		out.State = conntrack.SCTPEstablished
	}
	if c.Prefix != nil {
		out.Prefix = *c.Prefix
	}
	if c.Controlled != nil {
		out.Controlled = *c.Controlled
	}
	if c.Age != nil && c.Idle != nil {
		out.Age, out.Idle = time.Duration(*c.Age), time.Duration(*c.Idle)
	}
	if t := c.Traffic; t != nil {
		out.Traffic = &conntrack.Traffic{InPackets: t.In.Packets, InBytes: t.In.Bytes, OutPackets: t.Out.Packets, OutBytes: t.Out.Bytes}
	}
	return out, nil
}

// Connections streams the connections that match. A walk that breaks off ends
// with an error.
func (c *Client) Connections(ctx context.Context, q ConnectionQuery) iter.Seq2[Connection, error] {
	return func(yield func(Connection, error) bool) {
		list, err := c.ListConnections(ctx, q)
		if err != nil {
			yield(Connection{}, err)
			return
		}
		defer list.Close()
		for connection, err := range list.Models() {
			if !yield(connection, err) || err != nil {
				return
			}
		}
	}
}

// Models iterates over the connections as their models. A walk that breaks off ends
// with an error.
func (l *ConnectionList) Models() iter.Seq2[Connection, error] {
	return func(yield func(Connection, error) bool) {
		if !l.isRecords() {
			for line, err := range l.Lines() {
				var model Connection
				if err == nil {
					err = unmarshalLine(line, &model)
				}
				if !yield(model, err) || err != nil {
					return
				}
			}
			return
		}
		form := connectionForm{timed: true} // whoever has records knows ages
		for c, err := range l.records() {
			if err != nil {
				yield(Connection{}, err)
				return
			}
			if !yield(*form.model(c), nil) {
				return
			}
		}
	}
}

// CountConnections counts the connections that match; Limit is not looked at.
func (c *Client) CountConnections(ctx context.Context, q ConnectionQuery) (uint64, error) {
	count, err := c.CountConnectionsBy(ctx, q, "")
	return count.Count, err
}

// CountConnectionsBy counts them in groups as well, by one of CountedBy, as many as
// Limit says. Empty is by nothing.
func (c *Client) CountConnectionsBy(ctx context.Context, q ConnectionQuery, by string) (ConnectionCount, error) {
	p := &CountConnectionsParams{
		Service: given(q.Service), Server: given(q.Server), Client: given(q.Client), Kind: given(q.Kind), State: given(q.State),
		MinAge: bound(q.MinAge), MaxAge: bound(q.MaxAge), MinIdle: bound(q.MinIdle), MaxIdle: bound(q.MaxIdle), By: given(by),
	}
	if by != "" {
		p.Limit = given(q.Limit)
	}
	return as[ConnectionCount](c)(c.raw.CountConnections(ctx, p))
}

// KillConnections removes the connections and templates that match, and returns
// how many there were. Limit is not looked at; another field must be set.
func (c *Client) KillConnections(ctx context.Context, q ConnectionQuery) (uint64, error) {
	return c.killConnections(ctx, q, nil)
}

// ResetConnections is KillConnections, and resets both ends of TCP's.
func (c *Client) ResetConnections(ctx context.Context, q ConnectionQuery) (uint64, error) {
	return c.killConnections(ctx, q, new(true))
}

func (c *Client) killConnections(ctx context.Context, q ConnectionQuery, reset *bool) (uint64, error) {
	killed, err := as[ConnectionsKilled](c)(c.raw.KillConnections(ctx, &KillConnectionsParams{
		Service: given(q.Service), Server: given(q.Server), Client: given(q.Client), Kind: given(q.Kind), State: given(q.State),
		MinAge: bound(q.MinAge), MaxAge: bound(q.MaxAge), MinIdle: bound(q.MinIdle), MaxIdle: bound(q.MaxIdle), Reset: reset,
	}))
	return killed.Killed, err
}

// WatchConnections yields what becomes of the connections that match, from now on
// until the daemon or the context ends. Limit is not looked at.
func (c *Client) WatchConnections(ctx context.Context, q ConnectionQuery) iter.Seq2[ConnectionChange, error] {
	p := &WatchConnectionsParams{
		Service: given(q.Service), Server: given(q.Server), Client: given(q.Client), Kind: given(q.Kind), State: given(q.State),
		MinAge: bound(q.MinAge), MaxAge: bound(q.MaxAge), MinIdle: bound(q.MinIdle), MaxIdle: bound(q.MaxIdle),
	}
	return stream(c, func() (*http.Response, error) {
		return c.raw.WatchConnections(ctx, p, acceptStream)
	}, func(f frame) (ConnectionChange, error) {
		if f.name == problemName {
			problem, err := decodeFrame[*Problem](f)
			if err == nil {
				err = problem
			}
			return ConnectionChange{}, err
		}
		return decodeFrame[ConnectionChange](f)
	})
}

// DumpConnections copies the records of the connections that match to w. Limit is not
// looked at.
func (c *Client) DumpConnections(ctx context.Context, q ConnectionQuery, w io.Writer) error {
	answer, err := c.raw.DumpConnections(ctx, &DumpConnectionsParams{
		Service: given(q.Service), Server: given(q.Server), Client: given(q.Client), Kind: given(q.Kind), State: given(q.State),
		MinAge: bound(q.MinAge), MaxAge: bound(q.MaxAge), MinIdle: bound(q.MinIdle), MaxIdle: bound(q.MaxIdle),
	})
	if err := c.check(answer, err); err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(w, answer.Body); err != nil {
		return fmt.Errorf("dump connections: %w", err)
	}
	if answer.Trailer.Get(problemTrailer) != "" {
		return brokenOff(answer, record.ErrTruncated)
	}
	return nil
}

// LoadConnections sends records to be made the daemon's own connections. A failure
// after the first was loaded is in the report.
func (c *Client) LoadConnections(ctx context.Context, records io.Reader) (LoadReport, error) {
	return as[LoadReport](c)(c.raw.LoadConnectionsWithBody(ctx, recordsType, io.NopCloser(records)))
}

// ResizeTables makes room for so many connections.
func (c *Client) ResizeTables(ctx context.Context, sizes TableSizes) (TablesResized, error) {
	return as[TablesResized](c)(c.raw.ResizeTables(ctx, sizes))
}

// CheckConnections compares the connection tables with themselves and with the
// services.
func (c *Client) CheckConnections(ctx context.Context) (TableCheck, error) {
	return as[TableCheck](c)(c.raw.CheckConnections(ctx))
}
