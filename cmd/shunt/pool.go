package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func poolCommand() *cli.Command {
	return &cli.Command{
		Name: "pool", Usage: "servers that registered themselves",
		Description: examples("", "shunt pool list", "shunt pool show web", "shunt pool resolve web"),
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "the servers of all pools, and the services that take them",
				Description: examples("A line a server: who registered it, on what terms, its host's load, since when it is there, and\n"+
					"when its lease ends unless its agent renews it. WEIGHT is the agent's: `shunt health` has what\n"+
					"checks and loads make of it. A pool without servers has a line too. What a service of the pool does\n"+
					"not take is named with the reason, as a server that it is configured with itself.",
					"shunt pool list", "shunt pool list --watch", "shunt pool list -o json"),
				Flags: readFlags(), Action: reading(asking(listPools)),
			},
			{
				Name: "show", Usage: "a pool's servers, with what their hosts say of their loads", ArgsUsage: "POOL",
				Description: examples("LOAD is from 0, idle, to 1, busy; CPU, MEMORY and PRESSURE (time in which tasks waited for a CPU) are shares,\n"+
					"QUEUE is tasks by CPU. UNREACHABLE is how many reported the server so of late: when enough do, its\n"+
					"checks are asked at once.",
					"shunt pool show web", "shunt pool show web -o json"),
				Flags: readFlags(), Action: reading(asking(showPool)),
			},
			{
				Name: "resolve", Usage: "the addresses that a pool's name stands for", ArgsUsage: "POOL",
				Description: examples("An address and its weight a line, by address, without servers that are about to leave. Port 0\n"+
					"is the one of the service.",
					"shunt pool resolve web", "shunt pool resolve web -o json"),
				Flags: readFlags(), Action: reading(asking(resolvePool)),
			},
			{
				Name: "remove", Usage: "take a registered server away; its connections end", ArgsUsage: "POOL AGENT",
				Description: examples("For one whose agent is gone before its lease has ended. An agent that still runs registers its\n"+
					"server again: stop it there, and it drains it first. Of a server that does not drain, a terminal\n"+
					"is asked, and without one --yes is wanted.",
					"shunt pool remove web s1 --yes"),
				Flags:  []cli.Flag{yesFlag()},
				Action: asking(removeMember),
			},
		},
	}
}

func listPools(c *cli.Context, client *api.Client) error {
	list, err := client.Pools(c.Context)
	if err != nil {
		return err
	}
	return output(c, list, func(t *table) {
		t.row("POOL", "AGENT", "SERVER", "METHOD", "WEIGHT", "LOAD", "SINCE", "ENDS-IN", "DRAINING", "SERVICES")
		for _, pool := range list.Pools {
			services := strings.Join(pool.Services, " ")
			if len(pool.Members) == 0 {
				t.row(pool.Name, "", "", "", "", "", "", "", "", services)
			}
			for _, m := range pool.Members {
				load := ""
				if m.Load != nil {
					load = fmt.Sprintf("%.2f", m.Load.Value)
				}
				t.row(pool.Name, m.Agent, m.Address, m.Method, m.Weight, load, m.Since.Local().Format(time.RFC3339), endsIn(m), drainingText(t, m), takenBy(t, pool, m))
			}
		}
		leftOutRows(t, list.Pools...)
		poolCounts(t, list.Counts)
	})
}

// takenBy names the services that take a member of the pool.
func takenBy(t *table, pool api.Pool, m api.Member) string {
	var services []string
	for _, service := range pool.Services {
		if !slices.ContainsFunc(m.LeftOut, func(l api.LeftOut) bool { return l.Service == service }) {
			services = append(services, service)
		}
	}
	if len(services) == 0 {
		return t.in(yellow, "none")
	}
	return strings.Join(services, " ")
}

// leftOutRows says which services do not take which members, and why; nothing if they
// take all.
func leftOutRows(t *table, pools ...api.Pool) {
	told := false
	for _, pool := range pools {
		for _, m := range pool.Members {
			for _, l := range m.LeftOut {
				if !told {
					told = true
					t.blank()
					t.row("POOL", "AGENT", "NOT TAKEN BY", "WHY")
				}
				t.row(pool.Name, m.Agent, l.Service, t.in(yellow, l.Why))
			}
		}
	}
}

