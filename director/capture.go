package director

import (
	"context"
	"io"
	"time"
)

// Capturer is a Dataplane that can show the packets themselves.
type Capturer interface {
	// Capture writes packets as pcapng to w until the context ends, or as many were
	// written, or for as long, as the request says; and returns what was. One w that is
	// slow loses packets, which is told in what is written. ErrBusy while another
	// capture is under way.
	Capture(ctx context.Context, request CaptureRequest, w io.Writer) (CaptureReport, error)
}

// CaptureRequest says which packets are to be shown.
type CaptureRequest struct {
	// Services are those whose packets are shown, both ways; none: all packets that come.
	Services []ServiceKey
	// Before and After are the points at which each is shown; neither: both.
	Before, After bool
	// Drops shows packets that were dropped or answered instead, of the first service
	// if there is one, for the reason and by the interface if these are named.
	Drops     bool
	Reason    string
	Interface string
	Count     uint64        // records to write; 0: no limit
	Duration  time.Duration // 0: no limit
	Snaplen   int           // octets of a packet; 0: all
	// Rate is how many packets a second are shown at most, of drops those of each
	// reason, service and interface; 0: DefaultCaptureRate.
	Rate int
}

// The limits of a capture.
const (
	DefaultCaptureRate = 1000
	MaxCaptureRate     = 100_000
	MaxCaptureSnaplen  = 16384
)

// CaptureReport is what a capture has come to.
type CaptureReport struct {
	Written uint64 // records: a packet has one before and one after
	Limited uint64 // packets that were left out, being beyond the rate
	Lost    uint64 // records that were lost, as the reader was too slow
}

// Capture shows packets: see Capturer.
func (d *Director) Capture(ctx context.Context, request CaptureRequest, w io.Writer) (CaptureReport, error) {
	c, ok := d.dp.(Capturer)
	if !ok {
		return CaptureReport{}, d.unsupported("capture packets", "tcpdump sees the packets of the host's stack")
	}
	return c.Capture(ctx, request, w)
}
