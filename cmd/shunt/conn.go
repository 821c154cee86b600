package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

func connCommand() *cli.Command {
	return &cli.Command{
		Name:        "conn",
		Usage:       "the connection table",
		Description: examples("", "shunt conn list --service web --limit 20", "shunt conn explain tcp://192.0.2.10:80 --from 198.51.100.7"),
		Subcommands: []*cli.Command{
			connListCommand(), connCountCommand(), connAgesCommand(), connTopCommand(), connWatchCommand(), connKillCommand(), connExplainCommand(),
			connDumpCommand(), connLoadCommand(), connResizeCommand(), connCheckCommand(),
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
		spanFlag("age", "only those that began so long ago: `SPAN` is >1h, <10s or 1h..6h"),
		spanFlag("idle", "only those without a packet for so long: `SPAN` is >1h, <10s or 1h..6h"),
	}
}

// spanFlag is a flag for an interval of time.
func spanFlag(name, usageText string) cli.Flag {
	return &cli.StringFlag{
		Name: name, Usage: usageText,
		Action: func(c *cli.Context, text string) error {
			if _, err := parseSpan(text); err != nil && text != "" {
				return usage(c, "--%s: %v", name, err)
			}
			return nil
		},
	}
}

// parseSpan reads >1h (that or more), <10s (less than that) or 1h..6h.
func parseSpan(text string) (director.Span, error) {
	var span director.Span
	least, below, both := strings.Cut(text, "..")
	if !both {
		least, below = "", ""
		if rest, ok := strings.CutPrefix(text, ">"); ok {
			least = rest
		} else if rest, ok := strings.CutPrefix(text, "<"); ok {
			below = rest
		} else {
			return span, fmt.Errorf("%q: want >1h, <10s or 1h..6h", text)
		}
	}
	for _, bound := range []struct {
		text  string
		given bool
		d     *time.Duration
	}{{least, both || least != "" || below == "", &span.AtLeast}, {below, both || below != "", &span.Below}} {
		if !bound.given {
			continue
		}
		d, err := time.ParseDuration(bound.text)
		if err != nil || d <= 0 {
			return span, fmt.Errorf("%q: %q is not a duration such as 90s or 15m", text, bound.text)
		}
		*bound.d = d
	}
	if both && span.Below <= span.AtLeast {
		return span, fmt.Errorf("%q: nothing is between %s and %s", text, span.AtLeast, span.Below)
	}
	return span, nil
}

// kinds are the values of --kind.
var kinds = []string{string(director.KindConnection), string(director.KindTemplate)}

// filterNames are the flags of connectionFlags.
var filterNames = []string{"service", "server", "client", "kind", "state", "age", "idle"}

// connectionQuery reads connectionFlags of a command that shows: a service may be
// the beginning of a name.
func connectionQuery(c *cli.Context, client *api.Client) (api.ConnectionQuery, error) {
	query := writtenQuery(c)
	if ref := query.Service; ref != "" && !strings.Contains(ref, "://") {
		var err error
		if query.Service, err = listenOf(c, client, ref); err != nil {
			return query, err
		}
	}
	return query, nil
}

// writtenQuery reads connectionFlags as they are written.
func writtenQuery(c *cli.Context) api.ConnectionQuery {
	age, _ := parseSpan(c.String("age")) // the flags' actions have refused what cannot be read
	idle, _ := parseSpan(c.String("idle"))
	return api.ConnectionQuery{
		Service: c.String("service"), Server: c.String("server"), Client: c.String("client"), Kind: c.String("kind"), State: c.String("state"),
		MinAge: age.AtLeast, MaxAge: age.Below, MinIdle: idle.AtLeast, MaxIdle: idle.Below,
	}
}
