package api

import (
	"context"
	"net/http"

	"github.com/shunt-lb/shunt/director"
)

// AdoptServices answers adoptServices.
func (e endpoints) AdoptServices(w http.ResponseWriter, r *http.Request, p AdoptServicesParams) {
	e.perform(w, r, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request) (performed, error) {
		var body AdoptionOrder
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return performed{}, err
		}
		keys := make([]director.ServiceKey, 0, len(body.Services))
		for _, url := range body.Services {
			key, err := director.ParseFoundKey(url)
			if err != nil {
				return performed{}, err
			}
			keys = append(keys, key)
		}
		if body.Services != nil && len(keys) == 0 {
			return performed{}, invalid("services is empty", "leave it out for all foreign services")
		}
		adoption, err := e.director.Adopt(ctx, by, keys...)
		return performed{answer: adoptionModel(ctx, adoption), revision: adoption.Revision.Number}, err
	})
}

func adoptionModel(ctx context.Context, a director.Adoption) AdoptionReport {
	outcome := outcomeModel(ctx, a.Outcome)
	model := AdoptionReport{
		Changed: outcome.Changed, Revision: outcome.Revision, Steps: outcome.Steps,
		Adopted: []string{}, Refused: []NotAdopted{},
	}
	for _, key := range a.Adopted {
		model.Adopted = append(model.Adopted, key.String())
	}
	for _, refusal := range a.Refused {
		p := problemOf(about(refusal.Err, ProblemCodeServiceExists, ProblemCodeNoService))
		if p.Status == http.StatusNotFound {
			p.Hint = "`shunt drift` shows which there are"
		}
		model.Refused = append(model.Refused, NotAdopted{Service: refusal.Service.String(), Problem: *p})
	}
	return model
}
