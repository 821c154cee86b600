package api

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// HealthSource is what decides on what is offered of servers.
type HealthSource interface {
	// Health returns what is offered of every service by key; of no other than those
	// given, if some are. What is returned is the caller's to change.
	Health(keys ...director.ServiceKey) []ServiceHealth
	// HealthChanges returns up to limit of the last changes, of all services for the zero
	// key, newest first.
	HealthChanges(key director.ServiceKey, limit int) []HealthChange
}

// maxHealthChanges is how many changes can be asked for.
const maxHealthChanges = 4096

// ListHealth answers listHealth.
func (e endpoints) ListHealth(w http.ResponseWriter, r *http.Request, p ListHealthParams) {
	report, err := e.health(p)
	if err == nil && !seesSecrets(r.Context()) {
		err = redactHealth(report.Services)
	}
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	writeJSON(w, http.StatusOK, report)
}

func (e endpoints) health(p ListHealthParams) (HealthReport, error) {
	if p.Changes != nil && (*p.Changes < 0 || *p.Changes > maxHealthChanges) {
		return HealthReport{}, invalid(fmt.Sprintf("changes %d is out of range: want 0 to %d", *p.Changes, maxHealthChanges), "")
	}
	var keys []director.ServiceKey
	var only director.ServiceKey
	if p.Service != nil {
		key, err := e.resolve(*p.Service)
		if err != nil {
			return HealthReport{}, err
		}
		if e.director.State().Service(key) < 0 {
			return HealthReport{}, about(fmt.Errorf("service %s: %w", key, director.ErrNotFound), "", ProblemCodeNoService)
		}
		keys, only = []director.ServiceKey{key}, key
	}
	if e.opts.Health == nil {
		return HealthReport{}, fmt.Errorf("health: %w: this daemon checks no servers", director.ErrUnsupported)
	}
	report := HealthReport{Services: append([]ServiceHealth{}, e.opts.Health.Health(keys...)...)}
	if p.Changes != nil && *p.Changes > 0 {
		report.Changes = e.opts.Health.HealthChanges(only, *p.Changes)
	}
	return report, nil
}

// healthSummary is what services' health comes to.
func healthSummary(services []ServiceHealth) *HealthSummary {
	sum := &HealthSummary{WithoutQuorum: []string{}, Panic: []string{}, Sorry: []string{}}
	for _, service := range services {
		for _, list := range []struct {
			is bool
			to *[]string
		}{{!service.Quorum, &sum.WithoutQuorum}, {service.Panic, &sum.Panic}, {service.Sorry, &sum.Sorry}} {
			if list.is {
				*list.to = append(*list.to, service.Service)
			}
		}
		for _, server := range service.Servers {
			if !server.Up {
				sum.Down++
			}
			if server.Suspended {
				sum.Suspended++
			}
			if slices.ContainsFunc(server.Steps, func(s HealthStep) bool { return s.Step == stepOverride && s.Why != "" }) {
				sum.Overridden++
			}
		}
	}
	return sum
}

// stepOverride is director/offer's word for the step of an operator's order.
const stepOverride = "override"

// CheckModel returns a check as the API shows it.
func CheckModel(c realserver.Check) Check { return checkModel(c) }
