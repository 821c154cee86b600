package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

func connCountCommand() *cli.Command {
	return &cli.Command{
		Name: "count", Usage: "count connections, and templates of persistence",
		Description: examples("By clients, servers or states the largest groups come first; by age or idle time, the shortest.\n"+
			"A template is in the state NONE, or ASSURED. Packets and bytes are those of the connections that\n"+
			"there are, to the server and back, where connections are counted one by one.",
			"shunt conn count --service web --watch",
			"shunt conn count --by client --limit 10",
			"shunt conn count --by state --kind connection -o json",
			"shunt conn count --server 10.0.0.11:8080 --idle '>1h'"),
		Flags: append(connectionFlags(),
			byFlag("count the parts by what they have in common, `WHAT`: client, server, state, age or idle", api.CountedBy()...),
			&cli.Uint64Flag{Name: "limit", Usage: "at most `N` parts; 0: all"},
			outputFlag(), watchFlag(),
		),
		Action: reading(asking(countConnections)),
	}
}

// byFlag says what connections are counted by.
func byFlag(usageText string, known ...string) cli.Flag {
	return &cli.StringFlag{
		Name: "by", Usage: usageText,
		Action: func(c *cli.Context, by string) error {
			if !slices.Contains(known, by) {
				return usage(c, "unknown --by %q: want %s", by, alternatives(known))
			}
			return nil
		},
	}
}

func countConnections(c *cli.Context, client *api.Client) error {
	by := c.String("by")
	if c.IsSet("limit") && by == "" {
		return usage(c, "--limit goes with --by")
	}
	query, err := connectionQuery(c, client)
	if err != nil {
		return err
	}
	query.Limit = c.Uint64("limit")
	count, err := client.CountConnectionsBy(c.Context, query, by)
	if err != nil {
		return err
	}
	return output(c, count, func(t *table) {
		if by == "" {
			t.row(count.Count)
			return
		}
		groupTable(t, by, count)
	})
}

// groupTable draws groups, with their traffic if one has some.
func groupTable(t *table, by string, count api.ConnectionCount) {
	counted := slices.ContainsFunc(count.Groups, func(g api.ConnectionGroup) bool { return g.Traffic != nil })
	header := []any{strings.ToUpper(by), "COUNT"}
	if counted {
		header = append(header, "PACKETS", "BYTES")
	}
	t.row(header...)
	for _, g := range count.Groups {
		cells := []any{g.Name, g.Count}
		if g.Traffic != nil {
			in, out := g.Traffic.In, g.Traffic.Out
			cells = append(cells, fmt.Sprintf("%d/%d", in.Packets, out.Packets), size(in.Bytes)+"/"+size(out.Bytes))
		}
		t.row(cells...)
	}
	if count.More > 0 {
		t.blank()
		t.row(fmt.Sprintf("%d more", count.More))
	}
}

func connAgesCommand() *cli.Command {
	return &cli.Command{
		Name: "ages", Usage: "draw how old connections are",
		Description: examples("A bar is as long as its part of the longest one. --by idle draws how long they have had no packet.",
			"shunt conn ages", "shunt conn ages --service web --by idle"),
		Flags: append(connectionFlags(),
			byFlag("by `WHAT`: age or idle (default: age)", string(director.CountByAge), string(director.CountByIdle)),
			outputFlag(), watchFlag(),
		),
		Action: reading(asking(drawAges)),
	}
}

// barLength is the longest bar of a histogram.
const barLength = 40

func drawAges(c *cli.Context, client *api.Client) error {
	query, err := connectionQuery(c, client)
	if err != nil {
		return err
	}
	by := string(director.CountByAge)
	if c.IsSet("by") {
		by = c.String("by")
	}
	count, err := client.CountConnectionsBy(c.Context, query, by)
	if err != nil {
		return err
	}
	return output(c, count, func(t *table) {
		longest := uint64(1)
		for _, g := range count.Groups {
			longest = max(longest, g.Count)
		}
		t.row(strings.ToUpper(by), "COUNT", "PART")
		for _, g := range count.Groups {
			cells := []any{g.Name, g.Count, share(g.Count, count.Count)}
			if bar := (g.Count*barLength + longest - 1) / longest; bar > 0 { // of something, a beginning
				cells = append(cells, strings.Repeat("#", int(bar)))
			}
			t.row(cells...)
		}
	})
}

// share is a part of a whole in percent.
func share(part, whole uint64) string {
	if whole == 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(part)/float64(whole))
}
