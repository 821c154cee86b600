package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// sortedRows is how many connections are held to sort them and to fit the
// columns; a longer table follows as it comes.
const sortedRows = 10_000

func connCommand() *cli.Command {
	return &cli.Command{
		Name:        "conn",
		Usage:       "the connection table",
		Description: examples("", "shunt conn list --service web --limit 20", "shunt conn explain tcp://192.0.2.10:80 --from 198.51.100.7"),
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list connections, and templates of persistence",
				Description: examples("Up to 10000 are sorted by client; more come in the order of the table. A state with * is\n"+
					"unproven (no handshake or reply yet): it gives way when the table is full. A template's client is\n"+
					"a network, and its state how many connections it has; of a persistence engine, what it found in\n"+
					"the packets stands at the end. To --state and --by a template is in NONE, or ASSURED.",
					"shunt conn list --service web --client 198.51.100.0/24",
					"shunt conn list --kind template",
					"shunt conn list --server 10.0.0.11:8080 --count --watch",
					"shunt conn list --state established --limit 20",
					"shunt conn list --service web --count --by state"),
				Flags: append(connectionFlags(),
					&cli.Uint64Flag{Name: "limit", Usage: "at most `N`; 0: all"},
					&cli.BoolFlag{Name: "count", Usage: "print only how many there are"},
					&cli.StringFlag{
						Name: "by", Usage: "count the parts by what they have in common, `WHAT`: state",
						Action: func(c *cli.Context, by string) error {
							if !slices.Contains(countedBy, by) {
								return usage(c, "unknown --by %q: want %s", by, alternatives(countedBy))
							}
							return nil
						},
					},
					outputFlag(), watchFlag(),
				),
				Action: reading(asking(listConnections)),
			},
			{
				Name: "kill", Usage: "remove the connections and templates that match",
				Description: examples("Their packets are those of no connection from then on: TCP clients are reset, or have to begin\n"+
					"anew. At least one flag says which; --client goes for the templates of networks that have such a\n"+
					"client as well: they may hold others to their server too. --state goes by what a connection was in\n"+
					"when it was looked at, a moment before. A terminal is asked first.",
					"shunt conn kill --service web --server 10.0.0.11:8080",
					"shunt conn kill --client 198.51.100.7 --yes",
					"shunt conn kill --service web --kind template",
					"shunt conn kill --service web --state SYN_RECV"),
				Flags: append(connectionFlags(), yesFlag()), Action: asking(killConnections),
			},
			{
				Name: "explain", Usage: "say which server a client would get, and why", ArgsUsage: "SERVICE",
				Description: examples("The data plane decides as it would on the client's first packet to the address, and changes\n"+
					"nothing. SERVICE is the URL of the address and port that the client sends to, or the name of a\n"+
					"service that has only one. Without a port in --from one is drawn that has no connection: the\n"+
					"schedulers that look at it may answer otherwise for another.",
					"shunt conn explain tcp://192.0.2.10:80 --from 198.51.100.7:40000",
					"shunt conn explain web --from 198.51.100.7 -o json"),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "from", Usage: "the client, `ADDRESS[:PORT]`"},
					outputFlag(), watchFlag(),
				},
				Action: reading(asking(explain)),
			},
		},
	}
}

// connectionFlags say which connections are meant.
func connectionFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "service", Usage: "only those of `SERVICE`"},
		&cli.StringFlag{Name: "server", Usage: "only those paired with `ADDRESS:PORT`"},
		&cli.StringFlag{Name: "client", Usage: "only those of the client `ADDRESS` or prefix, and templates that may be"},
		&cli.StringFlag{
			Name: "kind", Usage: "only those of the `KIND`: connection or template",
			Action: func(c *cli.Context, kind string) error {
				if !slices.Contains(kinds, kind) {
					return usage(c, "unknown --kind %q: want %s", kind, alternatives(kinds))
				}
				return nil
			},
		},
		&cli.StringFlag{
			Name: "state", Usage: "only those in the `STATE`, as the list has it, in any case",
			Action: func(c *cli.Context, state string) error {
				if _, err := conntrack.ParseState(state); err != nil && state != "" {
					return usage(c, "--state: %v", err)
				}
				return nil
			},
		},
	}
}

// kinds are the values of --kind, countedBy those of --by.
var (
	kinds     = []string{string(director.KindConnection), string(director.KindTemplate)}
	countedBy = []string{"state"}
)

// connectionQuery reads connectionFlags of a command that shows: a service may be
// the beginning of a name.
func connectionQuery(c *cli.Context, client *api.Client) (api.ConnectionQuery, error) {
	query := api.ConnectionQuery{
		Service: c.String("service"), Server: c.String("server"), Client: c.String("client"), Kind: c.String("kind"),
		State: c.String("state"),
	}
	if ref := query.Service; ref != "" && !strings.Contains(ref, "://") {
		var err error
		if query.Service, err = listenOf(c, client, ref); err != nil {
			return query, err
		}
	}
	return query, nil
}

