package main

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// What talkers are sorted by.
const (
	sortConnections = "connections"
	sortPackets     = "packets"
	sortBytes       = "bytes"
)

// sortedBy are the values of --sort, talkersBy those of conn top's --by.
var (
	sortedBy  = []string{sortConnections, sortPackets, sortBytes}
	talkersBy = []string{string(director.CountByClient), string(director.CountByServer)}
)

func connTopCommand() *cli.Command {
	return &cli.Command{
		Name: "top", Usage: "show who has the most connections, and the most traffic",
		Description: examples("A terminal is drawn anew at each interval until ^C; else it prints once, after one interval if\n"+
			"there are rates. Rates are packets and bytes a second of the connections that there are, to the\n"+
			"server and back, where connections are counted one by one.",
			"shunt conn top --service web", "shunt conn top --by server --sort bytes --interval 5s"),
		Flags: append(connectionFlags(),
			byFlag("talkers are `WHAT`: client or server (default: client)", talkersBy...),
			&cli.StringFlag{
				Name: "sort", Value: sortConnections, Usage: "the most of `WHAT` first: connections, packets or bytes",
				Action: func(c *cli.Context, by string) error {
					if !slices.Contains(sortedBy, by) {
						return usage(c, "unknown --sort %q: want %s", by, alternatives(sortedBy))
					}
					return nil
				},
			},
			&cli.DurationFlag{Name: "interval", Value: defaultWatch, Usage: "look every `INTERVAL`"},
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 20, Usage: "the first `N`"},
			outputFlag(),
		),
		Action: asking(connTop),
	}
}

func connTop(c *cli.Context, client *api.Client) error {
	every := c.Duration("interval")
	if every < minWatch {
		return usage(c, "--interval %s: want %s or more", every, minWatch)
	}
	if n := c.Int("limit"); n < 1 {
		return usage(c, "--limit %d: want 1 or more", n)
	}
	query, err := connectionQuery(c, client)
	if err != nil {
		return err
	}
	t := &talkers{by: string(director.CountByClient), sort: c.String("sort"), limit: c.Int("limit"), client: client, query: query}
	if c.IsSet("by") {
		t.by = c.String("by")
	}
	if t.sort == sortConnections {
		t.query.Limit = uint64(t.limit) // the daemon sorts so
	}
	if isTerminal(streamsOf(c).out) && c.String("output") == formatTable {
		err := watch(c, t.show, every)
		if c.Context.Err() != nil {
			return nil
		}
		return err
	}
	if err := t.look(c); err != nil {
		return err
	}
	if t.counted {
		timer := time.NewTimer(every)
		defer timer.Stop()
		if !sleep(c.Context, timer.C) {
			return nil
		}
		return t.show(c)
	}
	return t.print(c)
}

// talkers are groups of connections, with what they have carried since the last look.
type talkers struct {
	by, sort string
	limit    int
	client   *api.Client
	query    api.ConnectionQuery

	at      time.Time
	before  map[string]api.ConnectionTraffic
	groups  []talker
	all     uint64
	counted bool // some have traffic
}

// talker is a group with its rates.
type talker struct {
	Name  string       `json:"name"`
	Count uint64       `json:"count"`
	Rates *talkerRates `json:"rates,omitempty"` // nil: not known
	now   *api.ConnectionTraffic
}

// talkerRates are packets and bytes a second.
type talkerRates struct {
	In  trafficRate `json:"in"`
	Out trafficRate `json:"out"`
}

type trafficRate struct {
	Packets float64 `json:"packets"`
	Bytes   float64 `json:"bytes"`
}

// show looks and prints.
func (t *talkers) show(c *cli.Context) error {
	if err := t.look(c); err != nil {
		return err
	}
	return t.print(c)
}

// look reads the groups, and works out their rates since the look before.
func (t *talkers) look(c *cli.Context) error {
	count, err := t.client.CountConnectionsBy(c.Context, t.query, t.by)
	if err != nil {
		return err
	}
	now := time.Now()
	seconds := now.Sub(t.at).Seconds()
	traffic := map[string]api.ConnectionTraffic{}
	t.groups, t.all, t.counted = nil, count.Count, false
	for _, g := range count.Groups {
		one := talker{Name: g.Name, Count: g.Count, now: g.Traffic}
		if g.Traffic != nil {
			t.counted = true
			traffic[g.Name] = *g.Traffic
			if old, ok := t.before[g.Name]; ok {
				one.Rates = &talkerRates{In: rateOf(old.In, g.Traffic.In, seconds), Out: rateOf(old.Out, g.Traffic.Out, seconds)}
			}
		}
		t.groups = append(t.groups, one)
	}
	t.at, t.before = now, traffic
	slices.SortStableFunc(t.groups, func(a, b talker) int { return cmp.Compare(b.by(t.sort), a.by(t.sort)) })
	t.groups = t.groups[:min(t.limit, len(t.groups))]
	return nil
}

// rateOf is what came in a second; 0 where less is there than before: connections
// have ended.
func rateOf(before, now api.Traffic, seconds float64) trafficRate {
	rate := func(before, now uint64) float64 {
		if now < before {
			return 0
		}
		return float64(now-before) / seconds
	}
	return trafficRate{Packets: rate(before.Packets, now.Packets), Bytes: rate(before.Bytes, now.Bytes)}
}

// by is what the talker is sorted by; without rates below all that have some.
func (t *talker) by(sort string) float64 {
	switch {
	case sort == sortConnections:
		return float64(t.Count)
	case t.Rates == nil:
		return -1
	case sort == sortPackets:
		return t.Rates.In.Packets + t.Rates.Out.Packets
	default:
		return t.Rates.In.Bytes + t.Rates.Out.Bytes
	}
}

func (t *talkers) print(c *cli.Context) error {
	answer := struct {
		Count  uint64   `json:"count"`
		Groups []talker `json:"groups"`
	}{t.all, slices.Concat([]talker{}, t.groups)}
	return output(c, answer, func(drawn *table) {
		header := []any{strings.ToUpper(t.by), "COUNT", "PART"}
		if t.counted {
			header = append(header, "PACKETS/S", "BYTES/S")
		}
		drawn.row(header...)
		for _, g := range t.groups {
			cells := []any{g.Name, g.Count, share(g.Count, t.all)}
			if r := g.Rates; r != nil {
				cells = append(cells, shortNumber(r.In.Packets)+"/"+shortNumber(r.Out.Packets), shortNumber(r.In.Bytes)+"/"+shortNumber(r.Out.Bytes))
			} else if t.counted {
				cells = append(cells, "-", "-")
			}
			drawn.row(cells...)
		}
	})
}
