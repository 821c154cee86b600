package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func statsCommand() *cli.Command {
	return &cli.Command{
		Name: "stats", Usage: "count connections, packets and bytes by service and server", ArgsUsage: "[SERVICE]",
		Description: examples("Totals since the service or server was added, or set to zero by `shunt zero`. A service's include\n"+
			"those of servers removed since. Packets out are seen with method nat only. Rates are moving\n"+
			"averages as IPVS has them, brought up to date every two seconds.",
			"shunt stats", "shunt stats web --watch", "shunt stats --rate"),
		Flags:  readFlags(&cli.BoolFlag{Name: "rate", Usage: "show what comes in a second instead"}),
		Action: reading(asking(showStats)),
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
		rate, header := c.Bool("rate"), []any{"SERVICE", "NAME/SERVER"}
		for _, name := range []string{"CONNS", "IN-PACKETS", "IN-BYTES", "OUT-PACKETS", "OUT-BYTES"} {
			if rate {
				name += "/S"
			}
			header = append(header, name)
		}
		t.row(header...)
		row := func(service, server string, counters api.Counters, rates api.Rates) {
			if rate {
				counters = api.Counters(rates)
			}
			t.row(service, server, counters.Connections, counters.In.Packets, counters.In.Bytes, counters.Out.Packets, counters.Out.Bytes)
		}
		for _, s := range stats.Services {
			name := s.Name
			if s.Foreign {
				name = t.in(yellow, "(foreign)")
			}
			row(s.Listen, name, s.Counters, s.Rates)
			for _, server := range s.Servers {
				row("  ->", server.Address, server.Counters, server.Rates)
			}
		}
	})
}
