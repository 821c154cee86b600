package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/shunt-lb/shunt/director"
)

// Migration is what POST /v1/migration asks for.
type Migration struct {
	Services []director.ServiceKey // empty: all
	Force    bool                  // although firewall rules would be bypassed
	DryRun   bool
}

// Migrate answers migrate.
func (e endpoints) Migrate(w http.ResponseWriter, r *http.Request, p MigrateParams) {
	report, err := func() (MigrationReport, error) {
		var body MigrationOrder
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return MigrationReport{}, err
		}
		order := Migration{Force: body.Force, DryRun: body.DryRun}
		for _, url := range body.Services {
			key, err := director.ParseServiceKey(url)
			if err != nil {
				return MigrationReport{}, err
			}
			if !slices.Contains(order.Services, key) {
				order.Services = append(order.Services, key)
			}
		}
		by, err := terms{nil, p.ShuntWhy, nil}.request(callerOf(r.Context()))
		if err != nil {
			return MigrationReport{}, err
		}
		if e.opts.Migrate == nil {
			return MigrationReport{}, fmt.Errorf("migrate: %w by the data plane %s: services are moved to xdp, and a shuntd that starts with it takes its own over", director.ErrUnsupported, e.opts.Dataplane)
		}
		// A move runs to its end even when the caller has gone.
		return e.opts.Migrate(context.WithoutCancel(r.Context()), by, order)
	}()
	// What was moved before a failure is told together with that.
	moved := slices.ContainsFunc(report.Services, func(s MigratedService) bool { return s.Moved })
	if err != nil && !moved {
		writeProblem(w, e.changeProblem(about(err, "", ProblemCodeNoService)))
		return
	}
	if err != nil {
		report.Failure = err.Error()
	}
	writeJSON(w, http.StatusOK, report)
}

// bypassedProblem is that of rules which a move would take packets past; nil if
// the error is another.
func bypassedProblem(err error) *Problem {
	bypassed, ok := errors.AsType[*director.BypassedError](err)
	if !ok {
		return nil
	}
	detail := err.Error()
	for _, rule := range bypassed.Rules {
		detail += "\n" + rule
	}
	return newProblem(http.StatusConflict, "bypassed", detail, "if they need not hold for the services, say so: --force")
}
