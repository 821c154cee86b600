package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func driftCommand() *cli.Command {
	return &cli.Command{
		Name: "drift", Usage: "where the kernel differs from what is desired, and what in it is not Shunt's",
		Description: examples("Differences are repaired as they are found; what is shown as pending could not be repaired yet.\n"+
			"Foreign services are in the kernel, but nobody told Shunt of them: they are left alone until\n"+
			"`shunt service adopt` takes them over.",
			"shunt drift", "shunt drift --watch"),
		Flags: readFlags(), Action: reading(asking(showDrift)),
	}
}

func showDrift(c *cli.Context, client *api.Client) error {
	drift, err := client.Drift(c.Context)
	if err != nil {
		return err
	}
	return output(c, drift, func(t *table) {
		checked := "never"
		if drift.Checked != nil {
			checked = drift.Checked.Format(time.RFC3339)
		}
		t.row("last compared", checked)
		t.row("found", drift.Found)
		t.row("repaired", drift.Repaired)
		t.row("failed repairs", drift.Failed)
		t.row("pending", pendingCount(t, len(drift.Pending)))
		t.row("foreign services", len(drift.Foreign))
		if len(drift.Pending) > 0 {
			t.blank()
			t.row("PENDING", "CAUSE")
			for _, p := range drift.Pending {
				t.row(t.in(red, p.Step.Text), p.Cause)
			}
		}
		if len(drift.Foreign) > 0 {
			t.blank()
			t.row("FOREIGN", "SCHEDULER", "FLAGS", "SERVERS")
			for _, s := range drift.Foreign {
				t.row(t.in(yellow, s.Listen), s.Scheduler, strings.Join(s.Flags, ","), foreignServers(s))
			}
		}
	})
}

func pendingCount(t *table, n int) string {
	text := fmt.Sprint(n)
	if n > 0 {
		text = t.in(red, text)
	}
	return text
}

func foreignServers(s api.ServiceConfig) string {
	var all []string
	for _, server := range s.Servers {
		all = append(all, server.Address)
	}
	return strings.Join(all, ", ")
}
