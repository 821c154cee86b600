package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/event"
)

func eventsCommand() *cli.Command {
	return &cli.Command{
		Name: "events", Usage: "what happened: changes, drift, servers, drops, pressure on the tables",
		Description: examples("The newest events, or with --since those after an event or a time. The daemon keeps some\n"+
			"thousand. --follow goes on with what comes, one event a line, also after a restart of the\n"+
			"daemon, until ^C; -o json then prints one object a line.",
			"shunt events", "shunt events --since 1h --service web",
			"shunt events --follow --name drift --name repaired -o json"),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes"},
			&cli.StringFlag{Name: "since", Usage: "those after the event `ID`, or of the last DURATION such as 10m"},
			&cli.StringSliceFlag{Name: "name", Usage: "only those with `NAME`; for several, give it several times"},
			&cli.StringFlag{Name: "service", Usage: "only those about `SERVICE`"},
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 20, Usage: "the newest `N`, from 1 to 1000; with --since there is no limit"},
			outputFlag(), watchFlag(),
		},
		Action: reading(asking(events)),
	}
}

func events(c *cli.Context, client *api.Client) error {
	if n := c.Int("limit"); n < 1 || n > 1000 {
		return usage(c, "--limit %d: want 1 to 1000", n)
	}
	if c.Bool("follow") && (c.IsSet("watch") || c.String("output") == formatYAML) {
		return usage(c, "--follow goes with neither --watch nor -o yaml")
	}
	for _, name := range c.StringSlice("name") {
		if !slices.ContainsFunc(event.Names(), func(i event.Info) bool { return string(i.Name) == name }) {
			return &usageError{fmt.Sprintf("events: unknown event %q", name), "`shunt events --help` and the documentation list the names"}
		}
	}
	after, since, err := parseSince(c)
	if err != nil {
		return err
	}
	query := api.EventQuery{After: after, Limit: c.Int("limit"), Names: c.StringSlice("name")}
	if ref := c.String("service"); ref != "" {
		if query.Service, err = listenOf(c, client, ref); err != nil {
			return err
		}
	}
	kept, next, err := keptEvents(c, client, query, since)
	if err != nil {
		return err
	}
	if c.Bool("follow") {
		return followEvents(c, client, query, kept, next)
	}
	return output(c, kept, func(t *table) {
		t.row("TIME", "ID", "NAME", "MESSAGE")
		for _, e := range kept {
			t.row(e.Time.Local().Format(time.RFC3339), e.ID, t.in(eventColor(e.Name), e.Name), e.Message)
		}
	})
}

// parseSince reads --since: an id, or a duration back from now, for which all
// events are read.
func parseSince(c *cli.Context) (after *uint64, since time.Time, err error) {
	text := c.String("since")
	if text == "" {
		return nil, time.Time{}, nil
	}
	if id, err := strconv.ParseUint(text, 10, 64); err == nil {
		return &id, time.Time{}, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return nil, time.Time{}, usage(c, "--since: %q is neither the id of an event nor a duration such as 10m", text)
	}
	return new(uint64), time.Now().Add(-d), nil
}

// keptEvents reads what the daemon has kept: the newest, or, if the query has an
// After, all behind it that are not older than since. next is where to go on.
func keptEvents(c *cli.Context, client *api.Client, query api.EventQuery, since time.Time) (kept []api.Event, next uint64, err error) {
	kept = []api.Event{}
	all := query.After != nil
	if all {
		query.Limit = 1000
	}
	for {
		page, err := client.Events(c.Context, query)
		if err != nil {
			return nil, 0, err
		}
		if page.Missed && since.IsZero() && query.After != nil {
			fmt.Fprintln(c.App.ErrWriter, "shunt: some events between are kept no more")
		}
		for _, e := range page.Events {
			if !e.Time.Before(since) {
				kept = append(kept, e)
			}
		}
		done := len(page.Events) == 0 || !all
		query.After = &page.Next
		if done {
			return kept, page.Next, nil
		}
	}
}

// reconnect is how long to wait before the daemon is asked again.
const reconnect = time.Second

// followEvents prints events as they come, until the context ends. A stream that
// breaks off is taken up again where it ended.
func followEvents(c *cli.Context, client *api.Client, query api.EventQuery, kept []api.Event, next uint64) error {
	for _, e := range kept {
		if err := printEvent(c, e); err != nil {
			return err
		}
	}
	query.After = &next
	for away := false; ; {
		for message, err := range client.FollowEvents(c.Context, query) {
			if err != nil {
				if isAway(err) {
					break // it restarts
				}
				return err
			}
			if away {
				away = false
				fmt.Fprintln(c.App.ErrWriter, "shunt: the daemon is back")
			}
			switch {
			case message.Missed != nil:
				fmt.Fprintln(c.App.ErrWriter, "shunt: some events between are kept no more")
			case message.Event != nil:
				next = message.Event.ID
				if err := printEvent(c, *message.Event); err != nil {
					return err
				}
			}
		}
		if c.Context.Err() != nil {
			return nil
		}
		if !away {
			away = true
			fmt.Fprintln(c.App.ErrWriter, "shunt: the daemon is away; waiting for it")
		}
		timer := time.NewTimer(reconnect)
		ok := sleep(c.Context, timer.C)
		timer.Stop()
		if !ok {
			return nil
		}
	}
}

// printEvent prints one event on a line.
func printEvent(c *cli.Context, e api.Event) error {
	if c.String("output") == formatJSON {
		text, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("print as json: %w", err)
		}
		return write(c.App.Writer, append(text, '\n'))
	}
	name := colors(c).in(eventColor(e.Name), e.Name)
	return write(c.App.Writer, fmt.Appendf(nil, "%s  %s  %s\n", e.Time.Local().Format(time.RFC3339), name, e.Message))
}

// eventColor goes by how loud the event is in the daemon's log.
func eventColor(name string) color {
	for _, info := range event.Names() {
		switch {
		case string(info.Name) != name:
		case info.Level >= slog.LevelError:
			return red
		case info.Level >= slog.LevelWarn:
			return yellow
		}
	}
	return green
}