// poolCounts says what was counted since the daemon's start.
func poolCounts(t *table, counts api.LeaseCounts) {
	t.blank()
	t.row("REGISTERED", "RENEWED", "LEFT", "EXPIRED", "REPORTED", "REFUSED")
	var refused []string
	for reason, n := range counts.Refused {
		refused = append(refused, fmt.Sprintf("%s %d", reason, n))
	}
	slices.Sort(refused)
	t.row(counts.Registered, counts.Renewed, counts.Left, counts.Expired, counts.Reports, strings.Join(refused, ", "))
}

// endsIn says when a lease ends unless it is renewed.
func endsIn(m api.Member) string { return max(time.Until(m.Until), 0).Round(time.Second).String() }

func drainingText(t *table, m api.Member) string {
	if m.Draining {
		return t.in(yellow, "yes")
	}
	return "no"
}

func showPool(c *cli.Context, client *api.Client) error {
	pool, err := client.Pool(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	return output(c, pool, func(t *table) {
		t.row("pool", pool.Name)
		for i, service := range pool.Services {
			t.row(label(i, "services"), service)
		}
		if len(pool.Services) == 0 {
			t.row("services", t.in(yellow, "none takes servers from it"))
		}
		t.blank()
		t.row("AGENT", "SERVER", "METHOD", "WEIGHT", "SINCE", "LEASE", "ENDS-IN", "DRAINING", "UNREACHABLE")
		for _, m := range pool.Members {
			t.row(m.Agent, m.Address, m.Method, m.Weight, m.Since.Local().Format(time.RFC3339), m.Lifetime, endsIn(m), drainingText(t, m), m.Unreachable)
		}
		t.blank()
		t.row("AGENT", "LOAD", "CPU", "QUEUE", "PRESSURE", "MEMORY", "CONNECTIONS", "SAID")
		for _, m := range pool.Members {
			loadRow(t, m)
		}
		leftOutRows(t, pool)
	})
}

// loadRow shows what an agent said of its host; what it did not say is a dash.
func loadRow(t *table, m api.Member) {
	l := m.Load
	if l == nil {
		t.row(m.Agent, "", "", "", "", "", "", "")
		return
	}
	part := func(share *float64) string {
		if share == nil {
			return ""
		}
		return fmt.Sprintf("%.2f", *share)
	}
	connections, said := "", ""
	if l.Connections != nil {
		connections = fmt.Sprint(*l.Connections)
	}
	if m.LoadAt != nil {
		said = m.LoadAt.Local().Format(time.RFC3339)
	}
	t.row(m.Agent, part(&l.Value), part(l.CPU), part(l.RunQueue), part(l.Pressure), part(l.Memory), connections, said)
}

// resolved is a server that a pool's name stands for.
type resolved struct {
	Address string `json:"address"`
	Method  string `json:"method"`
	Weight  uint32 `json:"weight"`
}

func resolvePool(c *cli.Context, client *api.Client) error {
	pool, err := client.Pool(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	servers := []resolved{}
	for _, m := range pool.Members {
		if !m.Draining {
			servers = append(servers, resolved{m.Address, m.Method, m.Weight})
		}
	}
	slices.SortFunc(servers, func(a, b resolved) int { return compareAddress(a.Address, b.Address) })
	return output(c, servers, func(t *table) {
		for _, server := range servers {
			t.row(server.Address, server.Weight)
		}
	})
}

func removeMember(c *cli.Context, client *api.Client) error {
	name, agent := c.Args().Get(0), c.Args().Get(1)
	pool, err := client.Pool(c.Context, name)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(pool.Members, func(m api.Member) bool { return m.Agent == agent })
	if i >= 0 && !pool.Members[i].Draining { // of none the daemon says so
		what := fmt.Sprintf("server %s of agent %s from pool %s", pool.Members[i].Address, agent, name)
		if !c.Bool("yes") && !canAnswer(streamsOf(c)) {
			return &api.Problem{
				Detail: fmt.Sprintf("%s: %s is in use: its connections would end; nothing was changed", commandName(c), what),
				Hint:   "stop its agent, which drains it first, or end them by --yes",
			}
		}
		if err := confirm(c, what+", whose connections end", losses{}); err != nil {
			return err
		}
	}
	return client.RemoveMember(c.Context, name, agent)
}
