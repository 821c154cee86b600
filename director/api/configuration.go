package api

import (
	"context"
	"net/http"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// GetTimeouts answers getTimeouts.
func (e endpoints) GetTimeouts(w http.ResponseWriter, _ *http.Request) {
	e.readAt(w, func() (any, uint64, error) {
		head := e.director.Head()
		return timeoutsModel(head.State.Timeouts), head.Number, nil
	})
}

// SetTimeouts answers setTimeouts: it replaces all three.
func (e endpoints) SetTimeouts(w http.ResponseWriter, r *http.Request, p SetTimeoutsParams) {
	e.changeTimeouts(w, r, terms{p.IfMatch, p.ShuntWhy, nil}, func(body TimeoutsEdit) error {
		if body.TCP == nil || body.TCPFin == nil || body.UDP == nil {
			return invalid("timeouts: tcp, tcp-fin and udp are required", "PATCH changes only what it names")
		}
		return nil
	})
}

// EditTimeouts answers editTimeouts: it changes what the body names.
func (e endpoints) EditTimeouts(w http.ResponseWriter, r *http.Request, p EditTimeoutsParams) {
	e.changeTimeouts(w, r, terms{p.IfMatch, p.ShuntWhy, nil}, func(TimeoutsEdit) error { return nil })
}

func (e endpoints) changeTimeouts(w http.ResponseWriter, r *http.Request, t terms, check func(TimeoutsEdit) error) {
	e.change(w, r, t, func(ctx context.Context, by director.Request) (director.Outcome, string, error) {
		var body TimeoutsEdit
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return director.Outcome{}, "", err
		}
		if err := check(body); err != nil {
			return director.Outcome{}, "", err
		}
		timeouts, err := body.timeouts()
		if err != nil {
			return director.Outcome{}, "", err
		}
		outcome, err := e.director.SetTimeouts(ctx, by, timeouts)
		return outcome, "", err
	})
}

// GetConfiguration answers getConfiguration.
func (e endpoints) GetConfiguration(w http.ResponseWriter, r *http.Request) {
	e.readAt(w, func() (any, uint64, error) {
		head := e.director.Head()
		return desired(shown(r.Context(), head.State), e.director.Features()), head.Number, nil
	})
}

// desired is ConfigurationOf a revision's state: that it has no sync daemons is part
// of it where there can be some, so that applying it stops those started since.
func desired(s director.State, features director.Features) Configuration {
	if s.Sync == nil && features.Sync {
		s.Sync = []director.SyncDaemon{}
	}
	return ConfigurationOf(s)
}

// ApplyConfiguration answers applyConfiguration.
func (e endpoints) ApplyConfiguration(w http.ResponseWriter, r *http.Request, p ApplyConfigurationParams) {
	e.change(w, r, terms{p.IfMatch, p.ShuntWhy, p.Force}, func(ctx context.Context, by director.Request) (director.Outcome, string, error) {
		state, err := e.readState(w, r)
		if err != nil {
			return director.Outcome{}, "", err
		}
		outcome, err := e.director.Apply(ctx, by, state)
		return outcome, "", err
	})
}

// MakePlan answers makePlan.
func (e endpoints) MakePlan(w http.ResponseWriter, r *http.Request) {
	state, err := e.readState(w, r)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	plan, err := e.director.Plan(r.Context(), state)
	if err != nil {
		writeProblem(w, e.changeProblem(err))
		return
	}
	writeJSON(w, http.StatusOK, planModel(r.Context(), plan))
}

// readState reads a configuration. It is validated here too, where the services
// are in the order of the body, so that problems are located in that.
func (e endpoints) readState(w http.ResponseWriter, r *http.Request) (director.State, error) {
	body, err := e.readConfiguration(w, r)
	if err != nil {
		return director.State{}, err
	}
	state, err := body.State()
	if err != nil {
		return state, err
	}
	return state, director.State{Services: state.Services, Sync: state.Sync}.Validate()
}

func timeoutsModel(t conntrack.Timeouts) Timeouts {
	return Timeouts{TCP: Duration(t.TCP), TCPFin: Duration(t.TCPFin), UDP: Duration(t.UDP)}
}
