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
	draining, err := drainingForeign(c, client, drift)
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
				t.row(t.in(yellow, s.Listen), s.Scheduler, strings.Join(s.Flags, ","), foreignServers(s, draining))
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

// drainingForeign returns which servers, by service and address, are drained in
// foreign services: a configuration does not say it.
func drainingForeign(c *cli.Context, client *api.Client, drift api.Drift) (map[[2]string]bool, error) {
	draining := make(map[[2]string]bool)
	if len(drift.Foreign) == 0 {
		return draining, nil
	}
	services, err := client.Services(c.Context)
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		for _, server := range s.Servers {
			draining[[2]string{s.Listen, server.Address}] = s.Foreign && server.Draining
		}
	}
	return draining, nil
}

func foreignServers(s api.ServiceConfig, draining map[[2]string]bool) string {
	var all []string
	for _, server := range s.Servers {
		text := server.Address
		if draining[[2]string{s.Listen, server.Address}] {
			text += " (draining)"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}
