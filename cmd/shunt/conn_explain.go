package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/scheduler"
	"github.com/shunt-lb/shunt/realserver"
)

func connExplainCommand() *cli.Command {
	return &cli.Command{
		Name: "explain", Usage: "say which server a client would get, and why", ArgsUsage: "SERVICE",
		Description: examples("The data plane decides as it would on the client's first packet to the address, and changes\n"+
			"nothing. SERVICE is the URL of the address and port that the client sends to, or the name of a\n"+
			"service that has only one. Without a port in --from one is drawn that has no connection: the\n"+
			"schedulers that look at it may answer otherwise for another.",
			"shunt conn explain tcp://192.0.2.10:80 --from 198.51.100.7:40000",
			"shunt conn explain web --from 198.51.100.7 -o json"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "the client, `ADDRESS[:PORT]`"},
			outputFlag(), watchFlag(),
		},
		Action: reading(asking(explain)),
	}
}

func explain(c *cli.Context, client *api.Client) error {
	from := c.String("from")
	if from == "" {
		return usage(c, "--from ADDRESS[:PORT] is missing")
	}
	url := c.Args().Get(0)
	if !strings.Contains(url, "://") {
		var err error
		if url, err = listenOf(c, client, url); err != nil {
			return err
		}
	}
	key, err := director.ParseServiceKey(url)
	if err != nil {
		return err
	}
	if key.IsMark() {
		return &usageError{
			fmt.Sprintf("conn explain: %s is of a firewall mark, which no address and port tells", url),
			"give the URL of the address and port that the client sends to",
		}
	}
	if key.IsWide() {
		return &usageError{
			fmt.Sprintf("conn explain: %s is more than one address and port", url),
			fmt.Sprintf("name the one that the client sends to, such as %s://%s", key.Protocol, someAddress(key)),
		}
	}
	if inner, ok := strings.CutPrefix(from, "["); ok && strings.HasSuffix(inner, "]") { // of no port
		from = strings.TrimSuffix(inner, "]")
	}
	decision, err := client.Explain(c.Context, key.Protocol.String(), from, key.Address.String())
	if err != nil {
		return err
	}
	return output(c, decision, func(t *table) { decisionTable(t, decision) })
}

// someAddress is an address and port of the service.
func someAddress(key director.ServiceKey) netip.AddrPort {
	if key.Address.Port() == 0 {
		return netip.AddrPortFrom(key.Address.Addr(), 80)
	}
	return key.Address
}

func decisionTable(t *table, d api.Decision) {
	client := d.Client
	if addr, err := netip.ParseAddrPort(client); err == nil && addr.Port() == 0 {
		client = addr.Addr().String()
	}
	t.row("client", client)
	t.row("sends to", d.Protocol+"://"+d.Virtual)
	service := d.Service
	if d.Name != "" {
		service += " (" + d.Name + ")"
	}
	t.row("service", service)
	if d.Server == "" {
		t.row("gets", t.in(red, "no server"))
	} else {
		t.row("gets", t.in(green, d.Server)+" by "+d.Method)
		methodRow(t, d)
	}
	t.row("because", because(d))
	if d.Scheduler == "" {
		return
	}
	t.row("scheduler", strings.Join(append([]string{d.Scheduler}, d.Flags...), " "))
	if d.Slot >= 0 {
		t.row("slot", fmt.Sprintf("%d of its table", d.Slot))
	}
	if director.Scheduler(d.Scheduler) == director.WeightedRoundRobin {
		t.row("current weight", d.CurrentWeight)
	}
	if len(d.Candidates) > 0 {
		t.blank()
		candidateTable(t, d)
	}
}

// methodRow says what a method does to packets that the other names do not tell.
func methodRow(t *table, d api.Decision) {
	switch d.Method {
	case realserver.Tunnel.String():
		t.row("reached", "packets go there wrapped, and the server answers the client itself")
	case realserver.FullNAT.String():
		sees := "an address of this director's"
		if d.Connection != nil && d.Connection.Local != "" {
			sees = d.Connection.Local
		}
		t.row("reached", "the server sees "+sees+", and answers to that")
	}
}

// because says what decided.
func because(d api.Decision) string {
	left := ""
	if d.Connection != nil {
		left = ", which expires in " + minutes(d.Connection.Expires)
	}
	switch by := director.DecisionBy(d.By); {
	case by == director.ByConnection && d.Connection != nil:
		return "it has a connection, " + d.Connection.State + left
	case by == director.ByConnection:
		return "it has a connection"
	case by == director.ByTemplate && d.Connection != nil:
		having := ""
		if n := d.Connection.Controlled; n != nil {
			having = " with " + count(uint64(*n), "connection")
		}
		return "of persistence: " + clientNetwork(*d.Connection) + " has a template" + having + left
	case by == director.ByTemplate:
		return "of persistence: it has a template"
	case by == director.ByScheduler:
		return "the scheduler chooses it"
	case d.Help != "":
		return d.Event + ": " + d.Help
	default:
		return d.Event
	}
}

// candidateTable shows what the scheduler looks at, in the order it walks.
func candidateTable(t *table, d api.Decision) {
	cost, weighs := scheduler.Compares(director.Scheduler(d.Scheduler))
	header := []any{"CANDIDATE", "WEIGHT", "ACTIVE", "INACTIVE"}
	if cost != nil {
		header = append(header, "OVERHEAD")
	}
	if weighs {
		header = append(header, "BY WEIGHT")
	}
	t.row(append(header, "NOTE")...)
	for i, one := range d.Candidates {
		row := []any{one.Server, one.Weight, one.Active, one.Inactive}
		var overhead int64
		if cost != nil {
			overhead = cost(scheduler.Load{Active: int64(one.Active), Inactive: int64(one.Inactive)})
			row = append(row, overhead)
		}
		switch {
		case weighs && one.Weight > 0:
			row = append(row, fmt.Sprintf("%.2f", float64(overhead)/float64(one.Weight)))
		case weighs:
			row = append(row, "")
		}
		t.row(append(row, candidateNote(t, d, i))...)
	}
}

// candidateNote says what is to be known of a candidate besides its numbers.
func candidateNote(t *table, d api.Decision, i int) string {
	one := d.Candidates[i]
	var notes []string
	if d.Server != "" && sameServer(one.Server, d.Server) {
		note := "chosen"
		switch director.DecisionBy(d.By) {
		case director.ByConnection:
			note = "has the connection"
		case director.ByTemplate:
			note = "has the template"
		}
		notes = append(notes, t.in(green, note))
	}
	if i == d.Turn {
		notes = append(notes, "had the last turn")
	}
	if one.Overloaded {
		notes = append(notes, t.in(yellow, "overloaded"))
	}
	if one.Suspended {
		notes = append(notes, t.in(yellow, "suspended by what packets told of it"))
	}
	why := "weight 0"
	switch {
	case one.Draining:
		why = "draining"
	case one.Unreachable:
		why = "unreachable"
	case one.Weight > 0:
		why = ""
	}
	if why != "" {
		notes = append(notes, t.in(yellow, why+": gets no new connections"))
	}
	return strings.Join(notes, ", ")
}

// sameServer reports whether a candidate is the server, whose port is the
// client's where the candidate has none of its own.
func sameServer(candidate, server string) bool {
	if candidate == server {
		return true
	}
	a, errA := netip.ParseAddrPort(candidate)
	b, errB := netip.ParseAddrPort(server)
	return errA == nil && errB == nil && a.Port() == 0 && a.Addr() == b.Addr()
}
