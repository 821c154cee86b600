package main

import (
	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// exitDifferent is the code of `diff --exit-code` where there are differences.
// 1 is taken: it says that the command failed.
const exitDifferent = 3

func diffCommand() *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "show what applying a file, or rolling back, would change", ArgsUsage: "[REVISION] [TO]",
		Description: examples("With -f, the steps `shunt apply` would make. With REVISION, those `shunt rollback` would make;\n"+
			"with TO too, those that lead from the one to the other. + adds, ~ changes or drains, - removes.\n"+
			"The exit code is 0 whether or not there are differences, unless --exit-code is given.",
			"shunt diff -f shunt.yaml", "shunt diff 41", "shunt diff 41 43", "shunt diff -f shunt.yaml --exit-code"),
		Flags: readFlags(fileFlag(),
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 3 if there are differences"}),
		Action: reading(asking(diff)),
	}
}

func diff(c *cli.Context, client *api.Client) error {
	plan, err := planOf(c, client)
	if err != nil {
		return err
	}
	if err := output(c, plan, func(t *table) { planRows(t, plan) }); err != nil {
		return err
	}
	if c.Bool("exit-code") && len(plan.Steps) > 0 && !c.IsSet("watch") {
		return exitStatus(exitDifferent)
	}
	return nil
}

// planOf asks for what the arguments mean.
func planOf(c *cli.Context, client *api.Client) (api.Plan, error) {
	from, to := c.Args().Get(0), c.Args().Get(1)
	switch file := c.String("file"); {
	case file != "" && from != "":
		return api.Plan{}, usage(c, "-f and REVISION exclude each other")
	case file != "":
		cfg, err := loadDesired(c, file)
		if err != nil {
			return api.Plan{}, err
		}
		return client.Plan(c.Context, api.ConfigurationOf(cfg.State))
	case from == "":
		return api.Plan{}, usage(c, "-f FILE or REVISION is missing")
	}
	first, err := revision(c, from)
	if err != nil {
		return api.Plan{}, err
	}
	second := uint64(0)
	if to != "" {
		if second, err = revision(c, to); err != nil {
			return api.Plan{}, err
		}
	}
	return client.Diff(c.Context, first, second)
}

func planRows(t *table, plan api.Plan) {
	if len(plan.Steps) == 0 {
		t.row("no difference")
	}
	stepRows(t, plan.Steps)
	if plan.Guard != nil {
		t.row(t.in(yellow, plan.Guard.Text+": it needs --force"))
	}
}
