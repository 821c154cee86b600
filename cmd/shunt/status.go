package main

import (
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "the daemon, its data plane and the connection tables", ArgsUsage: " ",
		Flags: []cli.Flag{outputFlag()}, Action: showStatus,
	}
}

func showStatus(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	status, err := client(c).Status(c.Context)
	if err != nil {
		return err
	}
	return output(c, status, func(w io.Writer) { statusTable(w, status) })
}

func statusTable(w io.Writer, s api.Status) {
	row(w, "daemon", fmt.Sprintf("shuntd %s, pid %d, started %s (%s ago)",
		s.Version, s.PID, s.Started.Format(time.RFC3339), max(time.Since(s.Started), 0).Truncate(time.Second)))
	row(w, "data plane", s.Dataplane)
	for i, iface := range s.Interfaces {
		note := ""
		if iface.Mode == "generic" {
			note = ": slow, for tests only"
		}
		row(w, label(i, "interfaces"), fmt.Sprintf("%s (%s%s)", iface.Name, iface.Mode, note))
	}
	if len(s.Interfaces) == 0 {
		row(w, "interfaces", "none: no packet reaches Shunt")
	}
	row(w, "services", s.Services)
	servers := fmt.Sprint(s.Servers)
	if s.Unreachable > 0 {
		servers += fmt.Sprintf(", %d unreachable (see `shunt server list`)", s.Unreachable)
	}
	row(w, "servers", servers)
	row(w, "timeouts", fmt.Sprintf("tcp %s, tcp-fin %s, udp %s", s.Timeouts.TCP, s.Timeouts.TCPFin, s.Timeouts.UDP))
	if s.Faults > 0 {
		row(w, "faults", fmt.Sprintf("%d: a bug in Shunt, please report what `shunt drops` shows", s.Faults))
	}
	fmt.Fprintln(w)
	row(w, "TABLE", "LIMIT", "KEYS", "SLOTS", "USED", "MEMORY", "EXPIRED", "CORRECTED")
	for _, t := range s.Tables {
		used := "-"
		if t.Slots > 0 {
			used = fmt.Sprintf("%.1f%%", 100*float64(t.Keys)/float64(t.Slots))
		}
		row(w, t.Family, t.Limit, t.Keys, t.Slots, used, size(t.Bytes), t.Expired, t.Corrected)
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
		Name: "drops", Usage: "packets that were dropped, passed on or answered, by reason", ArgsUsage: " ",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "reasons with no packet too"},
			outputFlag(),
		},
		Action: listDrops,
	}
}

func listDrops(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	stats, err := client(c).Stats(c.Context)
	if err != nil {
		return err
	}
	events := []api.Event{}
	for _, e := range stats.Events {
		if e.Count > 0 || c.Bool("all") {
			events = append(events, e)
		}
	}
	return output(c, events, func(w io.Writer) {
		if len(events) == 0 {
			fmt.Fprintln(w, "nothing counted yet; -a lists what can be")
			return
		}
		row(w, "NAME", "KIND", "COUNT", "MEANING")
		for _, e := range events {
			row(w, e.Name, e.Kind, e.Count, e.Help)
		}
	})
}

func timeoutsCommand() *cli.Command {
	return &cli.Command{
		Name: "timeouts", Usage: "show the connection timeouts, or set those named", ArgsUsage: " ",
		Description: "shunt timeouts --tcp 1h --tcp-fin 30s\n\nWhole seconds, with a unit: 90s, 15m, 1h30m.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "tcp", Usage: "established TCP connections, `DURATION`"},
			&cli.StringFlag{Name: "tcp-fin", Usage: "TCP connections after a FIN, `DURATION`"},
			&cli.StringFlag{Name: "udp", Usage: "UDP, `DURATION`"},
			outputFlag(),
		},
		Action: timeouts,
	}
}

func timeouts(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
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
		return client(c).EditTimeouts(c.Context, edit)
	}
	timeouts, err := client(c).Timeouts(c.Context)
	if err != nil {
		return err
	}
	return output(c, timeouts, func(w io.Writer) {
		row(w, "TCP", "TCP-FIN", "UDP")
		row(w, timeouts.TCP, timeouts.TCPFin, timeouts.UDP)
	})
}

func detachCommand() *cli.Command {
	return &cli.Command{
		Name: "detach", Usage: "stop load balancing: remove everything from the kernel and end the daemon", ArgsUsage: " ",
		Description: "All connections through this director end. Without a running daemon: `shuntd detach`.",
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			if err := client(c).Detach(c.Context); err != nil {
				return err
			}
			return write(c.App.Writer, []byte("detached; shuntd is ending\n"))
		},
	}
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version of this command (`shunt status` has the daemon's)", ArgsUsage: " ",
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return write(c.App.Writer, fmt.Appendf(nil, "shunt %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH))
		},
	}
}
