package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "the daemon, its data plane and the connection tables",
		Description: examples("", "shunt status", "shunt status -o json"),
		Flags:       readFlags(), Action: reading(asking(showStatus)),
	}
}

func showStatus(c *cli.Context, client *api.Client) error {
	status, err := client.Status(c.Context)
	if err != nil {
		return err
	}
	return output(c, status, func(t *table) { statusTable(t, status) })
}

func statusTable(t *table, s api.Status) {
	t.row("daemon", fmt.Sprintf("shuntd %s, pid %d, started %s (%s ago)",
		s.Version, s.PID, s.Started.Format(time.RFC3339), max(time.Since(s.Started), 0).Truncate(time.Second)))
	t.row("data plane", s.Dataplane)
	for i, iface := range s.Interfaces {
		note := ""
		if iface.Mode == "generic" {
			note = ": slow, for tests only"
		}
		t.row(label(i, "interfaces"), fmt.Sprintf("%s (%s%s)", iface.Name, iface.Mode, note))
	}
	if len(s.Interfaces) == 0 {
		t.row("interfaces", "none: no packet reaches Shunt")
	}
	t.row("services", s.Services)
	servers := fmt.Sprint(s.Servers)
	if s.Unreachable > 0 {
		servers += fmt.Sprintf(", %d unreachable (see `shunt server list`)", s.Unreachable)
	}
	t.row("servers", servers)
	t.row("timeouts", fmt.Sprintf("tcp %s, tcp-fin %s, udp %s", s.Timeouts.TCP, s.Timeouts.TCPFin, s.Timeouts.UDP))
	if s.Faults > 0 {
		t.row("faults", fmt.Sprintf("%d: a bug in Shunt, please report what `shunt drops` shows", s.Faults))
	}
	t.blank()
	t.row("TABLE", "LIMIT", "KEYS", "SLOTS", "USED", "MEMORY", "EXPIRED", "CORRECTED")
	for _, table := range s.Tables {
		used := "-"
		if table.Slots > 0 {
			used = fmt.Sprintf("%.1f%%", 100*float64(table.Keys)/float64(table.Slots))
		}
		t.row(table.Family, table.Limit, table.Keys, table.Slots, used, size(table.Bytes), table.Expired, table.Corrected)
	}
}

// label is the text for the first of several lines and nothing for the others.
func label(i int, text string) string {
	if i == 0 {
		return text
	}
	return " "
}

func dropsCommand() *cli.Command {
	return &cli.Command{
		Name: "drops", Usage: "packets that were dropped, passed on or answered, by reason",
		Description: examples("", "shunt drops", "shunt drops --all", "shunt drops --watch"),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "reasons with no packet too"},
			outputFlag(), watchFlag(),
		},
		Action: reading(asking(listDrops)),
	}
}

func listDrops(c *cli.Context, client *api.Client) error {
	stats, err := client.Stats(c.Context)
	if err != nil {
		return err
	}
	events := []api.PacketEvent{}
	for _, e := range stats.PacketEvents {
		if e.Count > 0 || c.Bool("all") {
			events = append(events, e)
		}
	}
	return output(c, events, func(t *table) {
		if len(events) == 0 {
			t.row("nothing counted yet; -a lists what can be")
			return
		}
		t.row("NAME", "KIND", "COUNT", "MEANING")
		for _, e := range events {
			t.row(e.Name, e.Kind, e.Count, e.Help)
		}
	})
}

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

func detachCommand() *cli.Command {
	return &cli.Command{
		Name: "detach", Usage: "stop load balancing: remove everything from the kernel and end the daemon",
		Description: examples("All connections through this director end. Without a running daemon: `shuntd detach`.", "shunt detach"),
		Action: asking(func(c *cli.Context, client *api.Client) error {
			if err := client.Detach(c.Context); err != nil {
				return err
			}
			return write(c.App.Writer, []byte("detached; shuntd is ending\n"))
		}),
	}
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version of this command (`shunt status` has the daemon's)",
		Description: examples("", "shunt version"),
		Action: func(c *cli.Context) error {
			return write(c.App.Writer, fmt.Appendf(nil, "shunt %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH))
		},
	}
}
