package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
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
	if !s.Ready {
		t.row("ready", t.in(red, "no: "+s.NotReady))
	}
	t.row("revision", s.Revision)
	t.row("drift", driftText(t, s.Drift))
	if s.Foreign > 0 {
		t.row("foreign", t.in(yellow, fmt.Sprintf("%s in the kernel that Shunt does not manage (see `shunt drift`)", count(s.Foreign, "service"))))
	}
	t.row("data plane", dataplaneText(s))
	for i, iface := range s.Interfaces {
		note := ""
		if iface.Mode == "generic" {
			note = ": slow, for tests only"
		}
		text := fmt.Sprintf("%s (%s%s)", iface.Name, iface.Mode, note)
		if iface.Mode == "gone" {
			text = t.in(red, text)
		}
		t.row(label(i, "interfaces"), text)
	}
	if len(s.Interfaces) == 0 && attaches(s) {
		t.row("interfaces", t.in(red, "none: no packet reaches Shunt"))
	}
	t.row("services", s.Services)
	servers := fmt.Sprint(s.Servers)
	if s.Leased > 0 {
		servers += fmt.Sprintf(", and %d by agents", s.Leased)
	}
	if s.Unreachable > 0 {
		servers += ", " + t.in(red, fmt.Sprintf("%d unreachable (see `shunt server list`)", s.Unreachable))
	}
	t.row("servers", servers)
	healthRows(t, s.Health)
	t.row("timeouts", fmt.Sprintf("tcp %s, tcp-fin %s, udp %s", s.Timeouts.TCP, s.Timeouts.TCPFin, s.Timeouts.UDP))
	if s.Faults > 0 {
		t.row("faults", t.in(red, fmt.Sprintf("%d: a bug in Shunt, please report what `shunt drops` shows", s.Faults)))
	}
	forwardingRows(t, s.Forwarding)
	for i, listen := range s.Guarding {
		t.row(label(i, "guarding"), t.in(yellow, listen))
	}
	if len(s.Tables) == 0 {
		return
	}
	if sweep := s.Tables[0]; sweep.SweepPeriod != nil {
		t.row("sweep", fmt.Sprintf("every %s, %.1f%% of a CPU", sweep.SweepPeriod, 100*sweep.SweepShare))
	}
	t.blank()
	t.row("TABLE", "LIMIT", "KEYS", "SLOTS", "PRESSURE", "FULL-IN", "NO-ROOM", "MEMORY", "EXPIRED", "CORRECTED")
	for _, table := range s.Tables {
		if table.Slots == 0 { // the kernel's has no limit, and tells no more of itself
			t.row(table.Family, "", table.Keys, "", "", "", "", "", "", "")
			continue
		}
		t.row(table.Family, table.Limit, table.Keys, table.Slots, pressureText(t, table), fullIn(table), noRoom(t, table), size(table.Bytes), table.Expired, table.Corrected)
	}
}

// healthRows tells of what is not as it should be with servers' health.
func healthRows(t *table, h *api.HealthSummary) {
	if h == nil {
		return
	}
	var words []string
	for _, part := range []struct {
		n    int
		word string
		in   color
	}{{h.Down, "down", red}, {h.Suspended, "suspended", yellow}, {h.Overridden, "by order", yellow}} {
		if part.n > 0 {
			words = append(words, t.in(part.in, fmt.Sprintf("%d %s", part.n, part.word)))
		}
	}
	if len(words) > 0 {
		t.row("health", strings.Join(words, ", ")+" (see `shunt health`)")
	}
	for _, list := range []struct {
		label    string
		services []string
	}{{"no quorum", h.WithoutQuorum}, {"panic", h.Panic}, {"sorry servers", h.Sorry}} {
		for i, service := range list.services {
			if i == maxHealthRows {
				t.row(" ", t.in(red, fmt.Sprintf("and %d more", len(list.services)-i)))
				break
			}
			t.row(label(i, list.label), t.in(red, service))
		}
	}
}

// maxHealthRows is how many services of a kind the status names.
const maxHealthRows = 5

// forwardingRows shows what the daemon was configured with for pings, tunnels and
// full NAT; what it was not is not shown.
func forwardingRows(t *table, f *api.Forwarding) {
	if f == nil {
		return
	}
	t.row("echo", f.Echo)
	if len(f.TunnelSources) > 0 {
		t.row("tunnel sources", strings.Join(f.TunnelSources, ", "))
	}
	if len(f.LocalAddresses) > 0 {
		t.row("fullnat", strings.Join(f.LocalAddresses, ", ")+", ports "+f.LocalPorts)
	}
}

// From these pressures on, tables are shown as events tell of them (director/watch).
const (
	pressureWarn = 0.80
	pressureBad  = 0.95
)

// pressureText says how much of the table's limit is in use.
func pressureText(t *table, table api.Table) string {
	text := fmt.Sprintf("%.1f%%", 100*table.Pressure)
	switch {
	case table.Pressure >= pressureBad:
		return t.in(red, text)
	case table.Pressure >= pressureWarn:
		return t.in(yellow, text)
	}
	return text
}

// fullIn says when the table has what it is sized for, if it comes to that.
func fullIn(table api.Table) string {
	if table.FullIn == nil {
		return ""
	}
	return table.FullIn.String()
}

// noRoom counts the connections that found no room, and says when the last one did.
func noRoom(t *table, table api.Table) string {
	if table.Refused == 0 {
		return "0"
	}
	text := fmt.Sprint(table.Refused)
	if table.LastFull != nil {
		text += fmt.Sprintf(" (%s ago)", table.LastFull)
	}
	return t.in(red, text)
}

// dataplaneText names the data plane and what it has of IPVS.
func dataplaneText(s api.Status) string {
	text := s.Dataplane
	if s.Info.Version != "" {
		text += ", IPVS " + s.Info.Version
	}
	if s.Info.TableSize == 0 {
		return text
	}
	what := "connection"
	if s.Dataplane == director.PlaneIPVS {
		what = "bucket"
	}
	return text + ", table of " + count(s.Info.TableSize, what)
}

// attaches reports whether the data plane is attached to interfaces: the kernel's
// IPVS sees all packets that are for the host.
func attaches(s api.Status) bool { return s.Dataplane != director.PlaneIPVS }

// driftText says whether the kernel is as desired.
func driftText(t *table, d api.DriftSummary) string {
	text := "none"
	if d.Found > 0 {
		text = fmt.Sprintf("%d found, %d repaired", d.Found, d.Repaired)
	}
	if len(d.Pending) > 0 {
		text += ", " + t.in(red, fmt.Sprintf("%d pending (see `shunt drift`)", len(d.Pending)))
	}
	return text
}

// label is the text for the first of several lines and nothing for the others.
func label(i int, text string) string {
	if i == 0 {
		return text
	}
	return " "
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
