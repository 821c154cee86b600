package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func statsCommand() *cli.Command {
	return &cli.Command{
		Name: "stats", Usage: "count connections, packets and bytes by service and server", ArgsUsage: "[SERVICE]",
		Description: examples("Totals since the service or server was added. A service's include those of servers\n"+
			"removed since. Packets out are seen with method nat only.",
			"shunt stats", "shunt stats web --watch"),
		Flags: readFlags(), Action: reading(asking(showStats)),
	}
}

func showStats(c *cli.Context, client *api.Client) error {
	stats, err := client.Stats(c.Context)
	if err != nil {
		return err
	}
	if ref := c.Args().Get(0); ref != "" {
		listen, err := listenOf(c, client, ref)
		if err != nil {
			return err
		}
		stats.Services = slices.DeleteFunc(stats.Services, func(s api.ServiceStats) bool { return s.Listen != listen })
	}
	return output(c, stats.Services, func(t *table) {
		t.row("SERVICE", "NAME/SERVER", "CONNS", "IN-PACKETS", "IN-BYTES", "OUT-PACKETS", "OUT-BYTES")
		for _, s := range stats.Services {
			countersRow(t, s.Listen, s.Name, s.Counters)
			for _, server := range s.Servers {
				countersRow(t, "  ->", server.Address, server.Counters)
			}
		}
	})
}

func countersRow(t *table, service, server string, n api.Counters) {
	t.row(service, server, n.Connections, n.In.Packets, n.In.Bytes, n.Out.Packets, n.Out.Bytes)
}
