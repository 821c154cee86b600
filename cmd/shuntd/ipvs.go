package main

import (
	"context"
	"fmt"
	"log/slog"

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
func openIPVS(ctx context.Context, _ config.Settings, log *slog.Logger) (dataplane, error) {
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
