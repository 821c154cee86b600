package main

import (
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func statsCommand() *cli.Command {
	return &cli.Command{
		Name: "stats", Usage: "count connections, packets and bytes by service and server", ArgsUsage: "[SERVICE]",
		Description: "Totals since the service or server was added. A service's include those of servers\n" +
			"removed since. Packets out are seen with method nat only.",
		Flags: []cli.Flag{outputFlag()}, Action: showStats,
	}
}

func showStats(c *cli.Context) error {
	args, err := arguments(c, "[SERVICE]")
	if err != nil {
		return err
	}
	stats, err := client(c).Stats(c.Context)
	if err != nil {
		return err
	}
	if ref := args[0]; ref != "" {
		service, err := client(c).Service(c.Context, ref)
		if err != nil {
			return err
		}
		stats.Services = slices.DeleteFunc(stats.Services, func(s api.ServiceStats) bool { return s.Listen != service.Listen })
	}
	return output(c, stats.Services, func(w io.Writer) {
		row(w, "SERVICE", "NAME/SERVER", "CONNS", "IN-PACKETS", "IN-BYTES", "OUT-PACKETS", "OUT-BYTES")
		for _, s := range stats.Services {
			countersRow(w, s.Listen, s.Name, s.Counters)
			for _, server := range s.Servers {
				countersRow(w, "  ->", server.Address, server.Counters)
			}
		}
	})
}

func countersRow(w io.Writer, service, server string, n api.Counters) {
	row(w, service, server, n.Connections, n.In.Packets, n.In.Bytes, n.Out.Packets, n.Out.Bytes)
}
