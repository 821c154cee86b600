package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/ipvs"
)

// ipvsPlane is the kernel's IPVS as the daemon wants a data plane.
type ipvsPlane struct{ *ipvs.Dataplane }

var _ dataplane = ipvsPlane{}

// IsNew is false: what a first start did, the director undid when it failed.
func (ipvsPlane) IsNew() bool { return false }

// Tables says whose they are: how many buckets the kernel has was logged when it was
// opened.
func (ipvsPlane) Tables() string { return "connection table: the kernel's, without a limit" }

// openIPVS is the opener of the kernel's IPVS. The kernel loads the modules by itself
// where it may: the daemon never does.
//
// Programs that an earlier run with XDP left are refused: they would go on taking
// the packets, and nothing that is changed here would reach a client.
func openIPVS(ctx context.Context, s config.Settings, log *slog.Logger) (dataplane, error) {
	if pins, err := os.ReadDir(s.PinDir); err == nil && len(pins) > 0 {
		return nil, usage("`shuntd detach --pin-dir "+s.PinDir+"` removes them and ends their connections; with the data plane xdp they go on",
			"the programs of the data plane xdp are in the kernel still (%s), and take the packets", s.PinDir)
	}
	dp, err := ipvs.Open(ctx, ipvs.Options{Log: log})
	if err != nil {
		return nil, err
	}
	return ipvsPlane{dp}, nil
}

// openPlane opens the data plane that the settings name.
func openPlane(ctx context.Context, s config.Settings, log *slog.Logger) (dataplane, error) {
	switch s.Dataplane {
	case director.PlaneXDP:
		return openXDP(ctx, s, log)
	case director.PlaneIPVS:
		return openIPVS(ctx, s, log)
	default:
		return nil, fmt.Errorf("data plane %q: %w", s.Dataplane, director.ErrUnsupported)
	}
}
