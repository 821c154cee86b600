package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// stepRows shows steps one a line, each with a mark for what it does.
func stepRows(t *table, steps []api.Step) {
	for _, step := range steps {
		mark, c := "~", yellow
		switch director.Action(step.Action) {
		case director.ActionAdd:
			mark, c = "+", green
		case director.ActionRemove:
			mark, c = "-", red
		}
		t.row(t.in(c, mark+" "+step.Text))
	}
}

// printSteps prints them alone.
func printSteps(c *cli.Context, steps []api.Step) error {
	t := &table{palette: colors(c)}
	stepRows(t, steps)
	return t.print(c.App.Writer)
}

// removals counts what the steps take away.
func removals(steps []api.Step) (services, servers int) {
	for _, step := range steps {
		switch {
		case director.Action(step.Action) != director.ActionRemove:
		case step.Server == "":
			services++
		default:
			servers++
		}
	}
	return services, servers
}

// removalText says what the steps take away: "1 service and 2 servers"; "" if
// nothing.
func removalText(steps []api.Step) string {
	services, servers := removals(steps)
	var parts []string
	if services > 0 {
		parts = append(parts, count(services, "service"))
	}
	if servers > 0 {
		parts = append(parts, count(servers, "server"))
	}
	return strings.Join(parts, " and ")
}

// cutBy counts what goes with the steps' removals, as the services were counted
// last.
func cutBy(steps []api.Step, services []api.Service) losses {
	var servers []api.Server
	for _, step := range steps {
		i := slices.IndexFunc(services, func(s api.Service) bool { return s.Listen == step.Service })
		if director.Action(step.Action) != director.ActionRemove || i < 0 {
			continue
		}
		for _, server := range serversOf(services[i]) {
			if step.Server == "" || step.Server == server.Address {
				servers = append(servers, server)
			}
		}
	}
	return lossesOf(servers...)
}

// guardError is a plan that removes more than is allowed without --force.
func guardError(g *api.Guard) error {
	return &api.Problem{Detail: g.Text, Hint: fmt.Sprintf("if %d of %d %s are really to go, say --force", g.Removed, g.Have, g.What)}
}
