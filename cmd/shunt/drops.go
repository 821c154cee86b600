package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// What drops are listed by; the first is the usual.
var dropsBy = []string{"reason", "service", "interface", "all"}

func dropsCommand() *cli.Command {
	return &cli.Command{
		Name: "drops", Usage: "packets that were dropped, passed on or answered, by reason",
		Description: examples("Each reason has a number and a name, which stay: --reasons lists them. Totals by reason are those since\n"+
			"the data plane was loaded; with --by or a filter they are since the service was added or set to zero, and\n"+
			"those of services that are gone are left out once their last connection has ended. While it watches,\n"+
			"--pcap writes packets as they are dropped, with the reason as a comment.",
			"shunt drops", "shunt drops --all", "shunt drops --watch=1s", "shunt drops --by service", "shunt drops --service web --by interface",
			"shunt drops --reasons", "shunt drops --reason midstream --pcap drops.pcapng --count 100"),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "reasons with no packet too"},
			&cli.BoolFlag{Name: "reasons", Usage: "list what reasons there are, and what they mean"},
			&cli.StringFlag{Name: "by", Usage: "`WHAT` to count by: " + alternatives(dropsBy), Value: dropsBy[0], Action: func(c *cli.Context, by string) error {
				if !slices.Contains(dropsBy, by) {
					return usage(c, "unknown --by %q: want %s", by, alternatives(dropsBy))
				}
				return nil
			}},
			&cli.StringFlag{Name: "service", Usage: "only packets of this `SERVICE`"},
			&cli.StringFlag{Name: "reason", Usage: "only packets for this `REASON`, by its name"},
			&cli.StringFlag{Name: "interface", Usage: "only packets that came by this `INTERFACE`"},
			&cli.StringFlag{Name: "pcap", Usage: "write packets as they are dropped to `FILE`, as pcapng; - is the standard output"},
			&cli.Uint64Flag{Name: "count", Usage: "end after `N` packets in the file"},
			&cli.IntFlag{Name: "limit", Value: 10, Usage: "at most `N` packets a second in the file, of each reason, service and interface"},
			outputFlag(), watchFlag(),
		},
		Action: dropsAction,
	}
}

// dropsAction lists, or captures, or does both.
func dropsAction(c *cli.Context) error {
	list := reading(asking((&dropsLook{}).list))
	if c.Bool("reasons") {
		for _, flag := range []string{"all", "by", "service", "interface", "pcap"} {
			if c.IsSet(flag) {
				return usage(c, "--reasons and --%s exclude one another", flag)
			}
		}
	}
	switch {
	case c.String("pcap") == "" && (c.IsSet("count") || c.IsSet("limit")):
		return usage(c, "--count and --limit are of --pcap")
	case c.String("pcap") == "":
		return list(c)
	case !c.IsSet("watch"):
		return asking(captureDrops)(c)
	case c.String("pcap") == "-":
		return usage(c, "--watch and the packets cannot both go to the standard output")
	}
	// Each ends the other: a file that cannot be written must not pass unnoticed.
	ctx, end := context.WithCancel(c.Context)
	c.Context = ctx
	done := make(chan error, 1)
	go func() {
		defer end()
		done <- asking(captureDrops)(c)
	}()
	err := list(c)
	end()
	return cmp.Or(err, <-done)
}

func captureDrops(c *cli.Context, client *api.Client) error {
	query := api.CaptureQuery{
		Point: "drops", Reason: c.String("reason"), Interface: c.String("interface"), Count: c.Uint64("count"), Rate: c.Int("limit"),
	}
	if query.Rate < 1 {
		return usage(c, "--limit %d: want 1 at least", query.Rate)
	}
	if ref := c.String("service"); ref != "" {
		listen, err := listenOf(c, client, ref)
		if err != nil {
			return err
		}
		query.Services = []string{listen}
	}
	return writeCapture(c, client, query, c.String("pcap"))
}

// dropsLook is what was seen by the last look of --watch.
type dropsLook struct {
	at     time.Time
	counts map[string]uint64
}

// dropRow is a line of the table.
type dropRow struct {
	cells  []any // before the counts
	key    string
	count  uint64
	behind []any
}

