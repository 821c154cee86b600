package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
)

func schedulerCommand() *cli.Command {
	return &cli.Command{
		Name: "scheduler", Usage: "the scheduling algorithms, and what each would do",
		Description: examples("", "shunt scheduler list", "shunt scheduler simulate --scheduler mh --servers 10.0.0.1:80=3,10.0.0.2:80"),
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the schedulers with what they choose",
				Description: examples("", "shunt scheduler list", "shunt scheduler list -o json"),
				Flags:       []cli.Flag{outputFlag()},
				Action:      listSchedulers,
			},
			{
				Name: "simulate", Usage: "show how a scheduler spreads clients, and whom a change of servers moves",
				Description: examples("Runs a model of the kernel's scheduler, without packets: the clients connect one after another.\n"+
					"They are those of a file, a CLIENT[:PORT] a line and behind it, if it is another, the\n"+
					"VIRTUAL:PORT it connects to; or as many as --count are drawn. --service takes scheduler, servers\n"+
					"and settings as the daemon has them; all other forms ask no daemon. A change is\n"+
					"add:ADDRESS[=WEIGHT], remove:ADDRESS or weight:ADDRESS=WEIGHT: when all have connected their\n"+
					"connections end, the servers change, and the same clients connect anew. Who is with another\n"+
					"server then, or with none, had to move if its server went or has weight 0, and moved without\n"+
					"need if not. Max/mean is the most that a server got for its weight, by the mean.",
					"shunt scheduler simulate --scheduler mh --flags mh-port --servers 10.0.0.1:80=3,10.0.0.2:80 --count 20000",
					"shunt scheduler simulate --service web --clients clients.txt --change remove:10.0.0.11:8080",
					"shunt scheduler simulate -s lblc --servers 10.0.0.1,10.0.0.2 --virtual tcp://192.0.2.0/24:80",
					"shunt scheduler simulate -s sed --servers 10.0.0.1,10.0.0.2 --change add:10.0.0.3 --hold closed -o json"),
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "service", Usage: "simulate `SERVICE` as the daemon has it"},
					&cli.StringFlag{Name: "scheduler", Aliases: []string{"s"}, Usage: "`SCHEDULER` (default: the service's, or " + string(director.DefaultScheduler) + ")"},
					&cli.StringFlag{Name: "flags", Aliases: []string{"b"}, Usage: "the scheduler's `FLAGS`, with commas: sh-port, sh-fallback, mh-port, mh-fallback"},
					&cli.StringFlag{Name: "servers", Usage: "`SERVERS` in the order they are added, ADDRESS[:PORT][=WEIGHT] with commas"},
					&cli.StringFlag{Name: "virtual", Value: defaultVirtual, Usage: "the `URL` that clients connect to; of a prefix, addresses of it are drawn too"},
					&cli.StringFlag{Name: "clients", Usage: "`FILE` with the clients, - for the standard input"},
					&cli.IntFlag{Name: "count", Value: defaultClients, Usage: "draw `N` clients"},
					&cli.Uint64Flag{Name: "seed", Usage: "`NUMBER` to draw by (default: a new one, which is shown)"},
					&cli.StringSliceFlag{Name: "change", Usage: "a `CHANGE` of the servers; for several, give it several times"},
					&cli.StringFlag{
						Name: "hold", Value: string(scheduler.HoldOpen),
						Usage: "what becomes of connections, `WAY`: open (they stay), or closed (each ends before the next)",
						Action: func(c *cli.Context, way string) error {
							if way != string(scheduler.HoldOpen) && way != string(scheduler.HoldClosed) {
								return usage(c, "unknown --hold %q: want %s", way, alternatives(holds))
							}
							return nil
						},
					},
					outputFlag(),
				},
				Action: simulate,
			},
		},
	}
}

// holds are the values of --hold.
var holds = []string{string(scheduler.HoldOpen), string(scheduler.HoldClosed)}

// The defaults of simulate.
const (
	defaultVirtual = "tcp://192.0.2.1:80"
	defaultClients = 10_000
	maxClients     = 1_000_000
)

// listedScheduler is one of `scheduler list`.
type listedScheduler struct {
	Name    director.Scheduler `json:"name"`
	Default bool               `json:"default,omitempty"`
	Flags   []string           `json:"flags"`
	About   string             `json:"about"`
}

func listSchedulers(c *cli.Context) error {
	var all []listedScheduler
	for _, name := range director.Schedulers() {
		s := listedScheduler{Name: name, Default: name == director.DefaultScheduler, Flags: []string{}, About: scheduler.About(name)}
		if name.HasFlags() {
			s.Flags = name.FlagNames(director.SchedulerFlags{Port: true, Fallback: true})
		}
		all = append(all, s)
	}
	return output(c, all, func(t *table) {
		t.row("NAME", "FLAGS", "CHOOSES")
		for _, s := range all {
			about := s.About
			if s.Default {
				about += " (the default)"
			}
			t.row(s.Name, strings.Join(s.Flags, ","), about)
		}
	})
}
