package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// CaptureQuery says which packets are to be captured: see the parameters of
// capturePackets. Zero fields are left out.
type CaptureQuery struct {
	Services  []string
	Point     string
	Reason    string
	Interface string
	Count     uint64
	Duration  time.Duration
	Snaplen   int
	Rate      int
}

// CaptureReport is what a capture has come to, as far as it was told: nothing is, if the
// client has ended it.
type CaptureReport struct{ Written, Limited, Lost uint64 }

// Drops reads what was dropped or answered; empty fields match everything.
func (c *Client) Drops(ctx context.Context, service, reason, iface string) (DropList, error) {
	return as[DropList](c)(c.raw.ListDrops(ctx, &ListDropsParams{Service: given(service), Reason: given(reason), Interface: given(iface)}))
}

// Capture copies a capture to w, until the daemon or the context ends it.
func (c *Client) Capture(ctx context.Context, q CaptureQuery, w io.Writer) (report CaptureReport, err error) {
	p := &CapturePacketsParams{
		Service: q.Services, Point: given(q.Point), Reason: given(q.Reason), Interface: given(q.Interface),
		Count: given(q.Count), Snaplen: given(q.Snaplen), Rate: given(q.Rate),
	}
	if q.Duration > 0 {
		p.Duration = new(q.Duration.String())
	}
	answer, err := c.raw.CapturePackets(ctx, p)
	if err := c.check(answer, err); err != nil {
		return report, err
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(w, answer.Body); err != nil {
		return report, fmt.Errorf("capture packets: %w", err)
	}
	for name, n := range map[string]*uint64{writtenTrailer: &report.Written, limitedTrailer: &report.Limited, lostTrailer: &report.Lost} {
		*n, _ = strconv.ParseUint(answer.Trailer.Get(name), 10, 64) // 0 if the daemon has died
	}
	var problem Problem
	if text := answer.Trailer.Get(problemTrailer); text != "" && json.Unmarshal([]byte(text), &problem) == nil {
		return report, &problem
	}
	return report, nil
}
