package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func tokenCommand() *cli.Command {
	return &cli.Command{
		Name: "token", Usage: "tokens for the API over TLS",
		Description: examples("", "shunt token create --name deploy --role operator"),
		Subcommands: []*cli.Command{{
			Name: "create", Usage: "make a token and the line that lets it in",
			Description: examples("The token is shown this once: the line has only its hash. Put the line into the file that\n"+
				"api.tokens of the daemon's configuration names: it is valid within a second, and a line that\n"+
				"is taken out is not any more. No daemon is asked.",
				"shunt token create --name grafana --role viewer",
				"shunt token create --name deploy --role operator --expires 2160h",
				"shunt token create --name s1 --role agent --pool web --servers 10.1.2.0/24,2001:db8:1::/64"),
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "name", Usage: "`NAME` of who gets it, for the history"},
				&cli.StringFlag{Name: "role", Usage: "what it allows, `ROLE`: agent, viewer, operator or admin"},
				&cli.StringSliceFlag{Name: "pool", Usage: "a `POOL` that an agent registers itself in, by the token's name; may be given several times"},
				&cli.StringSliceFlag{Name: "servers", Usage: "a `PREFIX` that an agent's servers are in, or an address; may be given several times; any address unless given"},
				&cli.StringFlag{Name: "expires", Usage: "how long it is valid, a `DURATION` such as 720h; for ever unless given"},
				outputFlag(),
			},
			Action: createToken,
		}},
	}
}

// newToken is what `token create` prints.
type newToken struct {
	Name    string     `json:"name"`
	Role    string     `json:"role"`
	Token   string     `json:"token"`
	Expires *time.Time `json:"expires,omitempty"`
	Line    string     `json:"line"` // of the tokens file
}

func createToken(c *cli.Context) error {
	t := newToken{Name: c.String("name"), Role: c.String("role")}
	if t.Name == "" {
		return usage(c, "--name is required")
	}
	if strings.Join(strings.Fields(t.Name), "") != t.Name { // it would be several fields of the line
		return usage(c, "name %q: want no blanks", t.Name)
	}
	role, err := api.ParseRole(t.Role)
	if err != nil {
		return usage(c, "--role: %v", err)
	}
	var expires time.Time
	if c.IsSet("expires") {
		d, err := time.ParseDuration(c.String("expires"))
		if err != nil || d <= 0 {
			return usage(c, "--expires: %q is not a duration such as 720h", c.String("expires"))
		}
		expires = time.Now().Add(d).UTC().Truncate(time.Second)
		t.Expires = &expires
	}
	var hash string
	t.Token, hash = api.NewToken()
	terms := api.AgentTerms{Pools: c.StringSlice("pool"), Servers: c.StringSlice("servers")}
	if t.Line, err = api.TokenLine(t.Name, role, hash, expires, terms); err != nil {
		return usage(c, "%v", err)
	}
	return output(c, t, func(table *table) {
		table.row("token", t.Token)
		table.row("line for the tokens file", t.Line)
	})
}
