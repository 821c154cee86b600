package main

import (
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func applyCommand() *cli.Command {
	return &cli.Command{
		Name: "apply", Usage: "make a file what is desired",
		Description: examples("The file is read here, and its services and timeouts are compared with what the kernel has:\n"+
			"only what differs is changed, all of it or nothing. Services that are not in the file are\n"+
			"removed; timeouts that it does not give stay. Its section director is the daemon's and is only\n"+
			"checked. On a terminal, removals are asked about first.",
			"shunt apply -f shunt.yaml",
			"shunt apply -f /etc/shunt/ --dry-run",
			"shunt apply -f - --yes --why 'deploy 2026-11'"),
		Flags:  changeFlags(append([]cli.Flag{fileFlag()}, planFlags()...)...),
		Action: asking(apply),
	}
}

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name: "rollback", Usage: "make an earlier revision what is desired", ArgsUsage: "REVISION",
		Description: examples("It becomes a new revision, so that the history stays whole. `shunt diff REVISION` shows what\n"+
			"would change.\n\n"+
			"Drains are orders of now: those in force go on, and those of the earlier revision do not begin\n"+
			"again. Only a server that comes back, and was drained in that revision, comes back draining,\n"+
			"without a deadline: `shunt server drain --cancel` has it get connections.",
			"shunt rollback 41 --why 'undo the deploy'", "shunt rollback 41 --dry-run"),
		Flags:  changeFlags(planFlags()...),
		Action: asking(rollback),
	}
}

func fileFlag() cli.Flag {
	return &cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "the configuration `FILE`, a folder of them, or - for the standard input"}
}

// planFlags are on every command that carries out a plan.
func planFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "dry-run", Usage: "only print what would be done"},
		yesFlag(),
		&cli.BoolFlag{Name: "force", Usage: "remove a larger share of services or servers than the daemon's removal-limit"},
	}
}

func apply(c *cli.Context, client *api.Client) error {
	if c.String("file") == "" {
		return usage(c, "-f FILE is missing")
	}
	cfg, err := loadDesired(c, c.String("file"))
	if err != nil {
		return err
	}
	configuration := api.ConfigurationOf(cfg.State)
	plan, err := client.Plan(c.Context, configuration)
	if err != nil {
		return err
	}
	return carryOut(c, client, plan, func(t api.Terms) (api.Outcome, error) {
		return client.Apply(c.Context, configuration, t)
	})
}

func rollback(c *cli.Context, client *api.Client) error {
	number, err := revision(c, c.Args().Get(0))
	if err != nil {
		return err
	}
	plan, err := client.Diff(c.Context, number, 0)
	if err != nil {
		return err
	}
	return carryOut(c, client, plan, func(t api.Terms) (api.Outcome, error) {
		return client.Rollback(c.Context, number, t)
	})
}

// revision reads the number of a revision.
func revision(c *cli.Context, text string) (uint64, error) {
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil || number == 0 {
		return 0, &usageError{fmt.Sprintf("%s: revision %q is not a number from 1", commandName(c), text), "`shunt history` lists them"}
	}
	return number, nil
}

// carryOut shows the plan, asks where it removes something, and has it done:
// what was shown and nothing else, for the plan's base is what it is made
// against. A plan without steps may still make a revision, where the kernel is
// ahead of what is desired.
func carryOut(c *cli.Context, client *api.Client, plan api.Plan, do func(api.Terms) (api.Outcome, error)) error {
	if err := printSteps(c, plan.Steps); err != nil {
		return err
	}
	if plan.Guard != nil && !c.Bool("force") {
		return guardError(plan.Guard)
	}
	if c.Bool("dry-run") {
		if len(plan.Steps) == 0 {
			return write(c.App.Writer, []byte("nothing to change\n"))
		}
		return nil
	}
	cut, err := cutting(c, client, plan.Steps)
	if err != nil {
		return err
	}
	if err := confirm(c, removalText(plan.Steps), cut); err != nil {
		return err
	}
	t := terms(c)
	if t.Revision == 0 {
		t.Revision = plan.Base
	}
	outcome, err := do(t)
	if err != nil {
		return err
	}
	if err := sayCut(c, cut); err != nil {
		return err
	}
	return write(c.App.Writer, []byte(outcomeText(outcome)))
}

// cutting counts what would go with what the steps remove.
func cutting(c *cli.Context, client *api.Client, steps []api.Step) (losses, error) {
	if removalText(steps) == "" {
		return losses{}, nil
	}
	services, err := client.Services(c.Context)
	return cutBy(steps, services), err
}

// outcomeText is the last line of what a change prints.
func outcomeText(o api.Outcome) string {
	if !o.Changed {
		return fmt.Sprintf("nothing to change: this is revision %d\n", o.Revision.Number)
	}
	return fmt.Sprintf("revision %d: %s done\n", o.Revision.Number, count(len(o.Steps), "step"))
}
