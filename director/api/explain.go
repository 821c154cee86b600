package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// ExplainConnection answers explainConnection.
func (e endpoints) ExplainConnection(w http.ResponseWriter, r *http.Request, p ExplainConnectionParams) {
	e.read(w, func() (any, error) {
		question, err := parseQuestion(p)
		if err != nil {
			return nil, err
		}
		decision, err := e.director.Decide(r.Context(), question)
		if err != nil {
			return nil, fmt.Errorf("explain %s://%s for %s: %w", question.Protocol, question.Virtual, p.Client, err)
		}
		return e.decisionModel(r.Context(), decision)
	})
}

// parseQuestion reads the parameters. What no packet can be is refused here: the
// data plane would say that it is for no service.
func parseQuestion(p ExplainConnectionParams) (director.Question, error) {
	var q director.Question
	var err error
	if q.Protocol, err = conntrack.ParseProtocol(p.Protocol); err != nil || q.Protocol == conntrack.SCTP {
		return q, invalid(fmt.Sprintf("protocol %.80q: want tcp or udp", p.Protocol), "")
	}
	if q.Client, err = netip.ParseAddrPort(p.Client); err != nil {
		addr, err := netip.ParseAddr(p.Client)
		if err != nil {
			return q, invalid(fmt.Sprintf("client %.80q is not an address", p.Client), "write it as 198.51.100.7, 198.51.100.7:40000 or [2001:db8::7]:40000")
		}
		q.Client = netip.AddrPortFrom(addr, 0)
	}
	if q.Virtual, err = netip.ParseAddrPort(p.Virtual); err != nil || q.Virtual.Port() == 0 {
		return q, invalid(fmt.Sprintf("virtual %.80q is not an address and port", p.Virtual), "write it as 192.0.2.10:80 or [2001:db8::10]:53: the one that the client sends to")
	}
	client, virtual := q.Client.Addr(), q.Virtual.Addr()
	switch {
	case client.Zone() != "" || virtual.Zone() != "":
		return q, invalid("an address in a packet has no zone", "")
	case client.Is4In6() || virtual.Is4In6():
		return q, invalid("an address is an IPv4 address in IPv6 form", "write it as IPv4")
	case client.Is4() != virtual.Is4():
		return q, invalid(fmt.Sprintf("client %s and virtual %s are of different address families", client, virtual), "")
	}
	return q, nil
}

func (e endpoints) decisionModel(ctx context.Context, d director.Decision) (Decision, error) {
	model := Decision{
		Protocol: d.Protocol.String(), Client: d.Client.String(), Virtual: d.Virtual.String(),
		By: string(d.By), Event: d.Event, Scheduler: string(d.Scheduler), Flags: append([]string{}, d.Scheduler.FlagNames(d.Flags)...),
		Candidates: make([]Candidate, 0, len(d.Candidates)), Turn: d.Turn, CurrentWeight: d.CurrentWeight, Slot: d.Slot,
	}
	if d.Service != (director.ServiceKey{}) {
		model.Service, model.Name = d.Service.String(), e.names()[d.Service]
	}
	if d.Server.IsValid() {
		model.Server, model.Method = d.Server.String(), d.Method.String()
	}
	if d.Connection != nil {
		form := connectionForm{timed: d.Connection.Age != 0 || d.Connection.Idle != 0}
		model.Connection = form.model(d.Connection)
	}
	o, err := e.observe(ctx)
	if err != nil {
		return model, err
	}
	draining, unreachable := o.notOffered(d.Service)
	for _, c := range d.Candidates {
		model.Candidates = append(model.Candidates, Candidate{
			Server: c.Server.String(), Weight: c.Weight, Active: c.Active, Inactive: c.Inactive, Overloaded: c.Overloaded, Suspended: c.Suspended,
			Draining: c.Weight == 0 && draining[c.Server], Unreachable: c.Weight == 0 && unreachable[c.Server],
		})
	}
	if d.Event == "" {
		return model, nil
	}
	stats, err := e.director.Stats(ctx)
	if err != nil {
		return model, err
	}
	for _, event := range stats.PacketEvents {
		if event.Name == d.Event {
			model.Help = event.Help
		}
	}
	return model, nil
}
