package main

import (
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/realserver"
)

// checked says of the director's servers what checks would: all are up but those on
// port 80, unless an order says otherwise.
type checked struct{ director *director.Director }

var checkedAt = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

func (c checked) Health(keys ...director.ServiceKey) []api.ServiceHealth {
	var all []api.ServiceHealth
	state := c.director.State()
	for _, service := range state.Services {
		if len(keys) > 0 && service.Key != keys[0] {
			continue
		}
		model := api.ServiceHealth{Service: service.Key.String(), Name: service.Name, Needed: 1, Servers: []api.ServerHealth{}}
		for _, server := range service.Servers {
			up, why := server.Address.Port() != 80, "tcp: connection refused"
			if up {
				why = "tcp: connected"
			}
			result := api.CheckResult{At: checkedAt, Took: api.Duration(1200 * time.Microsecond), Passed: up, Text: why[len("tcp: "):]}
			check := api.CheckHealth{
				Check: api.CheckModel(realserver.Check{Kind: realserver.CheckTCP}.WithDefaults()), Target: server.Address.String(), Known: true, Up: up,
				Since: &checkedAt, Reason: result.Text, Successes: 7, Failures: 3, Last: []api.CheckResult{result, result},
			}
			steps := []api.HealthStep{{Step: "configured", Weight: server.Weight}, {Step: "override", Weight: server.Weight}}
			if order, ok := state.Override(service.Key, server.Address); ok {
				up, why = order.Up, "set by "+order.Who
				steps[1].Why = why
			}
			one := api.ServerHealth{
				Server: server.Address.String(), Origin: "configured", Up: up, Since: &checkedAt, Why: why, Steps: steps, Checks: []api.CheckHealth{check},
			}
			if server.Address.Port() == 80 {
				one.Changes, one.Suspensions = 5, 1
				one.Evidence, one.Load = &api.Evidence{Resets: 3}, &api.LoadState{Value: 0.4, Share: 1.25}
			}
			if up {
				one.Weight = server.Weight
				model.Weight += uint64(server.Weight)
			}
			model.Servers = append(model.Servers, one)
		}
		model.Quorum = model.Weight >= model.Needed
		all = append(all, model)
	}
	return all
}

func (c checked) HealthChanges(key director.ServiceKey, limit int) []api.HealthChange {
	all := []api.HealthChange{
		{Time: checkedAt.Add(time.Minute), Service: key.String(), Server: "10.0.0.12:80", What: "down", Why: "tcp: connection refused"},
		{Time: checkedAt, Service: key.String(), Server: "10.0.0.11:8080", What: "up", Why: "tcp: connected"},
	}
	return all[:min(limit, len(all))]
}
