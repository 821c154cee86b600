package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// healthChanges is how many of the last changes the table of one server, or service,
// ends with.
const healthChanges = 10

// maxHealthChanges is how many the daemon keeps.
const maxHealthChanges = 4096

// How many of a check's last results are shown: of one server all that are kept.
const (
	fewResults = 3
	allResults = 1 << 10
)

func healthCommand() *cli.Command {
	return &cli.Command{
		Name: "health", Usage: "whether servers are up, since when, and why", ArgsUsage: "[SERVICE [SERVER]]",
		Description: examples("Without SERVICE a line a server of each service. With it also what each step made of its servers\n"+
			"(as configured, by `shunt server set`, by health, by load), what packets told, the last results of their\n"+
			"checks with the time they took (all that are kept of one SERVER), and the last changes with their\n"+
			"reasons. WEIGHT is what a server is offered with.",
			"shunt health", "shunt health web --watch", "shunt health --changes 100", "shunt health web 10.0.0.11:8080", "shunt health -o json"),
		Flags:  readFlags(&cli.IntFlag{Name: "changes", Usage: "with the last `N` changes, 4096 at most; of SERVICE 10 unless given"}),
		Action: reading(asking(showHealth)),
	}
}

func showHealth(c *cli.Context, client *api.Client) error {
	ref, address := c.Args().Get(0), c.Args().Get(1)
	changes := c.Int("changes")
	if changes < 0 || changes > maxHealthChanges {
		return usage(c, "--changes %d: want 0 to %d", changes, maxHealthChanges)
	}
	if ref != "" {
		listen, err := listenOf(c, client, ref)
		if err != nil {
			return err
		}
		ref = listen
		if !c.IsSet("changes") {
			changes = healthChanges
		}
	}
	asked := changes
	if address != "" {
		asked = maxHealthChanges // those of others are left out
	}
	report, err := client.Health(c.Context, ref, asked)
	if err != nil {
		return err
	}
	if address != "" {
		if report, err = ofServer(c, report, address, changes); err != nil {
			return err
		}
	}
	return output(c, report, func(t *table) {
		healthSummary(t, report)
		if ref != "" {
			results := fewResults
			if address != "" {
				results = allResults
			}
			healthDetails(t, report, results)
		}
		healthHistory(t, report.Changes)
	})
}

// downBy returns the servers, each with its service, that orders, checks or packets let
// have no new connections; of all services if listen is "". It stands beside what was
// asked, which is shown without it where it cannot be had: of a foreign service, or of
// a daemon before such things.
func downBy(c *cli.Context, client *api.Client, listen string) map[[2]string]bool {
	report, err := client.Health(c.Context, listen, 0)
	if err != nil {
		return nil
	}
	down := map[[2]string]bool{}
	for _, service := range report.Services {
		for _, server := range service.Servers {
			if !server.Up {
				down[[2]string{service.Service, server.Server}] = true
			}
		}
	}
	return down
}

// ofServer returns what the report says of one server, by its address, with or without
// the port.
func ofServer(c *cli.Context, report api.HealthReport, address string, changes int) (api.HealthReport, error) {
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
		if means(change.Server) && len(one.Changes) < changes {
			one.Changes = append(one.Changes, change)
		}
	}
	return one, nil
}

func healthSummary(t *table, report api.HealthReport) {
	t.row("SERVICE", "NAME", "SERVER", "STATE", "WEIGHT", "SINCE", "WHY")
	for _, service := range report.Services {
		if len(service.Servers) == 0 {
			t.row(service.Service, service.Name, "", t.in(yellow, "no servers"), 0, "", "")
		}
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
func healthDetails(t *table, report api.HealthReport, results int) {
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
			for i, step := range server.Steps {
				// One that had nothing to say changed nothing.
				if i == 0 || step.Why != "" || step.Weight != server.Steps[i-1].Weight {
					t.row(server.Server, step.Step, step.Weight, step.Why)
				}
			}
		}
		packetRows(t, service)
		t.blank()
		t.row("SERVER", "CHECK", "ASKED", "STATE", "PASSED", "FAILED", "LAST", "TOOK", "RESULT")
		for _, server := range service.Servers {
			for _, check := range server.Checks {
				checkRows(t, server.Server, check, results)
			}
		}
	}
}

// healthHistory shows changes, newest first.
func healthHistory(t *table, changes []api.HealthChange) {
	if len(changes) == 0 {
		return
	}
	t.blank()
	t.row("TIME", "SERVICE", "SERVER", "CHANGE", "WHY")
	for _, change := range changes {
		t.row(change.Time.Local().Format(time.RFC3339), change.Service, change.Server, change.What, change.Why)
	}
}

// packetRows shows what packets and loads tell of a service's servers, where they do.
func packetRows(t *table, service api.ServiceHealth) {
	tells := func(s api.ServerHealth) bool { return s.Evidence != nil || s.Load != nil }
	if !slices.ContainsFunc(service.Servers, tells) {
		return
	}
	t.blank()
	t.row("SERVER", "CHANGES", "SUSPENDED", "UNANSWERED", "RESETS", "UNREACHABLE", "LOAD", "LEAVES")
	for _, server := range service.Servers {
		if !tells(server) {
			continue
		}
		row := []any{server.Server, server.Changes, server.Suspensions, "", "", ""}
		if e := server.Evidence; e != nil {
			row = append(row[:3], e.Unanswered, e.Resets, e.Unreachable)
		}
		load, leaves := "", ""
		if l := server.Load; l != nil {
			load, leaves = fmt.Sprintf("%.2f", l.Value), fmt.Sprintf("%.0f%%", 100*l.Share)
		}
		t.row(append(row, load, leaves)...)
	}
}

// checkRows shows a check, with a line for each of so many of its last results.
func checkRows(t *table, server string, check api.CheckHealth, results int) {
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
	for i, result := range check.Last[:min(len(check.Last), results)] {
		if i > 0 {
			head = []any{" ", " ", " ", " ", " ", " "}
		}
		text := t.in(red, "failed")
		if result.Passed {
			text = t.in(green, "passed")
		}
		if result.Text != "" {
			text += ": " + result.Text
		}
		t.row(append(head, result.At.Local().Format(time.RFC3339), shortDuration(result.Took), text)...)
	}
}

// shortDuration leaves three digits or four: how long a probe took varies more.
func shortDuration(d api.Duration) api.Duration {
	unit := time.Microsecond
	for time.Duration(d) >= 10000*unit {
		unit *= 10
	}
	return api.Duration(time.Duration(d).Round(unit))
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
