package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
)

func connResizeCommand() *cli.Command {
	return &cli.Command{
		Name: "resize", Usage: "make room for more connections, or for fewer", ArgsUsage: "[CONNECTIONS]",
		Description: examples("While traffic flows: connections come over to new tables one by one. If any is lost, for it\n"+
			"finds no room in a smaller table, that is said and the exit code is 1. CONNECTIONS are of IPv4, and\n"+
			"IPv6's stay as they are unless --ipv6 is given. A size is a number, or has a unit: 64Ki, 4Mi.\n"+
			"The daemon's next start goes by its configuration: change connections.max there, too.",
			"shunt conn resize 4Mi", "shunt conn resize 4Mi --ipv6 1Mi", "shunt conn resize --ipv6 64Ki"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "ipv6", Usage: "make room for `CONNECTIONS` of IPv6"},
			outputFlag(),
		},
		Action: asking(resizeTables),
	}
}

func resizeTables(c *cli.Context, client *api.Client) error {
	var sizes api.TableSizes
	if !c.Args().Present() && !c.IsSet("ipv6") {
		return usage(c, "CONNECTIONS is missing, or --ipv6")
	}
	var err error
	if c.Args().Present() {
		if sizes.IPv4, err = parseConnections(c.Args().First()); err != nil {
			return usage(c, "%v", err)
		}
	}
	if c.IsSet("ipv6") {
		if sizes.IPv6, err = parseConnections(c.String("ipv6")); err != nil {
			return usage(c, "--ipv6: %v", err)
		}
	}
	resized, err := client.ResizeTables(c.Context, sizes)
	if err != nil {
		return err
	}
	err = output(c, resized, func(t *table) {
		t.row("TABLE", "BEFORE", "NOW")
		t.row("ipv4", resized.Before.IPv4, resized.After.IPv4)
		t.row("ipv6", resized.Before.IPv6, resized.After.IPv6)
		t.blank()
		took := time.Duration(resized.Took)
		if resized.Lost+resized.Evicted == 0 {
			t.row(fmt.Sprintf("connections there is room for; resized in %s, none was lost", took))
			return
		}
		t.row(fmt.Sprintf("connections there is room for; resized in %s", took))
		if resized.Lost > 0 {
			t.row(t.in(red, fmt.Sprintf("%s lost, templates included; %d came over", count(resized.Lost, "connection"), resized.Carried)))
		}
		if resized.Evicted > 0 {
			t.row(t.in(yellow, count(resized.Evicted, "unproven connection")+" gave way meanwhile"))
		}
	})
	if err == nil && resized.Lost > 0 {
		return exitStatus(exitFailed)
	}
	return err
}

// parseConnections reads a size as connections.max has it.
func parseConnections(text string) (uint64, error) {
	var s config.Settings
	err := s.SetConnections(text)
	return s.MaxConnections, err
}

func connCheckCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "compare the connection tables with themselves and the services",
		Description: examples("While traffic flows: what a second look does not find again is no fault. Faults are bugs of\n"+
			"Shunt's; with any the exit code is 1.",
			"shunt conn check", "shunt conn check -o json"),
		Flags:  readFlags(),
		Action: reading(asking(checkConnections)),
	}
}

func checkConnections(c *cli.Context, client *api.Client) error {
	check, err := client.CheckConnections(c.Context)
	if err != nil {
		return err
	}
	err = output(c, check, func(t *table) {
		if len(check.Faults) == 0 {
			t.row("no faults: " + count(check.Connections, "connection")) // the keys are as old as the last sweep
			return
		}
		t.row("FAULT", "OF", "FOUND")
		for _, f := range check.Faults {
			t.row(t.in(red, f.Kind), f.What, f.Found)
		}
	})
	if err == nil && len(check.Faults) > 0 && !c.IsSet("watch") {
		return exitStatus(exitFailed)
	}
	return err
}