func listConnections(c *cli.Context, client *api.Client) error {
	if c.Bool("count") && c.Uint64("limit") > 0 {
		return usage(c, "--count and --limit exclude each other")
	}
	if c.IsSet("by") && !c.Bool("count") {
		return usage(c, "--by goes with --count")
	}
	query, err := connectionQuery(c, client)
	if err != nil {
		return err
	}
	query.Limit = c.Uint64("limit")
	if c.Bool("count") {
		return countConnections(c, client, query)
	}
	connections := client.Connections(c.Context, query)
	w := bufio.NewWriter(c.App.Writer)
	switch c.String("output") {
	case formatJSON:
		err = connectionsJSON(w, connections)
	case formatYAML:
		err = connectionsYAML(w, connections)
	default:
		err = connectionsTable(w, connections)
	}
	if err != nil {
		_ = w.Flush() // what came before the error is true all the same
		return err
	}
	return w.Flush()
}

func countConnections(c *cli.Context, client *api.Client, query api.ConnectionQuery) error {
	by := c.String("by")
	count, err := client.CountConnectionsBy(c.Context, query, by)
	if err != nil {
		return err
	}
	return output(c, count, func(t *table) {
		if by == "" {
			t.row(count.Count)
			return
		}
		t.row(strings.ToUpper(by), "COUNT")
		for _, group := range count.Groups {
			t.row(group.Name, group.Count)
		}
	})
}

// connectionsJSON prints an array as the connections come, one a line.
func connectionsJSON(w io.Writer, connections iter.Seq2[api.Connection, error]) error {
	before := "["
	for c, err := range connections {
		if err != nil {
			return err
		}
		text, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("print as json: %w", err)
		}
		fmt.Fprintf(w, "%s\n  %s", before, text)
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
func connectionsTable(w io.Writer, connections iter.Seq2[api.Connection, error]) error {
	next, stop := iter.Pull2(connections)
	defer stop()
	var held []api.Connection
	for len(held) < sortedRows {
		c, err, ok := next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		held = append(held, c)
	}
	if len(held) < sortedRows {
		slices.SortFunc(held, compareConnections)
	}
	header := []string{"PROTO", "EXPIRES", "STATE", "CLIENT", "VIRTUAL", "SERVER", "METHOD"}
	widths := fit(nil, header)
	for _, c := range held {
		widths = fit(widths, connectionCells(c))
	}
	fmt.Fprint(w, line(widths, header))
	for _, c := range held {
		fmt.Fprint(w, line(widths, connectionCells(c)))
	}
	for {
		c, err, ok := next()
		if err != nil || !ok {
			return err
		}
		fmt.Fprint(w, line(widths, connectionCells(c)))
	}
}

// connectionCells are the cells of a connection; those of a template say for
// which network and how many connections it is.
func connectionCells(c api.Connection) []string {
	state, client := c.State, c.Client
	if c.Template {
		client = clientNetwork(c)
		state = "TEMPLATE"
		if c.Controlled != nil {
			state += fmt.Sprintf(" of %d", *c.Controlled)
		}
	}
	if !c.Proven {
		state += "*"
	}
	protocol, virtual := c.Protocol, c.Virtual
	if c.Mark != 0 { // of whatever protocol, wherever it goes
		protocol, virtual = "-", markURL(c)
	}
	cells := []string{protocol, minutes(c.Expires), state, client, virtual, c.Server, c.Method}
	if c.Engine != "" {
		cells = append(cells, c.Engine+" "+strconv.Quote(c.EngineData)) // what clients send
	}
	return cells
}

// markURL is the URL of the service of the connection's mark.
func markURL(c api.Connection) string {
	virtual, err := netip.ParseAddrPort(c.Virtual)
	if err != nil {
		return c.Virtual
	}
	return director.ServiceKey{Mark: c.Mark, Address: virtual}.String()
}

// clientNetwork is the network that a template is for.
func clientNetwork(c api.Connection) string {
	client, err := netip.ParseAddrPort(c.Client)
	if err != nil || c.Prefix == nil {
		return c.Client
	}
	return netip.PrefixFrom(client.Addr(), int(*c.Prefix)).String()
}

// compareConnections orders by client, virtual address and protocol.
func compareConnections(a, b api.Connection) int {
	return cmp.Or(compareAddress(a.Client, b.Client), compareAddress(a.Virtual, b.Virtual), cmp.Compare(a.Protocol, b.Protocol))
}

func compareAddress(a, b string) int {
	x, errX := netip.ParseAddrPort(a)
	y, errY := netip.ParseAddrPort(b)
	if errX != nil || errY != nil {
		return strings.Compare(a, b)
	}
	return x.Compare(y)
}
