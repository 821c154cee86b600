package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func historyCommand() *cli.Command {
	return &cli.Command{
		Name: "history", Usage: "the revisions: who changed what, when and why",
		Description: examples("", "shunt history", "shunt history --limit 5", "shunt history show 42"),
		Flags:       historyFlags(), Action: reading(asking(listHistory)),
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list revisions, the newest first",
				Description: examples("", "shunt history list --limit 0 -o json"),
				Flags:       historyFlags(), Action: reading(asking(listHistory)),
			},
			{
				Name: "show", Usage: "show what a revision changed, or its configuration", ArgsUsage: "REVISION",
				Description: examples("", "shunt history show 42", "shunt history show 42 --config > old.yaml"),
				Flags:       readFlags(&cli.BoolFlag{Name: "config", Usage: "print the whole configuration of the revision, as `shunt export` does"}),
				Action:      reading(asking(showRevision)),
			},
		},
	}
}

func historyFlags() []cli.Flag {
	return readFlags(&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 20, Usage: "the newest `N`; 0: all"})
}

func listHistory(c *cli.Context, client *api.Client) error {
	limit := c.Int("limit")
	if limit < 0 {
		return usage(c, "--limit %d: want 0 or more", limit)
	}
	revisions := []api.RevisionInfo{}
	for r, err := range client.Revisions(c.Context) {
		if err != nil {
			return err
		}
		revisions = append(revisions, r)
		if len(revisions) == limit {
			break
		}
	}
	return output(c, revisions, func(t *table) {
		t.row("REVISION", "TIME", "WHO", "ACTION", "WHY")
		for _, r := range revisions {
			t.row(r.Number, r.Time.Format(time.RFC3339), r.Who, r.Action, r.Why)
		}
	})
}

// revisionShown is what `history show` prints: a revision with the steps that
// led to it.
type revisionShown struct {
	api.RevisionInfo
	Steps []api.Step `json:"steps"`
}

func showRevision(c *cli.Context, client *api.Client) error {
	number, err := revision(c, c.Args().Get(0))
	if err != nil {
		return err
	}
	r, err := client.Revision(c.Context, number)
	if err != nil {
		return err
	}
	if c.Bool("config") {
		return printConfiguration(c, r)
	}
	shown := revisionShown{RevisionInfo: api.RevisionInfo{Number: r.Number, Time: r.Time, Who: r.Who, Why: r.Why, Action: r.Action}}
	steps, err := stepsTo(c, client, number)
	if err != nil {
		return err
	}
	shown.Steps = steps
	return output(c, shown, func(t *table) {
		t.row("revision", r.Number)
		t.row("time", r.Time.Format(time.RFC3339))
		t.row("who", r.Who)
		t.row("action", r.Action)
		t.row("why", r.Why)
		t.blank()
		switch {
		case number == 1:
			t.row("the first revision: --config shows it")
		case len(steps) == 0:
			t.row("no difference to the one before, or that is kept no more")
		default:
			stepRows(t, steps)
		}
	})
}

// stepsTo returns the steps from the revision before; none where that is kept no
// more.
func stepsTo(c *cli.Context, client *api.Client, number uint64) ([]api.Step, error) {
	if number == 1 {
		return []api.Step{}, nil
	}
	plan, err := client.Diff(c.Context, number-1, number)
	if isNotFound(err) {
		return []api.Step{}, nil
	}
	return plan.Steps, err
}
