package main

import (
	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func dropsCommand() *cli.Command {
	return &cli.Command{
		Name: "drops", Usage: "packets that were dropped, passed on or answered, by reason",
		Description: examples("", "shunt drops", "shunt drops --all", "shunt drops --watch"),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "reasons with no packet too"},
			outputFlag(), watchFlag(),
		},
		Action: reading(asking(listDrops)),
	}
}

func listDrops(c *cli.Context, client *api.Client) error {
	stats, err := client.Stats(c.Context)
	if err != nil {
		return err
	}
	events := []api.PacketEvent{}
	for _, e := range stats.PacketEvents {
		if e.Count > 0 || c.Bool("all") {
			events = append(events, e)
		}
	}
	return output(c, events, func(t *table) {
		if len(stats.PacketEvents) == 0 {
			t.row("this data plane does not count packets by reason")
			return
		}
		if len(events) == 0 {
			t.row("nothing counted yet; -a lists what can be")
			return
		}
		t.row("NAME", "KIND", "COUNT", "MEANING")
		for _, e := range events {
			t.row(e.Name, e.Kind, e.Count, e.Help)
		}
	})
}
