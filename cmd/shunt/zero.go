package main

import (
	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func zeroCommand() *cli.Command {
	return &cli.Command{
		Name: "zero", Usage: "set the counters and rates of a service, or of all, to zero", ArgsUsage: "[SERVICE]",
		Description: examples("Those of its servers too. A foreign service is named by its URL, and is among all. What is\n"+
			"desired and what happens to packets stay as they are; `shunt stats` begins anew. What limits and guards\n"+
			"refused is not among the counters.",
			"shunt zero web", "shunt zero"),
		Action: asking(func(c *cli.Context, client *api.Client) error {
			ref := c.Args().Get(0)
			return exact(c, client, ref, "", func() error { return client.Zero(c.Context, ref) })
		}),
	}
}
