package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/scheduler"
)

// simulation is the answer of `scheduler simulate`.
type simulation struct {
	Service   string             `json:"service,omitempty"`
	Scheduler director.Scheduler `json:"scheduler"`
	Flags     []string           `json:"flags"`
	Virtual   string             `json:"virtual"`
	Clients   int                `json:"clients"`
	Seed      *uint64            `json:"seed,omitempty"` // of clients that were drawn, and of twos
	Hold      string             `json:"hold"`
	Spread    simulatedSpread    `json:"spread"`
	Changes   []string           `json:"changes,omitempty"`
	Changed   *simulatedSpread   `json:"changed,omitempty"` // the spread after the changes
	Moved     *simulatedMove     `json:"moved,omitempty"`
}

// simulatedSpread is a spread; shares are of 1.
type simulatedSpread struct {
	Servers []simulatedShare `json:"servers"`
	Refused int              `json:"refused"`
	// MaxOverMean is how many times its share by weight the most loaded server has.
	MaxOverMean float64 `json:"max-over-mean"`
}

type simulatedShare struct {
	Server      string  `json:"server"`
	Weight      uint32  `json:"weight"`
	Connections int     `json:"connections"`
	Share       float64 `json:"share"`
	Expected    float64 `json:"expected"` // share by weight
}

// simulatedMove is who has another server after the changes.
type simulatedMove struct {
	Clients          int     `json:"clients"`
	HadTo            int     `json:"had-to"`
	WithoutNeed      int     `json:"without-need"`
	Share            float64 `json:"share"` // of all clients; so are the next two
	HadToShare       float64 `json:"had-to-share"`
	WithoutNeedShare float64 `json:"without-need-share"`
}

func simulate(c *cli.Context) error {
	service, err := simulatedService(c)
	if err != nil {
		return err
	}
	changes, err := simulatedChanges(c, service)
	if err != nil {
		return err
	}
	seed, drawn := c.Uint64("seed"), !c.IsSet("clients")
	if !c.IsSet("seed") {
		seed = uint64(rand.Uint32())
	}
	requests, err := simulatedRequests(c, service.Key, seed)
	if err != nil {
		return err
	}
	answer := simulation{
		Service: service.Name, Scheduler: service.Scheduler, Flags: append([]string{}, service.Scheduler.FlagNames(service.Flags)...),
		Virtual: service.Key.String(), Clients: len(requests), Hold: c.String("hold"), Changes: c.StringSlice("change"),
	}
	if drawn || service.Scheduler == director.TwoRandomChoices {
		answer.Seed = &seed
	}
	model, err := scheduler.NewSimulation(service, scheduler.Options{
		Random: newRandom(seed).Uint32N, SetLimit: scheduler.FastPathSetLimit,
	})
	if err != nil {
		return err
	}
	hold := scheduler.Hold(answer.Hold)
	before, err := runSimulation(c, model, requests, hold)
	if err != nil {
		return err
	}
	answer.Spread = spreadAnswer(before)
	if len(changes) > 0 {
		model.EndAll()
		for _, change := range changes {
			change(model)
		}
		after, err := runSimulation(c, model, requests, hold)
		if err != nil {
			return err
		}
		changed, moved := spreadAnswer(after), before.MovedTo(after)
		answer.Changed = &changed
		answer.Moved = &simulatedMove{
			Clients: moved.HadTo + moved.WithoutNeed, HadTo: moved.HadTo, WithoutNeed: moved.WithoutNeed,
			Share:      ratio(moved.HadTo+moved.WithoutNeed, len(requests)),
			HadToShare: ratio(moved.HadTo, len(requests)), WithoutNeedShare: ratio(moved.WithoutNeed, len(requests)),
		}
	}
	return output(c, answer, func(t *table) { drawSimulation(t, answer) })
}

// runSimulation runs the model, which takes a minute for a million clients and
// some hundred servers, until it is through or interrupted: the process ends then.
func runSimulation(c *cli.Context, model *scheduler.Simulation, requests []scheduler.Request, hold scheduler.Hold) (scheduler.Spread, error) {
	done := make(chan scheduler.Spread, 1) // one result, sent once
	go func() { done <- model.Run(requests, hold) }()
	select {
	case spread := <-done:
		return spread, nil
	case <-c.Context.Done():
		return scheduler.Spread{}, fmt.Errorf("%s: interrupted", commandName(c))
	}
}

