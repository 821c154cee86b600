package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// minDeadline is the shortest --deadline: the daemon keeps whole seconds.
const minDeadline = time.Second

func drainCommand() *cli.Command {
	return &cli.Command{
		Name: "drain", Usage: "take a server out while its connections go on", ArgsUsage: "SERVICE ADDRESS[:PORT]",
		Description: examples("It gets no new connections, and its templates of persistence are not used, until --cancel gives\n"+
			"it back or it is removed; its weight stays as it is. The order outlives the daemon, and neither\n"+
			"apply nor rollback ends it, nor, of a server that an agent registered, a lease that ends. At the deadline an event tells what is left; with --kill that is\n"+
			"removed, and without a deadline it is removed at once.\n\n"+
			"Of a server that is being drained only what is named is changed: --kill=false leaves the\n"+
			"deadline, --deadline 2h whether what is left is removed then, and --deadline none takes both\n"+
			"away.\n\n"+
			"No client is turned away while another server is left: dh, sh and mh too lead those of the\n"+
			"server to others, and nobody else, as weight 0 does not.\n\n"+
			"--wait prints what is left as it changes, and ends when nothing is (exit code 0), or at a\n"+
			"deadline that kills nothing (1). `shunt drains` shows all drains.",
			"shunt server drain web 10.0.0.11:8080 --why 'kernel update'",
			"shunt server drain web 10.0.0.11:8080 --deadline 10m --kill --wait && shunt server remove web 10.0.0.11:8080",
			"shunt server drain web 10.0.0.11:8080 --cancel"),
		Flags: changeFlags(
			&cli.StringFlag{Name: "deadline", Aliases: []string{"d"}, Usage: "what is left is due to be gone in `DURATION` such as 10m; none: never (default)"},
			&cli.BoolFlag{Name: "kill", Usage: "remove what is left at the deadline; without one, at once"},
			&cli.BoolFlag{Name: "cancel", Usage: "give the server new connections again"},
			&cli.BoolFlag{Name: "wait", Usage: "follow the drain to its end"},
			yesFlag(),
		),
		Action: asking(drain),
	}
}

func drain(c *cli.Context, client *api.Client) error {
	if c.Bool("cancel") && (c.IsSet("deadline") || c.Bool("kill") || c.Bool("wait")) {
		return usage(c, "--cancel goes with none of --deadline, --kill and --wait")
	}
	within, err := timeout(c, "deadline")
	if err != nil {
		return err
	}
	order := api.DrainOrder{Kill: c.Bool("kill")}
	if within != nil && *within > 0 {
		if time.Duration(*within) < minDeadline {
			return usage(c, "--deadline %s: want %s or more; without one --kill removes at once", c.String("deadline"), minDeadline)
		}
		order.Within = within
	}
	ref, address := c.Args().Get(0), c.Args().Get(1)
	var at drained
	err = exact(c, client, ref, address, func() error {
		if c.Bool("cancel") {
			_, err := client.CancelDrain(c.Context, ref, address, terms(c))
			return err
		}
		service, err := client.Service(c.Context, ref)
		if err != nil {
			return err
		}
		servers := serversOf(service)
		if i := serverAt(service.Listen, servers, address); i >= 0 {
			server := servers[i]
			at = drained{service: service.Listen, server: server.Address}
			order = keepTerms(c, order, server.Drain)
			if c.Bool("kill") && cutsAtOnce(order, server.Drain) { // one that stands was asked about
				if err := confirmKill(c, at, lossesOf(server)); err != nil {
					return err
				}
			}
		} // else the daemon says what is wrong
		_, err = client.DrainServer(c.Context, ref, address, order, terms(c))
		return err
	})
	if err != nil || c.Bool("cancel") {
		return err
	}
	if c.Bool("wait") {
		return at.wait(c, client)
	}
	d, err := at.status(c, client)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("server %s of %s: %s%s\n", d.Server, d.Service, drainText(d), deadlineText(d))
	if d.Phase != string(director.PhaseDrained) {
		text += "`shunt drains --watch` follows it\n"
	}
	return write(c.App.Writer, []byte(text))
}

// keepTerms adds to the order what it leaves as it is of the standing one. Without
// its deadline a kill would be one at once: it goes with it unless it is said.
func keepTerms(c *cli.Context, order api.DrainOrder, standing *api.Drain) api.DrainOrder {
	if standing == nil {
		return order
	}
	if !c.IsSet("deadline") && standing.Deadline != nil {
		order.Deadline = new(standing.Deadline.Format(time.RFC3339))
	}
	if !c.IsSet("kill") && (order.Within != nil || !c.IsSet("deadline")) {
		order.Kill = standing.Kill
	}
	return order
}

// cutsAtOnce reports whether the order, with kill, gives what is left no time: it
// has no deadline, or the standing one, which has passed.
func cutsAtOnce(order api.DrainOrder, standing *api.Drain) bool {
	if order.Within != nil {
		return false
	}
	return order.Deadline == nil || standing != nil && director.DrainPhase(standing.Phase) == director.PhaseOverdue
}

// confirmKill asks before connections are cut at once; those of a deadline have
// been given their time. Where nobody can answer, it wants --yes.
func confirmKill(c *cli.Context, at drained, cut losses) error {
	if cut == (losses{}) || c.Bool("yes") {
		return nil
	}
	what := fmt.Sprintf("%s of server %s of %s", cut, at.server, at.service)
	if !canAnswer(streamsOf(c)) {
		return &api.Problem{
			Detail: fmt.Sprintf("%s: --kill would cut %s at once, without a deadline to come; nothing was changed", commandName(c), what),
			Hint:   "give them time by --deadline, or cut them by --yes",
		}
	}
	return confirm(c, what, losses{})
}

// errDrainEnded is what a drain that is not there any more is told by.
var errDrainEnded = errors.New("it is not being drained any more: the drain was cancelled, or the server removed")

// drained is a server that is being drained.
type drained struct{ service, server string }

// status reads how far the drain is.
func (s drained) status(c *cli.Context, client *api.Client) (api.DrainStatus, error) {
	all, err := client.Drains(c.Context)
	if err != nil {
		return api.DrainStatus{}, err
	}
	for _, d := range all {
		if d.Service == s.service && d.Server == s.server {
			return d, nil
		}
	}
	return api.DrainStatus{}, fmt.Errorf("%s: server %s of %s: %w", commandName(c), s.server, s.service, errDrainEnded)
}

// drainText says how far a drain is.
func drainText(d api.DrainStatus) string {
	left := d.Active + d.Inactive + d.UDP
	if left == 0 {
		return "drained: no connection is left"
	}
	return fmt.Sprintf("%s: %s left (%d active, %d inactive, %d udp)", d.Phase, count(left, "connection"), d.Active, d.Inactive, d.UDP)
}

// deadlineText says what becomes of what is left.
func deadlineText(d api.DrainStatus) string {
	switch phase := director.DrainPhase(d.Phase); {
	case phase == director.PhaseDrained:
		return ""
	case phase == director.PhaseOverdue && d.Kill:
		return ", being removed"
	case phase == director.PhaseOverdue || d.Deadline == nil:
		return ""
	case d.Kill:
		return ", to be removed at " + d.Deadline.Local().Format(time.RFC3339)
	default:
		return ", due at " + d.Deadline.Local().Format(time.RFC3339)
	}
}
