package main

import (
	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func reloadCommand() *cli.Command {
	return &cli.Command{
		Name: "reload", Usage: "have the daemon read its configuration file again and apply it",
		Description: examples("As SIGHUP does. A file with errors, or one that removes too much, changes nothing.\n"+
			"Certificates and tokens of the API need no reload: the daemon sees them change.",
			"shunt reload", "shunt reload --force --why 'fewer servers'"),
		Flags: changeFlags(
			&cli.BoolFlag{Name: "force", Usage: "remove a larger share of services or servers than the daemon's removal-limit"}),
		Action: asking(func(c *cli.Context, client *api.Client) error {
			outcome, err := client.Reload(c.Context, terms(c))
			if err != nil {
				return err
			}
			if err := printSteps(c, outcome.Steps); err != nil {
				return err
			}
			return write(c.App.Writer, []byte(outcomeText(outcome)))
		}),
	}
}
