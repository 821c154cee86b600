package main

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/api"
)

// sortedRows is how many connections are held to sort them and to fit the
// columns; a longer table follows as it comes.
const sortedRows = 10_000

// outBuffer is how much of a list is written at once.
const outBuffer = 64 << 10

func connListCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list connections, and templates of persistence",
		Description: examples("Up to 10000 are sorted by client; more come in the order of the table. A state with * is\n"+
			"unproven (no handshake or reply yet): it gives way when the table is full. A template's client is\n"+
			"a network, and its state how many connections it has; of a persistence engine, what it found in\n"+
			"the packets stands at the end. To --state a template is in NONE, or ASSURED. Packets and bytes are\n"+
			"to the server and back, where connections are counted one by one. jsonl is an object a line. With\n"+
			"--limit the standard error says what --cursor goes on with.",
			"shunt conn list --service web --client 198.51.100.0/24",
			"shunt conn list --kind template",
			"shunt conn list --server 10.0.0.11:8080 --idle '>10m'",
			"shunt conn list --state established --limit 20",
			"shunt conn list -o jsonl | jq -r .client"),
		Flags: append(connectionFlags(),
			&cli.Uint64Flag{Name: "limit", Usage: "at most `N`; 0: all"},
			&cli.StringFlag{Name: "cursor", Usage: "go on from the `CURSOR` of the part before"},
			outputFlagOf(formatTable, formatJSON, formatYAML, formatJSONL), watchFlag(),
		),
		Action: reading(asking(listConnections)),
	}
}

func listConnections(c *cli.Context, client *api.Client) error {
	query, err := connectionQuery(c, client)
	if err != nil {
		return err
	}
	query.Limit, query.Cursor = c.Uint64("limit"), c.String("cursor")
	format := c.String("output")
	ask := client.ListConnections
	if format == formatJSON || format == formatJSONL { // as the daemon writes it
		ask = client.ListConnectionLines
	}
	list, err := ask(c.Context, query)
	if err != nil {
		return err
	}
	defer list.Close()
	w := bufio.NewWriterSize(c.App.Writer, outBuffer)
	switch format {
	case formatJSON:
		err = connectionsJSON(w, list.Lines())
	case formatJSONL:
		err = connectionsJSONL(w, list.Lines())
	case formatYAML:
		err = connectionsYAML(w, list.Models())
	default:
		err = connectionsTable(w, list)
	}
	if err != nil {
		_ = w.Flush() // what came before the error is true all the same
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if list.Next() != "" {
		fmt.Fprintf(c.App.ErrWriter, "shunt: there are more: --cursor %s\n", list.Next())
	}
	return nil
}

// connectionsJSONL prints the daemon's own lines, each as it came.
func connectionsJSONL(w *bufio.Writer, lines iter.Seq2[[]byte, error]) error {
	for line, err := range lines {
		if err != nil {
			return err
		}
		_, _ = w.Write(line) // an error stays until Flush
		if err := w.WriteByte('\n'); err != nil {
			return err
		}
	}
	return nil
}

// connectionsJSON prints an array as the connections come, one a line.
func connectionsJSON(w *bufio.Writer, lines iter.Seq2[[]byte, error]) error {
	before := "["
	for line, err := range lines {
		if err != nil {
			return err
		}
		_, _ = w.WriteString(before + "\n  ") // an error stays until Flush
		if _, err := w.Write(line); err != nil {
			return err
		}
		before = ","
	}
	if before == "[" {
		fmt.Fprint(w, "[")
	} else {
		fmt.Fprintln(w)
	}
	_, err := fmt.Fprintln(w, "]")
	return err
}

func connectionsYAML(w io.Writer, connections iter.Seq2[api.Connection, error]) error {
	some := false
	for c, err := range connections {
		if err != nil {
			return err
		}
		text, err := toYAML([]api.Connection{c})
		if err != nil {
			return fmt.Errorf("print as yaml: %w", err)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		some = true
	}
	if !some {
		fmt.Fprintln(w, "[]")
	}
	return nil
}

// connectionsTable holds the first rows to sort them and to fit the columns to
// them; the rest follows in the same columns.
func connectionsTable(w io.Writer, list *api.ConnectionList) error {
	var held []conntrack.Connection
	var rows *connectionRows // once they are no more held
	for c, err := range list.All() {
		if err != nil {
			return err
		}
		if rows != nil {
			if err := rows.print(w, c); err != nil {
				return err
			}
			continue
		}
		one := *c
		if c.Traffic != nil {
			one.Traffic = new(*c.Traffic)
		}
		if held = append(held, one); len(held) == sortedRows {
			rows = &connectionRows{timed: list.IsTimed()}
			if err := rows.printAll(w, held); err != nil {
				return err
			}
		}
	}
	if rows != nil {
		return nil
	}
	slices.SortFunc(held, compareConnections)
	rows = &connectionRows{timed: list.IsTimed()}
	return rows.printAll(w, held)
}
