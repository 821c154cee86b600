package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
)

func exportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "print what is desired as a file that `shunt apply` takes back",
		Description: examples("Nothing is lost on the way there and back. The section director of the daemon's own file is not\n"+
			"part of it, but for the timeouts.",
			"shunt export > shunt.yaml", "shunt export --revision 41 > before.yaml", "shunt export -o json"),
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "revision", Usage: "that of revision `N` instead of the newest"},
			&cli.StringFlag{
				Name: "output", Aliases: []string{"o"}, Value: formatYAML,
				Usage: "`FORMAT`: yaml, the configuration file's, or json, the API's",
				Action: func(c *cli.Context, format string) error {
					if format != formatYAML && format != formatJSON {
						return usage(c, "unknown output format %q: want yaml or json", format)
					}
					return nil
				},
			},
			watchFlag(),
		},
		Action: reading(asking(export)),
	}
}

func export(c *cli.Context, client *api.Client) error {
	if c.IsSet("revision") {
		r, err := client.Revision(c.Context, c.Uint64("revision"))
		if err != nil {
			return err
		}
		return printConfiguration(c, r.Configuration, r.Number)
	}
	configuration, number, err := client.Configuration(c.Context)
	if err != nil {
		return err
	}
	return printConfiguration(c, configuration, number)
}

// printConfiguration prints it as a file, or as the API has it.
func printConfiguration(c *cli.Context, configuration api.Configuration, number uint64) error {
	if c.String("output") == formatJSON {
		return printJSON(c.App.Writer, configuration)
	}
	state, err := configuration.State()
	if err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	text, err := config.Format(state, fmt.Sprintf("Revision %d of what Shunt desires.", number))
	if err != nil {
		return err
	}
	return write(c.App.Writer, text)
}
