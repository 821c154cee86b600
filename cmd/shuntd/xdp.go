package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/xdp"
)

// xdpPlane is the XDP data plane as the daemon wants one.
type xdpPlane struct{ *xdp.Dataplane }

var _ dataplane = xdpPlane{}

// Detach removes all that is pinned, whatever of it is ours.
func (p xdpPlane) Detach(ctx context.Context, _ director.State) error { return p.Dataplane.Detach(ctx) }

// Tables says what the tables are sized for.
func (p xdpPlane) Tables() string {
	v4, v6 := p.MaxConnections()
	return describeTables(v4, v6, p.MemoryBytes())
}

func describeTables(v4, v6, memory uint64) string {
	return fmt.Sprintf("connection tables: %s IPv4, %s IPv6, %.1f MiB",
		config.FormatSize(v4), config.FormatSize(v6), float64(memory)/(1<<20))
}

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
		MaxSources:         s.Sources,
		CountConnections:   s.CountConnections,
		Echo:               s.Echo,
		TunnelSources:      s.TunnelSources,
		LocalAddresses:     s.LocalAddresses,
		LocalFirst:         s.LocalPorts.First,
		LocalLast:          s.LocalPorts.Last,
		Version:            version,
		Log:                log,
	})
	if err != nil {
		return nil, err
	}
	return xdpPlane{dp}, nil
}

// forwarding is what the status says of the settings that the XDP plane alone has;
// nil with another one.
func forwarding(s config.Settings) *api.Forwarding {
	if s.Dataplane != director.PlaneXDP {
		return nil
	}
	texts := func(prefixes []netip.Prefix) []string {
		all := make([]string, len(prefixes))
		for i, p := range prefixes {
			all[i] = p.String()
		}
		return all
	}
	return &api.Forwarding{
		Echo: string(s.Echo), TunnelSources: texts(s.TunnelSources), LocalAddresses: texts(s.LocalAddresses), LocalPorts: s.LocalPorts.String(),
	}
}
