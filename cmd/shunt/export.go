package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
)

func exportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "print what is desired as a file that `shunt apply` takes back",
		Description: examples("Nothing is lost on the way there and back. Drains are orders and not part of it: the daemon that\n"+
			"has them keeps them; where the file is applied anew, it names in comments the servers that get\n"+
			"clients again. The section director of the daemon's own file is not part of it, but for the\n"+
			"timeouts and sync daemons.",
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
		return printConfiguration(c, r.Configuration, r.Number, r.Drained)
	}
	configuration, number, err := client.Configuration(c.Context)
	if err != nil {
		return err
	}
	drains, err := client.Drains(c.Context)
	if err != nil {
		return err
	}
	var drained []api.DrainedServer
	for _, d := range drains {
		drained = append(drained, api.DrainedServer{Service: d.Service, Server: d.Server, Since: d.Since})
	}
	return printConfiguration(c, configuration, number, drained)
}

// drainNotes says which drains a configuration does not have.
func drainNotes(drained []api.DrainedServer) []string {
	if len(drained) == 0 {
		return nil
	}
	notes := []string{"Drains are orders and not in it. Applied to a daemon that does not have them, these servers get clients:"}
	for _, d := range drained {
		notes = append(notes, fmt.Sprintf("  %s of %s, drained since %s", d.Server, d.Service, d.Since.UTC().Format(time.RFC3339)))
	}
	return notes
}

// printConfiguration prints it as a file, with the drains that it does not have in
// comments; or as the API has it, without comments: they go to the standard error.
func printConfiguration(c *cli.Context, configuration api.Configuration, number uint64, drained []api.DrainedServer) error {
	notes := drainNotes(drained)
	if c.String("output") == formatJSON {
		for _, note := range notes {
			if err := write(c.App.ErrWriter, []byte(note+"\n")); err != nil {
				return err
			}
		}
		return printJSON(c.App.Writer, configuration)
	}
	state, err := configuration.State()
	if err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	text, err := config.Format(state, append([]string{fmt.Sprintf("Revision %d of what Shunt desires.", number)}, notes...)...)
	if err != nil {
		return err
	}
	return write(c.App.Writer, text)
}
