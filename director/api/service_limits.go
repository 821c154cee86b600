package api

import (
	"time"

	"github.com/shunt-lb/shunt/director"
)

// apply changes what the model names; 0 takes a limit away. The prefix of source
// networks goes with their last limit, unless it is named.
func (l Limits) apply(to *director.Limits) {
	set(&to.Rate, l.Rate)
	set(&to.Connections, l.Connections)
	if l.Source == nil {
		return
	}
	set(&to.Source.Rate, l.Source.Rate)
	set(&to.Source.Connections, l.Source.Connections)
	set(&to.Source.Prefix, l.Source.Prefix)
	if to.Source.IsZero() && l.Source.Prefix == nil {
		to.Source.Prefix = 0
	}
}

// guard turns the model into the director's value.
func (g SourceGuard) guard() (director.SourceGuard, error) {
	if g.Mode == "" {
		return director.SourceGuard{}, invalid("guard: mode is required", "give auto, on or off")
	}
	mode, err := director.ParseGuardMode(g.Mode)
	if err != nil {
		return director.SourceGuard{}, invalid(err.Error(), "")
	}
	return director.SourceGuard{Mode: mode, On: g.On, Off: g.Off}, nil
}

// setGuard takes a guard over; nil leaves it as it is.
func setGuard(to *director.SourceGuard, from *SourceGuard) error {
	if from == nil {
		return nil
	}
	guard, err := from.guard()
	if err == nil {
		*to = guard
	}
	return err
}

// limitsModel is the reverse of Limits.apply; nil for none.
func limitsModel(l director.Limits) *Limits {
	if l.IsZero() {
		return nil
	}
	model := &Limits{Rate: given(l.Rate), Connections: given(l.Connections)}
	if l.Source != (director.SourceLimits{}) {
		model.Source = &SourceLimits{Prefix: given(l.Source.Prefix), Rate: given(l.Source.Rate), Connections: given(l.Source.Connections)}
	}
	return model
}

// guardModel is the reverse of SourceGuard.guard; nil for none.
func guardModel(g director.SourceGuard) *SourceGuard {
	if g == (director.SourceGuard{}) {
		return nil
	}
	return &SourceGuard{Mode: g.Mode.String(), On: g.On, Off: g.Off}
}

// refusedModel returns the counts of a service that has refused connections; nil for
// one that never did.
func refusedModel(refused map[string]uint64) *Refused {
	for _, n := range refused {
		if n > 0 {
			return (*Refused)(&refused)
		}
	}
	return nil
}

// guardStatsModel returns what a guard did, or does; nil if it never did.
func guardStatsModel(g director.GuardStats) *GuardStats {
	if g == (director.GuardStats{}) {
		return nil
	}
	return &GuardStats{On: g.On, Challenged: g.Challenged, Validated: g.Validated}
}

// guarding lists the services whose guard is on.
func guarding(services []director.ServiceStats) []string {
	on := []string{}
	for _, s := range services {
		if s.Guard.On {
			on = append(on, s.Key.String())
		}
	}
	return on
}

func tableModels(tables []director.TableStats) []Table {
	models := []Table{}
	for _, t := range tables {
		models = append(models, Table{
			Family: t.Family, Limit: t.Limit, Keys: t.Keys, Slots: t.Slots,
			Bytes: t.Bytes, Expired: t.Expired, Corrected: t.Corrected,
			Pressure: t.Pressure, FullIn: given(Duration(t.FullIn.Round(time.Second))), Refused: t.Refused,
			LastFull: given(Duration(t.LastFull.Round(time.Second))), SweepPeriod: given(Duration(t.SweepPeriod.Round(time.Millisecond))),
			SweepShare: t.SweepShare,
		})
	}
	return models
}
