package main

import (
	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// killConnections removes what the flags select. What is cut goes to what is
// written and to nothing else: the daemon reads the service, as it does for any
// change.
func killConnections(c *cli.Context, client *api.Client) error {
	query := api.ConnectionQuery{
		Service: c.String("service"), Server: c.String("server"), Client: c.String("client"), Kind: c.String("kind"),
		State: c.String("state"),
	}
	for _, name := range []string{"service", "server", "client", "kind", "state"} { // an empty variable of a script
		if c.IsSet(name) && c.String(name) == "" {
			return usage(c, "--%s is empty: leave it out, if all are meant", name)
		}
	}
	if query == (api.ConnectionQuery{}) {
		return usage(c, "say which: --service, --server, --client, --kind or --state")
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
		killed, err := client.KillConnections(c.Context, query)
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
