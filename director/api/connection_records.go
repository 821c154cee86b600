package api

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/shunt-lb/shunt/conntrack/record"
	"github.com/shunt-lb/shunt/director"
)

// problemTrailer says why records broke off: their status has gone out by then.
const problemTrailer = "Shunt-Problem"

// DumpConnections answers dumpConnections.
func (e endpoints) DumpConnections(w http.ResponseWriter, r *http.Request, p DumpConnectionsParams) {
	filter, err := e.connectionFilter(filterParams{p.Service, p.Server, p.Client, p.Kind, p.State, p.MinAge, p.MaxAge, p.MinIdle, p.MaxIdle})
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	e.sendRecords(w, r, filter)
}

// sendRecords sends the connections as records. An error before the first part has
// gone out is the answer; a later one is in the trailer, and the records have no end.
func (e endpoints) sendRecords(w http.ResponseWriter, r *http.Request, filter director.ConnectionFilter) {
	w.Header().Set("Content-Type", recordsType)
	parts := &pushing{w: w, handler: e.Handler}
	buffer := bufio.NewWriterSize(parts, pushAfter)
	_, err := e.director.Dump(r.Context(), filter, buffer)
	switch {
	case err != nil && parts.sent:
		_ = buffer.Flush() // what came before the error is true all the same
		w.Header().Set(http.TrailerPrefix+problemTrailer, string(problemOf(err).text()))
	case err != nil:
		writeProblem(w, problemOf(err))
	default:
		_ = buffer.Flush() // the client has gone: nobody to tell
	}
}

// pushing gives each part of an answer time of its own to be taken.
type pushing struct {
	w       http.ResponseWriter
	handler *Handler
	sent    bool
}

// Write sends a part.
func (p *pushing) Write(b []byte) (int, error) {
	p.sent = true
	n, err := p.w.Write(b)
	p.handler.extend(p.w)
	return n, err
}

// LoadConnections answers loadConnections. What was loaded before a failure is told
// together with that.
func (e endpoints) LoadConnections(w http.ResponseWriter, r *http.Request) {
	e.read(w, func() (any, error) {
		if err := checkRecords(r); err != nil {
			return nil, err
		}
		body := &pulling{w: w, body: r.Body, limit: e.limits.body}
		report, err := e.director.LoadRecords(r.Context(), body)
		if err == nil {
			err = checkEnd(body)
		}
		setReadDeadline(w, time.Time{}) // or the connection's next request would end with it
		model := LoadReport{Loaded: report.Loaded, Known: report.Known, Skipped: report.Skipped}
		if model.Skipped == nil {
			model.Skipped = map[string]uint64{}
		}
		if err != nil {
			err = recordsProblem(err)
			if report.Loaded == 0 && report.Known == 0 && len(report.Skipped) == 0 {
				return nil, err
			}
			model.Failure = err.Error()
		}
		return model, nil
	})
}

// checkEnd refuses what follows the end of the records, such as another dump: nobody
// would miss it.
func checkEnd(r io.Reader) error {
	switch _, err := io.ReadFull(r, make([]byte, 1)); {
	case err == nil:
		return fmt.Errorf("load connections: %w: something follows its end", record.ErrDamaged)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return fmt.Errorf("load connections: read to the end: %w", err)
	}
}

// recordsProblem is that of records which cannot be read; other errors stay as they
// are.
func recordsProblem(err error) error {
	for _, bad := range []error{record.ErrTruncated, record.ErrDamaged, record.ErrVersion} {
		if errors.Is(err, bad) {
			return newProblem(http.StatusBadRequest, "bad-request", err.Error(), "`shunt conn dump` writes what can be loaded")
		}
	}
	return err
}

// checkRecords wants records, and the body as it is; curl says nothing better than
// application/x-www-form-urlencoded when told nothing.
func checkRecords(r *http.Request) error {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // none, if it cannot be read
	switch media {
	case recordsType, "application/octet-stream", "application/x-www-form-urlencoded":
	default:
		return newProblem(http.StatusUnsupportedMediaType, "media-type",
			fmt.Sprintf("request body: content type %q is not supported", media), "send "+recordsType)
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return newProblem(http.StatusUnsupportedMediaType, "media-type",
			fmt.Sprintf("request body: content encoding %q is not supported", coding), "send it as it is")
	}
	return nil
}

// pulling gives each part of a body time of its own to come.
type pulling struct {
	w     http.ResponseWriter
	body  io.Reader
	limit time.Duration
}

// Read reads a part.
func (p *pulling) Read(b []byte) (int, error) {
	setReadDeadline(p.w, time.Now().Add(p.limit))
	return p.body.Read(b)
}