// simulatedService reads what is to be simulated.
func simulatedService(c *cli.Context) (director.Service, error) {
	var service director.Service
	if c.IsSet("service") {
		for _, other := range []string{"servers", "virtual"} {
			if c.IsSet(other) {
				return service, usage(c, "--service and --%s exclude each other", other)
			}
		}
		err := asking(func(c *cli.Context, client *api.Client) error {
			return lookUp(c, client, c.String("service"), func(ref string) error {
				known, err := client.Service(c.Context, ref)
				if err != nil {
					return err
				}
				service, err = serviceOf(known)
				return err
			})
		})(c)
		if err != nil {
			return service, err
		}
	} else {
		if !c.IsSet("servers") {
			return service, usage(c, "--servers or --service is missing")
		}
		var err error
		if service.Key, err = director.ParseServiceKey(c.String("virtual")); err != nil {
			return service, usage(c, "--virtual: %v", err)
		}
		service.Scheduler = director.DefaultScheduler
		if service.Servers, err = parseServers(c, service.Key); err != nil {
			return service, err
		}
	}
	if c.IsSet("scheduler") {
		service.Scheduler, service.Flags = director.Scheduler(c.String("scheduler")), director.SchedulerFlags{}
		if !service.Scheduler.Known() {
			return service, usage(c, "unknown --scheduler %q: want %s", c.String("scheduler"), schedulerNames())
		}
	}
	if c.IsSet("flags") {
		service.Flags = director.SchedulerFlags{}
	}
	for _, word := range words(c.String("flags")) {
		if err := service.Flags.Set(service.Scheduler, word); err != nil {
			return service, usage(c, "--flags: %v", err)
		}
	}
	return service, nil
}

// serviceOf is a service of the daemon as it would be simulated. A server without
// a next hop is offered with weight 0, as one that is drained.
func serviceOf(known api.Service) (director.Service, error) {
	service, err := known.Configured()
	if err != nil {
		return service, fmt.Errorf("simulate %s: %w", known.Listen, err)
	}
	for i, server := range known.Servers {
		service.Servers[i].Draining = server.Draining || !server.Reachable
	}
	return service, nil
}

func spreadAnswer(s scheduler.Spread) simulatedSpread {
	answer := simulatedSpread{Servers: []simulatedShare{}, Refused: s.Refused, MaxOverMean: rounded(s.Uneven)}
	served := len(s.Chosen) - s.Refused
	for _, share := range s.Servers {
		answer.Servers = append(answer.Servers, simulatedShare{
			Server: share.Server.String(), Weight: share.Weight, Connections: share.Connections,
			Share: ratio(share.Connections, served), Expected: rounded(share.Expected / float64(max(served, 1))),
		})
	}
	return answer
}

func ratio(n, of int) float64 { return rounded(float64(n) / float64(max(of, 1))) }

// rounded keeps four decimals.
func rounded(x float64) float64 { return math.Round(x*10_000) / 10_000 }

func percent(share float64) string { return fmt.Sprintf("%.1f %%", share*100) }

func drawSimulation(t *table, s simulation) {
	name := string(s.Scheduler)
	if len(s.Flags) > 0 {
		name += " (" + strings.Join(s.Flags, ",") + ")"
	}
	clients := count(s.Clients, "connection") + ", held " + s.Hold
	if s.Seed != nil {
		clients += fmt.Sprintf(", seed %d", *s.Seed)
	}
	t.row(name + " for " + s.Virtual + ": " + clients)
	t.blank()
	drawSpread(t, s.Spread)
	if s.Changed == nil {
		return
	}
	t.blank()
	t.row("after " + strings.Join(s.Changes, ", ") + ":")
	t.blank()
	drawSpread(t, *s.Changed)
	t.blank()
	t.row("moved", percent(s.Moved.Share), count(s.Moved.Clients, "connection"))
	t.row("  had to", percent(s.Moved.HadToShare), s.Moved.HadTo)
	t.row("  without need", percent(s.Moved.WithoutNeedShare), s.Moved.WithoutNeed)
}

func drawSpread(t *table, s simulatedSpread) {
	t.row("SERVER", "WEIGHT", "CONNECTIONS", "SHARE", "BY WEIGHT")
	for _, share := range s.Servers {
		t.row(share.Server, share.Weight, share.Connections, percent(share.Share), percent(share.Expected))
	}
	if s.Refused > 0 {
		t.row("refused", "", s.Refused)
	}
	t.blank()
	t.row(fmt.Sprintf("max/mean by weight: %.2f", s.MaxOverMean))
}
