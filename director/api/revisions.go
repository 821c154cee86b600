package api

import (
	"context"
	"net/http"

	"github.com/shunt-lb/shunt/director"
)

// ListRevisions answers listRevisions.
func (e endpoints) ListRevisions(w http.ResponseWriter, _ *http.Request, p ListRevisionsParams) {
	e.read(w, func() (any, error) {
		size, err := pageSize(p.Limit)
		if err != nil {
			return nil, err
		}
		before := uint64(0)
		if p.Before != nil {
			if before = *p.Before; before == 0 {
				return nil, invalid("before: revision 0: they are numbered from 1", "leave it out to begin with the newest")
			}
		}
		infos, err := e.director.History(before, size)
		if err != nil {
			return nil, err
		}
		list := RevisionList{Revisions: []RevisionInfo{}}
		for _, info := range infos {
			list.Revisions = append(list.Revisions, revisionInfo(info))
		}
		if n := len(infos); n == size && infos[n-1].Number > 1 {
			list.Next = infos[n-1].Number
		}
		return list, nil
	})
}

// GetRevision answers getRevision.
func (e endpoints) GetRevision(w http.ResponseWriter, r *http.Request, number Number) {
	e.readAt(w, func() (any, uint64, error) {
		revision, err := e.director.Revision(number)
		return revisionModel(r.Context(), revision, e.director.Features()), revision.Number, revisionError(err)
	})
}

// DiffRevisions answers diffRevisions.
func (e endpoints) DiffRevisions(w http.ResponseWriter, r *http.Request, number Number, p DiffRevisionsParams) {
	e.read(w, func() (any, error) {
		from, err := e.director.Revision(number)
		if err != nil {
			return nil, revisionError(err)
		}
		if p.To == nil {
			plan, err := e.director.Plan(r.Context(), from.State)
			if err != nil {
				return nil, e.changeProblem(err)
			}
			return planModel(r.Context(), plan), nil
		}
		to, err := e.director.Revision(*p.To)
		if err != nil {
			return nil, revisionError(err)
		}
		return Plan{Base: number, Steps: stepModels(r.Context(), director.Between(from.State, to.State))}, nil
	})
}

// Rollback answers rollback.
func (e endpoints) Rollback(w http.ResponseWriter, r *http.Request, number Number, p RollbackParams) {
	e.change(w, r, terms{p.IfMatch, p.ShuntWhy, p.Force}, func(ctx context.Context, by director.Request) (director.Outcome, string, error) {
		outcome, err := e.director.Rollback(ctx, by, number)
		return outcome, "", revisionError(err)
	})
}

// revisionError gives what is not found the hint that fits.
func revisionError(err error) error {
	if p := problemOf(err); err != nil && p.Status == http.StatusNotFound {
		p.Code, p.Hint = ProblemCodeNoRevision, "`shunt history` shows which there are"
		return p
	}
	return err
}

func revisionInfo(i director.RevisionInfo) RevisionInfo {
	return RevisionInfo{Number: i.Number, Time: i.Time.UTC(), Who: i.Who, Why: i.Why, Action: i.Action}
}

func revisionModel(ctx context.Context, r director.Revision, features director.Features) Revision {
	model := Revision{
		Number: r.Number, Time: r.Time.UTC(), Who: r.Who, Why: r.Why, Action: r.Action,
		Configuration: desired(shown(ctx, r.State), features),
	}
	for _, d := range r.State.Drains {
		model.Drained = append(model.Drained, DrainedServer{Service: d.Service.String(), Server: d.Server.String(), Since: d.Since.UTC()})
	}
	for _, o := range r.State.Overrides {
		model.Overridden = append(model.Overridden, OverriddenServer{Service: o.Service.String(), Server: o.Server.String(), Override: orderModel(o)})
	}
	return model
}

func outcomeModel(ctx context.Context, o director.Outcome) Outcome {
	return Outcome{Changed: o.Changed, Revision: revisionInfo(o.Revision), Steps: stepModels(ctx, o.Steps)}
}

func planModel(ctx context.Context, p director.PlanOf) Plan {
	model := Plan{Base: p.Base, Steps: stepModels(ctx, p.Steps)}
	if g := p.Guard; g != nil {
		model.Guard = &Guard{What: g.What, Removed: g.Removed, Have: g.Have, Limit: g.Limit, Text: g.Error()}
	}
	return model
}

func stepModels(ctx context.Context, steps []director.Step) []Step {
	models := make([]Step, 0, len(steps))
	for _, step := range steps {
		models = append(models, stepModel(ctx, step))
	}
	return models
}

func stepModel(ctx context.Context, s director.Step) Step {
	if !seesSecrets(ctx) {
		s = s.Redact()
	}
	model := Step{Action: string(s.Action), Changes: []Difference{}, Text: s.String()}
	if s.Service != (director.ServiceKey{}) {
		model.Service = s.Service.String()
	}
	if s.Server.IsValid() {
		model.Server = s.Server.String()
	}
	for _, d := range s.Changes {
		model.Changes = append(model.Changes, Difference{Field: d.Field, Old: d.Old, New: d.New})
	}
	return model
}
