package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "look for what is wrong with the host, and say what fixes it",
		Description: examples("The daemon looks; `shuntd doctor` does where none runs. The exit code is 1 if an error was\n"+
			"found, and 0 if there are only warnings.",
			"shunt doctor", "shunt doctor --all", "shunt doctor -o json"),
		Flags:  readFlags(&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "checks that passed too"}),
		Action: reading(asking(doctor)),
	}
}

func doctor(c *cli.Context, client *api.Client) error {
	findings, err := client.Doctor(c.Context)
	if err != nil {
		return err
	}
	api.SortFindings(findings)
	shown := findings
	if !c.Bool("all") {
		shown = api.NotableFindings(findings)
	}
	err = output(c, shown, func(t *table) {
		for _, f := range shown {
			severity := string(f.Severity)
			text := strings.TrimSuffix(f.String(), "\n")
			t.row(t.in(severityColor(f.Severity), severity) + strings.TrimPrefix(text, severity))
		}
		t.row(api.CountFindings(findings))
	})
	if err != nil {
		return err
	}
	wrong := slices.ContainsFunc(findings, func(f api.Finding) bool { return f.Severity == api.FindingSeverityError })
	if wrong && !c.IsSet("watch") {
		return exitStatus(exitFailed)
	}
	return nil
}

func severityColor(severity api.FindingSeverity) color {
	switch severity {
	case api.FindingSeverityError:
		return red
	case api.FindingSeverityWarning, api.FindingSeverityUnknown:
		return yellow
	case api.FindingSeverityOk:
		return green
	default:
		return bold
	}
}
