package main

import (
	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// The flags of every command that changes something.
const (
	flagWhy        = "why"
	flagIfRevision = "if-revision"
)

// changeFlags are on every command that changes something, behind its own.
func changeFlags(flags ...cli.Flag) []cli.Flag {
	return append(flags,
		&cli.StringFlag{
			Name: flagWhy, Aliases: []string{"m"}, Usage: "`TEXT` for the history that says why",
			Action: func(c *cli.Context, text string) error { // a header could not even carry some
				if err := api.CheckWhy(text); err != nil {
					return usage(c, "--%s: %v", flagWhy, err)
				}
				return nil
			},
		},
		&cli.Uint64Flag{Name: flagIfRevision, Usage: "only if revision `N` is still the newest"},
	)
}

// terms are what the flags say of a change.
func terms(c *cli.Context) api.Terms {
	return api.Terms{Why: c.String(flagWhy), Revision: c.Uint64(flagIfRevision), Force: c.Bool("force")}
}

// connectionsOf counts the connections of servers.
func connectionsOf(servers ...api.Server) uint64 {
	n := uint64(0)
	for _, s := range servers {
		n += s.Active + s.Inactive
	}
	return n
}

// sayCut says what a removal did to connections, if it did.
func sayCut(c *cli.Context, connections uint64) error {
	if connections == 0 {
		return nil
	}
	return write(c.App.Writer, []byte(count(connections, "connection")+" cut\n"))
}
