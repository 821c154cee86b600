package kernel

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// The drivers' names.
const (
	DriverGenetlink = "genetlink"
	DriverLibipvs   = "libipvs"
)

// Options say how a driver is opened.
type Options struct {
	// Driver is a driver's name; empty for libipvs where it is built in, linux on
	// amd64, else genetlink.
	Driver string
	// CallLimit is how long a call of libipvs may take before that is given up for
	// good and the driver goes on by generic netlink alone; 0 for 10 seconds.
	CallLimit time.Duration
	// Log is told when libipvs is given up; nil for nobody.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Driver == "" {
		o.Driver = DriverGenetlink
		if hasLibipvs {
			o.Driver = DriverLibipvs
		}
	}
	if o.CallLimit == 0 {
		o.CallLimit = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Open opens a driver in the calling thread's network namespace. The error is
// ErrNotLoaded where the kernel has no IPVS.
func Open(ctx context.Context, o Options) (Driver, error) {
	o = o.withDefaults()
	switch {
	case o.Driver == DriverGenetlink:
		return OpenGenetlink(ctx)
	case o.Driver == DriverLibipvs && hasLibipvs:
		return openLibipvs(ctx, o)
	case o.Driver == DriverLibipvs:
		return nil, fmt.Errorf("open IPVS: this program was built without libipvs, which is for amd64: want %s", DriverGenetlink)
	default:
		return nil, fmt.Errorf("open IPVS: unknown driver %q: want %s or %s", o.Driver, DriverLibipvs, DriverGenetlink)
	}
}
