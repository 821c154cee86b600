package api

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// captureType is what tools for captures call it; none is registered.
const captureType = "application/x-pcapng"

// The trailers of a capture, beside problemTrailer.
const (
	writtenTrailer = "Shunt-Written"
	limitedTrailer = "Shunt-Limited"
	lostTrailer    = "Shunt-Lost"
)

// CapturePackets answers capturePackets.
func (e endpoints) CapturePackets(w http.ResponseWriter, r *http.Request, p CapturePacketsParams) {
	request, err := e.captureRequest(p)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	release, err := e.holdStream(r)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	defer release()
	w.Header().Set("Content-Type", captureType)
	w.Header().Set("Cache-Control", "no-store")
	// A stream takes its connection with it: what is left of it is not known.
	w.Header().Set("Connection", "close")
	if r.Method == http.MethodHead {
		return
	}
	parts := &capturing{pushing: pushing{w: w, handler: e.Handler}}
	parts.still, _ = r.Context().Value(stillKey{}).(func() error)
	report, err := e.director.Capture(r.Context(), request, parts)
	if err != nil && !parts.sent {
		w.Header().Del("Connection")
		writeProblem(w, problemOf(err))
		return
	}
	setWriteDeadline(w, e.limits.write)
	for name, n := range map[string]uint64{writtenTrailer: report.Written, limitedTrailer: report.Limited, lostTrailer: report.Lost} {
		w.Header().Set(http.TrailerPrefix+name, strconv.FormatUint(n, 10))
	}
	if err != nil {
		w.Header().Set(http.TrailerPrefix+problemTrailer, string(problemOf(err).text()))
	}
}

// holdStream takes one of the caller's streams; release gives it back.
func (e endpoints) holdStream(r *http.Request) (release func(), err error) {
	streams := e.shares.of(callerOf(r.Context())).streams
	select {
	case streams <- struct{}{}:
		return func() { <-streams }, nil
	default:
		return nil, newProblem(http.StatusServiceUnavailable, "busy", fmt.Sprintf("%d streams are open", cap(streams)), "end one, or try again later")
	}
}

// capturing sends the parts of a capture as long as the caller may have them.
type capturing struct {
	pushing
	still  func() error
	looked time.Time
}

// Write sends a part, and waits as long for it to be taken as for any answer.
func (c *capturing) Write(b []byte) (int, error) {
	if now := time.Now(); c.still != nil && now.Sub(c.looked) >= time.Second {
		if err := c.still(); err != nil {
			return 0, err
		}
		c.looked = now
	}
	setWriteDeadline(c.w, c.handler.limits.write) // packets may have been long in coming
	return c.pushing.Write(b)
}

// captureRequest reads the parameters.
func (e endpoints) captureRequest(p CapturePacketsParams) (director.CaptureRequest, error) {
	request := director.CaptureRequest{}
	for _, ref := range p.Service {
		key, err := e.filterKey(ref)
		if err != nil {
			return request, err
		}
		request.Services = append(request.Services, key)
	}
	switch point := deref(p.Point); point {
	case "", "both":
	case "before":
		request.Before = true
	case "after":
		request.After = true
	case "drops":
		request.Drops = true
	default:
		return request, invalid(fmt.Sprintf("unknown point %.40q", point), "want both, before, after or drops")
	}
	request.Reason, request.Interface, request.Count = deref(p.Reason), deref(p.Interface), deref(p.Count)
	request.Snaplen, request.Rate = deref(p.Snaplen), deref(p.Rate)
	if !request.Drops && (request.Reason != "" || request.Interface != "") {
		return request, invalid("reason and interface choose among drops", "ask for point=drops")
	}
	if p.Rate != nil && (request.Rate < 1 || request.Rate > director.MaxCaptureRate) {
		return request, invalid(fmt.Sprintf("rate %d: want 1 to %d packets a second", request.Rate, director.MaxCaptureRate), "")
	}
	if request.Snaplen < 0 || request.Snaplen > director.MaxCaptureSnaplen {
		return request, invalid(fmt.Sprintf("snaplen %d: want 1 to %d octets, or 0 for all", request.Snaplen, director.MaxCaptureSnaplen), "")
	}
	if text := deref(p.Duration); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return request, invalid(fmt.Sprintf("duration %.40q is not a duration", text), "write it as 10s")
		}
		request.Duration = d
	}
	return request, nil
}

// deref returns what a parameter points to; the zero value where it was not given.
func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
