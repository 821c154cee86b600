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
			"averages as IPVS has them, brought up to date every two seconds. What limits refused, and what found no\n"+
			"room, is there if anything was; `shunt service show` has it by the limits' names. It is never set to zero.",
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
		refused := !rate && slices.ContainsFunc(stats.Services, func(s api.ServiceStats) bool { return s.Refused != nil })
		for _, name := range []string{"CONNS", "IN-PACKETS", "IN-BYTES", "OUT-PACKETS", "OUT-BYTES"} {
			if rate {
				name += "/S"
			}
			header = append(header, name)
		}
		if refused {
			header = append(header, "REFUSED")
		}
		t.row(header...)
		row := func(service, server string, counters api.Counters, rates api.Rates, more ...any) {
			if rate {
				counters = api.Counters(rates)
			}
			cells := []any{service, server, counters.Connections, counters.In.Packets, counters.In.Bytes, counters.Out.Packets, counters.Out.Bytes}
			t.row(append(cells, more...)...)
		}
		for _, s := range stats.Services {
			name := s.Name
			if s.Foreign {
				name = t.in(yellow, "(foreign)")
			}
			var own, none []any
			if refused {
				own, none = []any{refusedOf(s.Refused)}, []any{""}
			}
			row(s.Listen, name, s.Counters, s.Rates, own...)
			for _, server := range s.Servers {
				row("  ->", server.Address, server.Counters, server.Rates, none...)
			}
		}
	})
}
