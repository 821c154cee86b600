package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/director"
)

// CountedBy returns what connections can be counted by.
func CountedBy() []string {
	return []string{
		string(director.CountByClient), string(director.CountByServer), string(director.CountByState),
		string(director.CountByAge), string(director.CountByIdle),
	}
}

// CountConnections answers countConnections.
func (e endpoints) CountConnections(w http.ResponseWriter, r *http.Request, p CountConnectionsParams) {
	e.read(w, func() (any, error) {
		filter, err := e.connectionFilter(filterParams{p.Service, p.Server, p.Client, p.Kind, p.State, p.MinAge, p.MaxAge, p.MinIdle, p.MaxIdle})
		if err != nil {
			return nil, err
		}
		by := director.CountAll
		if p.By != nil {
			if !slices.Contains(CountedBy(), *p.By) {
				return nil, invalid(fmt.Sprintf("by %.80q: want one of %s", *p.By, strings.Join(CountedBy(), ", ")), "leave it out for one number")
			}
			by = director.CountBy(*p.By)
		}
		count, err := e.director.Count(r.Context(), filter, by)
		if err != nil {
			return nil, err
		}
		model := ConnectionCount{Count: count.Count}
		if by == director.CountAll {
			return model, nil
		}
		groups := count.Groups
		if p.Limit != nil && *p.Limit > 0 && uint64(len(groups)) > *p.Limit {
			model.More = uint64(len(groups)) - *p.Limit
			groups = groups[:*p.Limit]
		}
		model.Groups = groupModels(groups)
		return model, nil
	})
}

func groupModels(groups []director.ConnectionGroup) []ConnectionGroup {
	models := make([]ConnectionGroup, len(groups))
	for i, g := range groups {
		models[i] = ConnectionGroup{Name: g.Name, Count: g.Count}
		if g.Traffic != nil {
			counters := countersModel(*g.Traffic)
			models[i].Traffic = &ConnectionTraffic{In: counters.In, Out: counters.Out}
		}
	}
	return models
}
