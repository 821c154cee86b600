package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// stateAuto leaves a server to its checks.
const stateAuto = "auto"

func setCommand() *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "have a server up or down whatever its checks say", ArgsUsage: "SERVICE ADDRESS[:PORT]",
		Description: examples("auto leaves it to its checks again, and so does the end of --for. A server that is down gets no new\n"+
			"connections. The order outlives the daemon, and neither apply nor rollback ends it: `shunt health`\n"+
			"and `shunt server list` show it. `shunt server drain` is for servers that are to be taken out.",
			"shunt server set web 10.0.0.11:8080 --state down --for 2h --why 'new disk'",
			"shunt server set web 10.0.0.11:8080 --state auto"),
		Flags: changeFlags(
			&cli.StringFlag{Name: "state", Usage: "`STATE` that it has: up, down, or auto for what its checks say"},
			&cli.StringFlag{Name: "for", Usage: "the order ends in `DURATION` such as 2h (default: never)"},
		),
		Action: asking(setServer),
	}
}

func setServer(c *cli.Context, client *api.Client) error {
	order := api.OverrideOrder{State: c.String("state")}
	switch order.State {
	case api.StateUp, api.StateDown:
	case stateAuto:
		if c.IsSet("for") {
			return usage(c, "--state auto takes effect at once, and has no end: it goes without --for")
		}
	case "":
		return usage(c, "--state is required: up, down or auto")
	default:
		return usage(c, "unknown state %q: want up, down or auto", order.State)
	}
	if c.IsSet("for") {
		d, err := time.ParseDuration(c.String("for"))
		if err != nil || d < time.Second {
			return usage(c, "--for: %q: want a duration such as 2h, 1s or more", c.String("for"))
		}
		order.For = new(api.Duration(d))
	}
	ref, address := c.Args().Get(0), c.Args().Get(1)
	return exact(c, client, ref, address, func() error {
		if order.State == stateAuto {
			_, err := client.ClearOverride(c.Context, ref, address, terms(c))
			return err
		}
		_, err := client.OverrideServer(c.Context, ref, address, order, terms(c))
		return err
	})
}

// overrideText says what an order has a server be, and until when.
func overrideText(o api.Override) string {
	text := "set " + o.State
	if o.Until != nil {
		text += " until " + o.Until.Local().Format(time.RFC3339)
	}
	if o.Why != "" {
		text += fmt.Sprintf(" (%s)", o.Why)
	}
	return text
}
