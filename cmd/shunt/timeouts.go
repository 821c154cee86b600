package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func timeoutsCommand() *cli.Command {
	return &cli.Command{
		Name: "timeouts", Usage: "show the connection timeouts, or set those named",
		Description: examples("Whole seconds, with a unit: 90s, 15m, 1h30m.", "shunt timeouts", "shunt timeouts --tcp 1h --tcp-fin 30s"),
		Flags: changeFlags(
			&cli.StringFlag{Name: "tcp", Usage: "established TCP connections, `DURATION`"},
			&cli.StringFlag{Name: "tcp-fin", Usage: "TCP connections after a FIN, `DURATION`"},
			&cli.StringFlag{Name: "udp", Usage: "UDP, `DURATION`"},
			outputFlag(), watchFlag(),
		),
		Action: reading(asking(timeouts)),
	}
}

func timeouts(c *cli.Context, client *api.Client) error {
	var edit api.TimeoutsEdit
	for _, f := range []struct {
		name string
		to   **api.Duration
	}{{"tcp", &edit.TCP}, {"tcp-fin", &edit.TCPFin}, {"udp", &edit.UDP}} {
		if !c.IsSet(f.name) {
			continue
		}
		d, err := time.ParseDuration(c.String(f.name))
		if err != nil {
			return usage(c, "--%s: %q is not a duration such as 90s or 15m", f.name, c.String(f.name))
		}
		*f.to = new(api.Duration(d))
	}
	if edit != (api.TimeoutsEdit{}) {
		if c.IsSet("watch") {
			return usage(c, "--watch shows timeouts; it sets none")
		}
		_, err := client.EditTimeouts(c.Context, edit, terms(c))
		return err
	}
	timeouts, err := client.Timeouts(c.Context)
	if err != nil {
		return err
	}
	return output(c, timeouts, func(t *table) {
		t.row("TCP", "TCP-FIN", "UDP")
		t.row(timeouts.TCP, timeouts.TCPFin, timeouts.UDP)
	})
}
