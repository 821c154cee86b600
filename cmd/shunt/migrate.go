package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func migrateCommand() *cli.Command {
	return &cli.Command{
		Name: "migrate", Usage: "move live services from one data plane to another",
		Description: examples("", "shunt migrate ipvs-to-xdp --dry-run"),
		Subcommands: []*cli.Command{{
			Name: "ipvs-to-xdp", Usage: "move services of the kernel's IPVS to XDP, without cutting a connection", ArgsUsage: "[SERVICE...]",
			Description: examples("The daemon runs with the data plane xdp, and ipvsadm, keepalived or a shuntd with the data plane\n"+
				"ipvs has made services in the kernel's IPVS. Each SERVICE, or every one, becomes Shunt's with\n"+
				"its servers in their order, its settings and the timeouts and sysctls that hold for it there;\n"+
				"the connections and templates that the kernel has are loaded; then it leaves the kernel's IPVS.\n"+
				"Who made it there must let go of it first, or it makes it anew. Afterwards its address stays\n"+
				"where it is: it is not Shunt's to manage.\n\n"+
				"Firewall rules that the services' packets come by hold for them no more: they are named, and\n"+
				"nothing is moved without --force.",
				"shunt migrate ipvs-to-xdp --dry-run",
				"shunt migrate ipvs-to-xdp tcp://192.0.2.10:80 --why 'faster'"),
			Flags: []cli.Flag{
				whyFlag(),
				&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done, and what hinders"},
				&cli.BoolFlag{Name: "force", Usage: "move although firewall rules will not hold any more"},
				outputFlag(),
			},
			Action: asking(migrate),
		}},
	}
}

func migrate(c *cli.Context, client *api.Client) error {
	order := api.MigrationOrder{Services: c.Args().Slice(), DryRun: c.Bool("dry-run"), Force: c.Bool("force")}
	report, err := client.Migrate(c.Context, order, c.String(flagWhy))
	if err != nil {
		return err
	}
	if err := output(c, report, func(t *table) { drawMigration(t, report, order.DryRun) }); err != nil {
		return err
	}
	if report.Failure != "" {
		return errors.New(report.Failure)
	}
	return nil
}

func drawMigration(t *table, report api.MigrationReport, trial bool) {
	if len(report.Services) == 0 {
		t.row("nothing to move: the kernel's IPVS has no service")
		return
	}
	t.row("SERVICE", "SERVERS", "CONNECTIONS", "SKIPPED", "STATE")
	for _, s := range report.Services {
		state := "moved"
		switch {
		case trial:
			state = "would move"
		case !s.Moved:
			state = "not moved"
		}
		t.row(s.Service, s.Servers, s.Connections, skippedText(s.Skipped), state)
	}
	for _, s := range report.Services {
		for _, note := range s.Notes {
			t.blank()
			t.row(s.Service + ": " + note)
		}
	}
	if len(report.Bypassed) > 0 {
		t.blank()
		if trial {
			t.row("REFUSED WITHOUT --force: PACKETS WOULD NOT COME BY THIS ANY MORE")
		} else {
			t.row("PACKETS DO NOT COME BY THIS ANY MORE")
		}
		for _, rule := range report.Bypassed {
			t.row(t.in(yellow, rule))
		}
	}
}

func skippedText(skipped map[string]uint64) string {
	if len(skipped) == 0 {
		return "0"
	}
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		parts = append(parts, fmt.Sprintf("%d %s", skipped[reason], reason))
	}
	return strings.Join(parts, ", ")
}
