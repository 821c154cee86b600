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
		Description: examples("Nothing is lost on the way there and back. Drains, and orders by `shunt server set`, are not part of\n"+
			"it: the daemon that has them keeps them; for where the file is applied anew, it names in comments\n"+
			"the servers that they are about, those that agents registered too. The section director of the daemon's own file is not part of it, but for the\n"+
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
	number := c.Uint64("revision")
	if !c.IsSet("revision") {
		status, err := client.Status(c.Context)
		if err != nil {
			return err
		}
		number = status.Revision
	}
	r, err := client.Revision(c.Context, number)
	if err != nil {
		return err
	}
	return printConfiguration(c, r)
}

// overrideNotes says which orders a configuration does not have.
func overrideNotes(overridden []api.OverriddenServer) []string {
	if len(overridden) == 0 {
		return nil
	}
	notes := []string{"Orders (`shunt server set`) are not in it. Applied to a daemon that does not have them, checks decide on:"}
	for _, o := range overridden {
		notes = append(notes, fmt.Sprintf("  %s of %s, %s", o.Server, o.Service, overrideText(o.Override)))
	}
	return notes
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

// printConfiguration prints a revision's as a file, with the drains and orders that it does
// not have in comments; or as the API has it, without comments: they go to the standard error.
func printConfiguration(c *cli.Context, r api.Revision) error {
	notes := append(drainNotes(r.Drained), overrideNotes(r.Overridden)...)
	if c.String("output") == formatJSON {
		for _, note := range notes {
			if err := write(c.App.ErrWriter, []byte(note+"\n")); err != nil {
				return err
			}
		}
		return printJSON(c.App.Writer, r.Configuration)
	}
	state, err := r.Configuration.State()
	if err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	text, err := config.Format(state, append([]string{fmt.Sprintf("Revision %d of what Shunt desires.", r.Number)}, notes...)...)
	if err != nil {
		return err
	}
	return write(c.App.Writer, text)
}
