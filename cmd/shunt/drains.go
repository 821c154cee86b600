package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

func drainsCommand() *cli.Command {
	return &cli.Command{
		Name: "drains", Usage: "the servers that are being drained, and what they have left", ArgsUsage: "[SERVICE]",
		Description: examples("A drain is draining while connections are left, overdue if they are after its deadline, and\n"+
			"drained when none is; it stays until it is cancelled or its server removed, and that of a server\n"+
			"that an agent registered after its lease. UDP's connections\n"+
			"are counted apart, as of a few seconds ago: they end by their timeout alone. Templates keep\n"+
			"no drain from its end: none is followed.",
			"shunt drains", "shunt drains web --watch", "shunt drains -o json"),
		Flags: readFlags(), Action: reading(asking(listDrains)),
	}
}

func listDrains(c *cli.Context, client *api.Client) error {
	listen := ""
	if ref := c.Args().Get(0); ref != "" {
		var err error
		if listen, err = listenOf(c, client, ref); err != nil {
			return err
		}
	}
	all, err := client.Drains(c.Context)
	if err != nil {
		return err
	}
	drains := []api.DrainStatus{}
	for _, d := range all {
		if listen == "" || d.Service == listen {
			drains = append(drains, d)
		}
	}
	return output(c, drains, func(t *table) {
		t.row("SERVICE", "NAME", "SERVER", "PHASE", "ACTIVE", "INACTIVE", "UDP", "TEMPLATES", "SINCE", "DEADLINE", "KILL")
		for _, d := range drains {
			deadline, kill := "", ""
			if d.Deadline != nil {
				deadline = d.Deadline.Local().Format(time.RFC3339)
			}
			if d.Kill {
				kill = "yes"
			}
			t.row(d.Service, d.Name, d.Server, t.in(phaseColor(d.Phase), d.Phase), d.Active, d.Inactive, d.UDP, d.Templates,
				d.Since.Local().Format(time.RFC3339), deadline, kill)
		}
	})
}

func phaseColor(phase string) color {
	switch director.DrainPhase(phase) {
	case director.PhaseDrained:
		return green
	case director.PhaseOverdue:
		return red
	default:
		return yellow
	}
}