func (l *dropsLook) list(c *cli.Context, client *api.Client) error {
	if err := knownReason(c, client); err != nil {
		return err
	}
	if c.String("by") == dropsBy[0] && c.String("service") == "" && c.String("interface") == "" {
		return l.listReasons(c, client)
	}
	service := c.String("service")
	if service != "" {
		listen, err := listenOf(c, client, service)
		if err != nil {
			return err
		}
		service = listen
	}
	list, err := client.Drops(c.Context, service, c.String("reason"), c.String("interface"))
	if err != nil {
		return err
	}
	drops := sumDrops(list.Drops, c.String("by"))
	return output(c, drops, func(t *table) {
		if len(drops) == 0 {
			t.row("nothing was dropped")
			return
		}
		header := []any{"NUMBER", "REASON", "KIND"}
		by := c.String("by")
		if by == "service" || by == "all" {
			header = append(header, "SERVICE")
		}
		if by == "interface" || by == "all" {
			header = append(header, "INTERFACE")
		}
		var rows []dropRow
		for _, d := range drops {
			r := dropRow{cells: []any{d.Number, d.Reason, d.Kind}, key: fmt.Sprint(d.Number, d.Service, d.Removed, d.Interface), count: d.Packets, behind: []any{d.Bytes}}
			if by == "service" || by == "all" {
				r.cells = append(r.cells, serviceOfDrop(t, d))
			}
			if by == "interface" || by == "all" {
				r.cells = append(r.cells, d.Interface)
			}
			rows = append(rows, r)
		}
		l.draw(t, header, []any{"BYTES"}, rows)
	})
}

// knownReason refuses a --reason that there is not, which would be taken for one without packets.
func knownReason(c *cli.Context, client *api.Client) error {
	name := c.String("reason")
	if name == "" {
		return nil
	}
	stats, err := client.Stats(c.Context)
	if err != nil {
		return err
	}
	if len(stats.PacketEvents) > 0 && !slices.ContainsFunc(stats.PacketEvents, func(e api.PacketEvent) bool { return e.Name == name }) {
		return usage(c, "unknown --reason %q: `shunt drops --reasons` lists them", name)
	}
	return nil
}

// serviceOfDrop says which service it was.
func serviceOfDrop(t *table, d api.Drop) string {
	name := cmp.Or(d.Name, d.Service)
	if d.Removed {
		name += t.in(yellow, " (removed)")
	}
	return name
}

// sumDrops adds up what is not told apart.
func sumDrops(drops []api.Drop, by string) []api.Drop {
	sums := []api.Drop{}
	for _, d := range drops {
		if by == "reason" || by == "interface" {
			d.Service, d.Name, d.Removed = "", "", false
		}
		if by == "reason" || by == "service" {
			d.Interface = ""
		}
		i := slices.IndexFunc(sums, func(o api.Drop) bool {
			return o.Number == d.Number && o.Service == d.Service && o.Removed == d.Removed && o.Interface == d.Interface
		})
		if i < 0 {
			sums = append(sums, d)
			continue
		}
		sums[i].Packets += d.Packets
		sums[i].Bytes += d.Bytes
	}
	return sums
}

// listReasons lists the totals, which services that are gone have their part in.
func (l *dropsLook) listReasons(c *cli.Context, client *api.Client) error {
	stats, err := client.Stats(c.Context)
	if err != nil {
		return err
	}
	events := []api.PacketEvent{}
	for _, e := range stats.PacketEvents {
		if (e.Count > 0 || c.Bool("all") || c.Bool("reasons")) && (c.String("reason") == "" || c.String("reason") == e.Name) {
			events = append(events, e)
		}
	}
	return output(c, events, func(t *table) {
		switch {
		case len(stats.PacketEvents) == 0:
			t.row("this data plane does not count packets by reason")
			return
		case len(events) == 0:
			t.row("nothing counted yet; -a lists what can be")
			return
		}
		if c.Bool("reasons") {
			t.row("NUMBER", "NAME", "KIND", "MEANING")
			for _, e := range events {
				t.row(e.Number, e.Name, e.Kind, e.Help)
			}
			return
		}
		var rows []dropRow
		for _, e := range events {
			rows = append(rows, dropRow{cells: []any{e.Number, e.Name, e.Kind}, key: e.Name, count: e.Count, behind: []any{e.Help}})
		}
		l.draw(t, []any{"NUMBER", "NAME", "KIND"}, []any{"MEANING"}, rows)
	})
}

// draw draws the rows, from the second look on with what came in a second since the last.
func (l *dropsLook) draw(t *table, header, behind []any, rows []dropRow) {
	now, seconds := time.Now(), 0.0
	if l.counts != nil {
		seconds = now.Sub(l.at).Seconds()
	}
	header = append(header, "PACKETS")
	if seconds > 0 {
		header = append(header, "PACKETS/S")
	}
	t.row(append(header, behind...)...)
	counts := map[string]uint64{}
	for _, r := range rows {
		counts[r.key] = r.count
		cells := append(slices.Clone(r.cells), r.count)
		if seconds > 0 {
			rate := "-" // set to zero meanwhile
			if before := l.counts[r.key]; r.count >= before {
				rate = strings.TrimSuffix(fmt.Sprintf("%.1f", float64(r.count-before)/seconds), ".0")
			}
			cells = append(cells, rate)
		}
		t.row(append(cells, r.behind...)...)
	}
	l.at, l.counts = now, counts
}
