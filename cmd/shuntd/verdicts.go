package main

import (
	"net/netip"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver/health"
)

// verdicts shows a Keeper's verdicts in the words of the API.
type verdicts struct{ keeper *offer.Keeper }

var _ api.HealthSource = verdicts{}

// Health implements api.HealthSource.
func (v verdicts) Health(keys ...director.ServiceKey) []api.ServiceHealth {
	var all []api.ServiceHealth
	for _, service := range v.keeper.Verdicts(keys...) {
		model := api.ServiceHealth{
			Service: service.Service.String(), Name: service.Name, Quorum: service.Quorum, QuorumSince: when(service.QuorumSince),
			Weight: service.Weight, Needed: service.Needed, Panic: service.Panic, Sorry: service.Sorry, Servers: []api.ServerHealth{},
		}
		for _, server := range service.Servers {
			model.Servers = append(model.Servers, serverHealth(server))
		}
		all = append(all, model)
	}
	return all
}

// HealthChanges implements api.HealthSource.
func (v verdicts) HealthChanges(key director.ServiceKey, limit int) []api.HealthChange {
	var all []api.HealthChange
	for _, change := range v.keeper.History(key, netip.AddrPort{}, limit) {
		model := api.HealthChange{Time: change.At.UTC(), Service: change.Service.String(), What: string(change.What), Why: change.Why}
		if change.Server.IsValid() {
			model.Server = change.Server.String()
		}
		all = append(all, model)
	}
	return all
}

func serverHealth(v offer.Verdict) api.ServerHealth {
	model := api.ServerHealth{
		Server: v.Server.String(), Origin: string(v.Origin), Up: v.Up, Since: when(v.Since), Why: v.Why, Weight: v.Weight,
		Withdrawn: v.Withdrawn, Suspended: v.Suspended, Held: when(v.Held), Changes: v.Changes, Suspensions: v.Suspensions, Steps: []api.HealthStep{}, Checks: []api.CheckHealth{},
	}
	if e := v.Evidence; e != nil {
		model.Evidence = &api.Evidence{Unanswered: e.Unanswered, Resets: e.Resets, Unreachable: e.Unreachable}
	}
	if v.Load != nil {
		model.Load = &api.LoadState{Value: v.Load.Value, Share: v.Load.Share}
	}
	for _, step := range v.Steps {
		model.Steps = append(model.Steps, api.HealthStep{Step: string(step.Name), Weight: step.Weight, Why: step.Why})
	}
	for _, check := range v.Checks {
		s := check.Status
		one := api.CheckHealth{
			Check: api.CheckModel(check.Check), Target: asked(check.Key.Target, check.Check.Port), Known: s.Known, Up: s.Up, Since: when(s.Since), Reason: s.Reason,
			Warning: s.Warning, CertificateEnd: when(s.CertificateEnd), Overdue: s.Overdue, Successes: s.Successes, Failures: s.Failures, Last: []api.CheckResult{},
		}
		for _, result := range s.Last {
			one.Last = append(one.Last, checkResult(result))
		}
		model.Checks = append(model.Checks, one)
	}
	return model
}

// asked returns the address that is asked: the check's own port stands before the
// server's.
func asked(target health.Target, port uint16) string {
	if port != 0 {
		return netip.AddrPortFrom(target.Server.Addr(), port).String()
	}
	return target.Server.String()
}

func checkResult(r health.Result) api.CheckResult {
	model := api.CheckResult{At: r.At.UTC(), Took: api.Duration(r.Took.Round(time.Microsecond)), Passed: r.Err == nil, Text: firstLine(r.Detail)}
	if r.Err != nil {
		model.Text = r.Err.Error()
	}
	return model
}

// firstLine returns the first line of what a command said, which stands for all of it
// where lines are a table's.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.ReplaceAll(line, "\t", " ")
}

// when returns a time in UTC; nil for the zero one.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
