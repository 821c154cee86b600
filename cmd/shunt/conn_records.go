package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func connDumpCommand() *cli.Command {
	return &cli.Command{
		Name: "dump", Usage: "write connections as records for another director",
		Description: examples("The records are binary, with a version and checksums, and have all that another director needs to\n"+
			"go on with the connections: `shunt conn load` reads them. A FILE is replaced as a whole.",
			"shunt conn dump -f connections.shunt",
			"shunt conn dump --service web | ssh standby shunt conn load"),
		Flags: append(connectionFlags(),
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "write to `FILE`; -, or without the flag: to the standard output"},
		),
		Action: asking(dumpConnections),
	}
}

func dumpConnections(c *cli.Context, client *api.Client) error {
	name := c.String("file")
	if c.IsSet("file") && name == "" {
		return usage(c, "--file is empty")
	}
	query, err := connectionQuery(c, client)
	if err != nil {
		return err
	}
	if name != "" && name != standardInput {
		if err := dumpFile(c, client, query, name); err != nil {
			return fmt.Errorf("dump connections to %s: %w", name, err)
		}
		return nil
	}
	if isTerminal(streamsOf(c).out) {
		return usage(c, "a terminal cannot show the records: -f FILE is missing, or a pipe")
	}
	w := bufio.NewWriterSize(c.App.Writer, outBuffer)
	if err := client.DumpConnections(c.Context, query, w); err != nil {
		_ = w.Flush() // whoever reads it sees that it has no end
		return err
	}
	return w.Flush()
}

// dumpFile writes the file aside, and puts it in its place when it is whole.
func dumpFile(c *cli.Context, client *api.Client, query api.ConnectionQuery, name string) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".") // 0600: it says who is connected
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name()) // nothing is there once it was renamed
	}()
	if err := client.DumpConnections(c.Context, query, f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func connLoadCommand() *cli.Command {
	return &cli.Command{
		Name: "load", Usage: "make the connections of a dump this director's own",
		Description: examples("Services and servers must be here under the same addresses; what is skipped is said with the\n"+
			"reason, and the exit code is 1 then. Connections that are here already stay as they are.",
			"shunt conn load -f connections.shunt",
			"shunt conn load -f connections.shunt -o json"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "read `FILE`; -, or without the flag: the standard input"},
			outputFlag(),
		},
		Action: asking(loadConnections),
	}
}

func loadConnections(c *cli.Context, client *api.Client) error {
	name := c.String("file")
	if c.IsSet("file") && name == "" {
		return usage(c, "--file is empty")
	}
	from, where := io.NopCloser(streamsOf(c).in), "the standard input"
	if name != "" && name != standardInput {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("load connections: %w", err)
		}
		from, where = f, name
	} else if isTerminal(streamsOf(c).in) {
		return usage(c, "-f FILE is missing, or a pipe")
	}
	report, err := interruptible(c, where, func() (api.LoadReport, error) {
		defer from.Close()
		return client.LoadConnections(c.Context, from)
	})
	if err != nil {
		return err
	}
	if err := output(c, report, func(t *table) { loadTable(t, report) }); err != nil {
		return err
	}
	if report.Failure != "" {
		return fmt.Errorf("conn load: it broke off: %s", report.Failure)
	}
	if len(report.Skipped) > 0 {
		return exitStatus(exitFailed)
	}
	return nil
}

func loadTable(t *table, report api.LoadReport) {
	t.row("loaded", report.Loaded)
	t.row("known already", report.Known)
	var reasons []string
	for reason := range report.Skipped {
		reasons = append(reasons, reason)
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		t.row(t.in(yellow, "skipped: "+reason), report.Skipped[reason])
	}
}
