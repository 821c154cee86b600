package main

import (
	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

func connKillCommand() *cli.Command {
	return &cli.Command{
		Name: "kill", Usage: "remove the connections and templates that match",
		Description: examples("Their packets are those of no connection from then on: TCP clients are reset, or have to begin\n"+
			"anew. With --reset TCP's stay in CLOSE until that ends, and the next packets reset both ends. At\n"+
			"least one flag says which; --client goes for the templates of networks that have such a\n"+
			"client as well: they may hold others to their server too. --state, --age and --idle go by what a\n"+
			"connection was when it was looked at, a moment before. A terminal is asked first.",
			"shunt conn kill --service web --server 10.0.0.11:8080",
			"shunt conn kill --client 198.51.100.7 --reset --yes",
			"shunt conn kill --service web --kind template",
			"shunt conn kill --service web --idle '>6h'"),
		Flags: append(connectionFlags(),
			&cli.BoolFlag{Name: "reset", Usage: "reset both ends of TCP connections"},
			yesFlag(),
		),
		Action: asking(killConnections),
	}
}

// killConnections removes what the flags select. What is cut goes to what is
// written and to nothing else: the daemon reads the service, as it does for any
// change.
func killConnections(c *cli.Context, client *api.Client) error {
	query := writtenQuery(c)
	for _, name := range filterNames { // an empty variable of a script
		if c.IsSet(name) && c.String(name) == "" {
			return usage(c, "--%s is empty: leave it out, if all are meant", name)
		}
	}
	if query == (api.ConnectionQuery{}) {
		return usage(c, "say which: --service, --server, --client, --kind, --state, --age or --idle")
	}
	return exact(c, client, query.Service, "", func() error {
		if !c.Bool("yes") && canAnswer(streamsOf(c)) {
			there, err := matching(c, client, query)
			if err != nil {
				return err
			}
			if there == (losses{}) {
				return sayKilled(c, query, 0)
			}
			if err := confirm(c, there.String(), losses{}); err != nil {
				return err
			}
		}
		kill := client.KillConnections
		if c.Bool("reset") {
			kill = client.ResetConnections
		}
		killed, err := kill(c.Context, query)
		if err != nil {
			return err
		}
		return sayKilled(c, query, killed)
	})
}

// matching counts what the query selects.
func matching(c *cli.Context, client *api.Client, query api.ConnectionQuery) (losses, error) {
	var all losses
	for _, f := range []struct {
		kind director.ConnectionKind
		n    *uint64
	}{{director.KindConnection, &all.connections}, {director.KindTemplate, &all.templates}} {
		if query.Kind != "" && query.Kind != string(f.kind) {
			continue
		}
		one := query
		one.Kind = string(f.kind)
		var err error
		if *f.n, err = client.CountConnections(c.Context, one); err != nil {
			return all, err
		}
	}
	return all, nil
}

func sayKilled(c *cli.Context, query api.ConnectionQuery, n uint64) error {
	text := count(n, "connection") + " killed, templates included\n"
	if query.Kind != "" {
		text = count(n, query.Kind) + " killed\n"
	}
	return write(c.App.Writer, []byte(text))
}
