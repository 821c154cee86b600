package main

import (
	"context"
	"log/slog"

	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/xdp"
)

var _ dataplane = (*xdp.Dataplane)(nil)

// openXDP is the opener of the XDP data plane.
func openXDP(ctx context.Context, s config.Settings, log *slog.Logger) (dataplane, error) {
	dp, err := xdp.Open(ctx, xdp.Options{
		Interfaces:         s.Interfaces,
		Generic:            s.Generic(),
		PinDir:             s.PinDir,
		MaxConnections:     s.MaxConnections,
		MaxConnectionsIPv6: s.MaxConnections6,
		MidstreamReset:     s.Midstream == "reset",
		ICMPRate:           s.ICMPRate,
		MaxServices:        s.Limits.Services,
		MaxServers:         s.Limits.Servers,
		SchedulerWords:     s.Limits.SchedulerWords,
		MaxAccessPrefixes:  s.Limits.AccessPrefixes,
		Log:                log,
	})
	if err != nil {
		return nil, err // not dp: a nil *xdp.Dataplane is not a nil interface
	}
	return dp, nil
}
