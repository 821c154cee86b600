package main

import (
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/director/lease"
	"github.com/shunt-lb/shunt/director/metrics"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/director/xdp"
	"github.com/shunt-lb/shunt/realserver/health"
	"github.com/shunt-lb/shunt/realserver/snmp"
)

// measures returns what is known of servers' health as metrics show it.
func (d *instance) measures() metrics.Health {
	keeper := d.health.keeper
	told := keeper.Notified()
	return metrics.Health{
		Services: serviceMeasures(keeper.Verdicts()), Checks: checkMeasures(d.health.monitor.Stats()), Probing: probingMeasures(d.plane),
		Maintenance: keeper.Away(), Leases: leaseMeasures(d.leases), Hosts: hostMeasures(d.health.hosts),
		Notified: map[[2]string]uint64{
			{"command", "told"}: told.Commands, {"command", "failed"}: told.CommandsFailed, {"command", "skipped"}: told.CommandsSkipped,
			{"pipe", "told"}: told.Lines, {"pipe", "failed"}: told.LinesLost,
		},
	}
}

// serviceMeasures returns the verdicts as metrics show them. A lease's address can be a
// sorry server's too: it is told once.
func serviceMeasures(verdicts []offer.ServiceVerdict) []metrics.ServiceHealth {
	all := make([]metrics.ServiceHealth, 0, len(verdicts))
	for _, service := range verdicts {
		health := metrics.ServiceHealth{
			Service: service.Service, Quorum: service.Quorum, Panic: service.Panic, Sorry: service.Sorry, Weight: service.Weight, Needed: service.Needed,
		}
		seen := map[netip.AddrPort]bool{}
		for _, server := range service.Servers {
			if !seen[server.Server] {
				seen[server.Server] = true
				health.Servers = append(health.Servers, serverMeasures(server))
			}
		}
		all = append(all, health)
	}
	return all
}

func serverMeasures(v offer.Verdict) metrics.ServerHealth {
	health := metrics.ServerHealth{
		Address: v.Server, Up: v.Up, Suspended: v.Suspended, Changes: v.Changes, Suspensions: v.Suspensions, Evidence: v.Evidence,
	}
	if v.Load != nil {
		health.Load = &metrics.Load{Value: v.Load.Value, Share: v.Load.Share}
	}
	for _, step := range v.Steps {
		health.Overridden = health.Overridden || step.Name == offer.StepOverride && step.Why != ""
	}
	for _, check := range v.Checks {
		one := metrics.CheckHealth{
			Kind: string(check.Check.Kind), Passed: check.Status.Successes, Failed: check.Status.Failures, CertificateEnd: check.Status.CertificateEnd,
		}
		if len(check.Status.Last) > 0 {
			one.Took = check.Status.Last[0].Took
		}
		health.Checks = append(health.Checks, one)
	}
	return health
}

func checkMeasures(s health.Stats) metrics.Checks {
	checks := metrics.Checks{
		Asked: s.Keys, Running: s.Running, Overdue: s.Overdue, Waiting: s.Waiting, Lag: s.Lag, Overruns: s.Overruns, Unasked: s.Unasked,
	}
	bounds := health.TimingBounds()
	for _, t := range s.Timings {
		times := metrics.Times{Kind: string(t.Kind), Passed: t.Passed, Count: t.Count, Sum: t.Sum, AtMost: make(map[time.Duration]uint64, len(bounds))}
		for i, n := range t.AtMost {
			times.AtMost[bounds[i]] = n
		}
		checks.Times = append(checks.Times, times)
	}
	return checks
}

// probingMeasures returns what checks by the way of clients' packets take; nil if the
// data plane has no such way.
func probingMeasures(plane dataplane) *metrics.Probing {
	asks, ok := plane.(interface{ Probing() xdp.Probing })
	if !ok {
		return nil
	}
	p := asks.Probing()
	return &metrics.Probing{Ports: p.Ports, Refused: p.Refused}
}

// hostMeasures has every outcome, so that the first failure is a rise.
func hostMeasures(hosts *snmp.Poller) map[string]uint64 {
	counts, all := hosts.Counts(), make(map[string]uint64)
	for _, outcome := range snmp.Outcomes() {
		all[string(outcome)] = counts[outcome]
	}
	return all
}

// leaseMeasures has every reason, so that the first refusal is a rise.
func leaseMeasures(leases *lease.Registry) metrics.Leases {
	counts := leases.Counts()
	all := metrics.Leases{
		Members: map[string][2]int{}, Registered: counts.Registered, Renewed: counts.Renewed, Left: counts.Left, Expired: counts.Expired,
		Reports: counts.Reports, Refused: map[string]uint64{},
	}
	for _, reason := range lease.Reasons() {
		all.Refused[string(reason)] = counts.Refused[reason]
	}
	for _, pool := range leases.Pools() {
		var n [2]int
		for _, server := range leases.Servers(pool) {
			if server.Draining {
				n[1]++
			} else {
				n[0]++
			}
		}
		all.Members[pool] = n
	}
	return all
}
