package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// healthChanges is how many of the last changes the table of one server, or service,
// ends with.
const healthChanges = 10

func healthCommand() *cli.Command {
	return &cli.Command{
		Name: "health", Usage: "whether servers are up, since when, and why", ArgsUsage: "[SERVICE [SERVER]]",
		Description: examples("Without SERVICE a line a server of each service. With it also what each step made of its servers\n"+
			"(as configured, by `shunt server set`, by health, by load), the last results of their checks with the\n"+
			"time they took, and the last changes with their reasons. WEIGHT is what a server is offered with.",
			"shunt health", "shunt health web --watch", "shunt health web 10.0.0.11:8080", "shunt health -o json"),
		Flags: readFlags(), Action: reading(asking(showHealth)),
	}
}

func showHealth(c *cli.Context, client *api.Client) error {
	ref, address := c.Args().Get(0), c.Args().Get(1)
	changes := 0
	if ref != "" {
		listen, err := listenOf(c, client, ref)
		if err != nil {
			return err
		}
		ref, changes = listen, healthChanges
		if address != "" {
			changes = 4096 // those of others are left out
		}
	}
	report, err := client.Health(c.Context, ref, changes)
	if err != nil {
		return err
	}
	if address != "" {
		if report, err = ofServer(c, report, address); err != nil {
			return err
		}
	}
	return output(c, report, func(t *table) {
		healthSummary(t, report)
		if ref != "" {
			healthDetails(t, report)
		}
	})
}

// ofServer returns what the report says of one server, by its address, with or without
// the port.
func ofServer(c *cli.Context, report api.HealthReport, address string) (api.HealthReport, error) {
	one := api.HealthReport{Services: []api.ServiceHealth{}}
	means := func(server string) bool {
		parsed, err := netip.ParseAddrPort(server)
		return server == address || err == nil && parsed.Addr().String() == address
	}
	for _, service := range report.Services {
		servers := []api.ServerHealth{}
		for _, server := range service.Servers {
			if means(server.Server) {
				servers = append(servers, server)
			}
		}
		if len(servers) > 0 {
			service.Servers = servers
			one.Services = append(one.Services, service)
		}
	}
	if len(one.Services) == 0 {
		return one, &usageError{fmt.Sprintf("health: server %s of %s: not found", address, c.Args().Get(0)), "`shunt health " + c.Args().Get(0) + "` shows those that are there"}
	}
	for _, change := range report.Changes {
		if means(change.Server) && len(one.Changes) < healthChanges {
			one.Changes = append(one.Changes, change)
		}
	}
	return one, nil
}

func healthSummary(t *table, report api.HealthReport) {
	t.row("SERVICE", "NAME", "SERVER", "STATE", "WEIGHT", "SINCE", "WHY")
	for _, service := range report.Services {
		for _, server := range service.Servers {
			since := ""
			if server.Since != nil {
				since = server.Since.Local().Format(time.RFC3339)
			}
			t.row(service.Service, service.Name, server.Server, healthState(t, service, server), server.Weight, since, server.Why)
		}
	}
}

// healthState says in a word what a server is.
func healthState(t *table, service api.ServiceHealth, server api.ServerHealth) string {
	words := []string{t.in(red, "down")}
	if server.Up {
		words[0] = t.in(green, "up")
	}
	if server.Origin != "configured" {
		words = append(words, server.Origin)
	}
	for _, extra := range []struct {
		is   bool
		word string
	}{
		{server.Withdrawn, "withdrawn"},
		{server.Suspended, "suspended"},
		{server.Held != nil, "held"},
		{service.Panic && server.Origin != "sorry", "panic"},
		{!service.Quorum, "no quorum"},
	} {
		if extra.is {
			words = append(words, t.in(yellow, extra.word))
		}
	}
	return strings.Join(words, ", ")
}

// healthDetails shows what follows the summary of one service.
func healthDetails(t *table, report api.HealthReport) {
	for _, service := range report.Services {
		t.blank()
		quorum := "lost"
		if service.Quorum {
			quorum = "there"
		}
		t.row("QUORUM", "WEIGHT UP", "NEEDED", "PANIC", "SORRY SERVERS")
		t.row(quorum, service.Weight, service.Needed, yesNo(service.Panic), yesNo(service.Sorry))
		t.blank()
		t.row("SERVER", "STEP", "WEIGHT", "WHY")
		for _, server := range service.Servers {
			for _, step := range server.Steps {
				t.row(server.Server, step.Step, step.Weight, step.Why)
			}
		}
		t.blank()
		t.row("SERVER", "CHECK", "ASKED", "STATE", "PASSED", "FAILED", "LAST", "TOOK", "RESULT")
		for _, server := range service.Servers {
			for _, check := range server.Checks {
				checkRows(t, server.Server, check)
			}
		}
	}
	if len(report.Changes) > 0 {
		t.blank()
		t.row("TIME", "SERVER", "CHANGE", "WHY")
		for _, change := range report.Changes {
			t.row(change.Time.Local().Format(time.RFC3339), change.Server, change.What, change.Why)
		}
	}
}

// checkRows shows a check, with a line for each of its last results.
func checkRows(t *table, server string, check api.CheckHealth) {
	state := t.in(yellow, "not known yet")
	switch {
	case check.Overdue:
		state = t.in(red, "overdue")
	case check.Known && check.Up:
		state = t.in(green, "up")
	case check.Known:
		state = t.in(red, "down")
	}
	if check.Warning != "" {
		state += ", " + t.in(yellow, check.Warning)
	}
	kind := check.Check.Kind
	if check.Check.TLS != nil {
		kind += "+tls"
	}
	head := []any{server, kind, check.Target, state, check.Successes, check.Failures}
	if len(check.Last) == 0 {
		t.row(append(head, "", "", "")...)
	}
	for i, result := range check.Last {
		if i > 0 {
			head = []any{"", "", "", "", "", ""}
		}
		text := t.in(red, "failed")
		if result.Passed {
			text = t.in(green, "passed")
		}
		if result.Text != "" {
			text += ": " + result.Text
		}
		t.row(append(head, result.At.Local().Format(time.RFC3339), result.Took, text)...)
	}
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
