package main

import (
	"fmt"
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

// severities in the order they are shown, with their colours.
var severities = []struct {
	name  api.FindingSeverity
	color color
}{{"error", red}, {"warning", yellow}, {"unknown", yellow}, {"info", bold}, {"ok", green}}

func doctor(c *cli.Context, client *api.Client) error {
	findings, err := client.Doctor(c.Context)
	if err != nil {
		return err
	}
	shown := slices.DeleteFunc(slices.Clone(findings), func(f api.Finding) bool { return f.Ok && !c.Bool("all") })
	if shown == nil {
		shown = []api.Finding{}
	}
	slices.SortStableFunc(shown, func(a, b api.Finding) int { return rank(a) - rank(b) })
	if c.String("output") == formatTable {
		err = write(c.App.Writer, []byte(doctorText(colors(c), shown, len(findings))))
	} else {
		err = output(c, shown, nil)
	}
	if err != nil {
		return err
	}
	wrong := slices.ContainsFunc(findings, func(f api.Finding) bool { return !f.Ok && f.Severity == "error" })
	if wrong && !c.IsSet("watch") {
		return exitStatus(exitFailed)
	}
	return nil
}

// rank orders findings by severity; one this version does not know comes before
// those that are well.
func rank(f api.Finding) int {
	for i, s := range severities {
		if s.name == f.Severity {
			return i
		}
	}
	return len(severities) - 1
}

// doctorText shows each finding in a paragraph, and counts them.
func doctorText(p palette, findings []api.Finding, checks int) string {
	var text strings.Builder
	counts := map[api.FindingSeverity]int{}
	for _, f := range findings {
		counts[f.Severity]++
		about := f.Check
		if f.Subject != "" {
			about += " " + f.Subject
		}
		c := bold
		for _, s := range severities {
			if s.name == f.Severity {
				c = s.color
			}
		}
		fmt.Fprintf(&text, "%s %s: %s\n", p.in(c, string(f.Severity)), about, f.What)
		if f.Why != "" && !f.Ok {
			fmt.Fprintf(&text, "  why: %s\n", f.Why)
		}
		if f.Fix != "" && !f.Ok {
			fmt.Fprintf(&text, "  fix: %s\n", f.Fix)
		}
	}
	var sums []string
	for _, s := range severities {
		if n := counts[s.name]; n > 0 && s.name != "ok" {
			sums = append(sums, fmt.Sprintf("%d %s", n, s.name))
		}
	}
	if len(sums) == 0 {
		sums = []string{"nothing wrong"}
	}
	fmt.Fprintf(&text, "%s: %s\n", count(checks, "finding"), strings.Join(sums, ", "))
	return text.String()
}
