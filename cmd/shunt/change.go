package main

import (
	"strings"

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
		whyFlag(),
		&cli.Uint64Flag{Name: flagIfRevision, Usage: "only if revision `N` is still the newest"},
	)
}

func whyFlag() cli.Flag {
	return &cli.StringFlag{
		Name: flagWhy, Aliases: []string{"m"}, Usage: "`TEXT` for the history that says why",
		Action: func(c *cli.Context, text string) error { // a header could not even carry some
			if err := api.CheckWhy(text); err != nil {
				return usage(c, "--%s: %v", flagWhy, err)
			}
			return nil
		},
	}
}

// terms are what the flags say of a change.
func terms(c *cli.Context) api.Terms {
	return api.Terms{Why: c.String(flagWhy), Revision: c.Uint64(flagIfRevision), Force: c.Bool("force")}
}

// losses are what goes with a server.
type losses struct{ connections, templates uint64 }

// lossesOf adds up what the servers have. Nobody misses the templates of one that
// is being drained: they are not used.
func lossesOf(servers ...api.Server) losses {
	var all losses
	for _, s := range servers {
		all.connections += s.Active + s.Inactive
		if !s.Draining {
			all.templates += s.Templates
		}
	}
	return all
}

// String lists what there is: "3 connections and 1 template"; "" if nothing.
func (l losses) String() string {
	var parts []string
	if l.connections > 0 {
		parts = append(parts, count(l.connections, "connection"))
	}
	if l.templates > 0 {
		parts = append(parts, count(l.templates, "template"))
	}
	return strings.Join(parts, " and ")
}

// sayCut says what a removal cut, if it did.
func sayCut(c *cli.Context, cut losses) error {
	if cut == (losses{}) {
		return nil
	}
	return write(c.App.Writer, []byte(cut.String()+" cut\n"))
}
