package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func connWatchCommand() *cli.Command {
	return &cli.Command{
		Name: "watch", Usage: "print connections as they open and close",
		Description: examples("A line for each that opens, is established (has shown that its client is real) or closes (its\n"+
			"entry is gone), until ^C. Who is too slow is not told of all: how many were lost is said on the\n"+
			"standard error, and in the objects of -o jsonl.",
			"shunt conn watch --service web", "shunt conn watch --client 198.51.100.0/24 -o jsonl | jq -r .what"),
		Flags:  append(connectionFlags(), outputFlagOf(formatTable, formatJSONL)),
		Action: asking(watchConnections),
	}
}

// watchConnections prints changes until the context ends. A stream that breaks off is
// opened anew.
func watchConnections(c *cli.Context, client *api.Client) error {
	query, err := connectionQuery(c, client)
	if err != nil {
		return err
	}
	if _, err := client.Status(c.Context); err != nil {
		return err // nobody waits for a daemon that was never there
	}
	for away := false; ; {
		for change, err := range client.WatchConnections(c.Context, query) {
			if err != nil {
				if c.Context.Err() != nil {
					return nil
				}
				if isAway(err) {
					break // it restarts
				}
				return err
			}
			away = false
			if err := printChange(c, change); err != nil {
				return err
			}
		}
		if c.Context.Err() != nil {
			return nil
		}
		if !away {
			away = true
			fmt.Fprintln(c.App.ErrWriter, "shunt: the daemon is away; waiting for it: what happens meanwhile is not shown")
		}
		timer := time.NewTimer(reconnect)
		ok := sleep(c.Context, timer.C)
		timer.Stop()
		if !ok {
			return nil
		}
	}
}

// changeColors are those of what happens.
var changeColors = map[string]color{"opened": yellow, "established": green, "closed": faint}

// printChange prints one change on a line.
func printChange(c *cli.Context, change api.ConnectionChange) error {
	if change.Lost > 0 {
		fmt.Fprintf(c.App.ErrWriter, "shunt: %s lost: this command is too slow for them\n", count(change.Lost, "change"))
	}
	if c.String("output") == formatJSONL {
		text, err := json.Marshal(change)
		if err != nil {
			return fmt.Errorf("print as json: %w", err)
		}
		return write(c.App.Writer, append(text, '\n'))
	}
	one := change.Connection
	text := fmt.Sprintf("%s  %s  %-4s  %s -> %s  %s %s", time.Now().Format(time.TimeOnly),
		colors(c).in(changeColors[change.What], pad(change.What, len("established"), false)),
		one.Protocol, one.Client, one.Virtual, one.Method, one.Server)
	if change.What == "closed" {
		text += "  " + one.State
		if one.Age != nil {
			text += " after " + age(time.Duration(*one.Age))
		}
	}
	if t := one.Traffic; t != nil && change.What != "opened" {
		text += fmt.Sprintf("  %d/%d packets, %s/%s", t.In.Packets, t.Out.Packets, size(t.In.Bytes), size(t.Out.Bytes))
	}
	return write(c.App.Writer, []byte(text+"\n"))
}
