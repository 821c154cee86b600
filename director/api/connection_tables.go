package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// What a table can be sized for, as connections.max of a configuration.
const (
	leastConnections = 1 << 10
	mostConnections  = 1 << 28
)

func checkSize(field string, n uint64) error {
	if n != 0 && (n < leastConnections || n > mostConnections) {
		return invalid(fmt.Sprintf("resize the connection tables: %s %d: want %d to %d", field, n, leastConnections, mostConnections), "")
	}
	return nil
}

// ResizeTables answers resizeTables.
func (e endpoints) ResizeTables(w http.ResponseWriter, r *http.Request) {
	e.read(w, func() (any, error) {
		var body TableSizes
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return nil, err
		}
		if body == (TableSizes{}) {
			return nil, invalid("resize the connection tables: no size is given", "give ipv4, ipv6, or both")
		}
		if err := cmp.Or(checkSize("ipv4", body.IPv4), checkSize("ipv6", body.IPv6)); err != nil {
			return nil, err
		}
		// It runs to its end even when the caller has gone: half of it helps nobody.
		ctx := context.WithoutCancel(r.Context())
		before, err := e.tableSizes(ctx)
		if err != nil {
			return nil, err
		}
		started := time.Now()
		report, err := e.director.Resize(ctx, body.IPv4, body.IPv6)
		if err != nil {
			return nil, err
		}
		took := time.Since(started)
		after, err := e.tableSizes(ctx)
		return TablesResized{
			Before: before, After: after, Took: Duration(took.Round(time.Millisecond)),
			Carried: report.Carried, Expired: report.Expired, Lost: report.Lost, Evicted: report.Evicted,
		}, err
	})
}

// tableSizes are what the tables are sized for.
func (e endpoints) tableSizes(ctx context.Context) (TableSizes, error) {
	var sizes TableSizes
	stats, err := e.director.Stats(ctx)
	for _, t := range stats.Table {
		switch t.Family {
		case "ipv4":
			sizes.IPv4 = t.Limit
		case "ipv6":
			sizes.IPv6 = t.Limit
		}
	}
	return sizes, err
}

// CheckConnections answers checkConnections.
func (e endpoints) CheckConnections(w http.ResponseWriter, r *http.Request) {
	e.read(w, func() (any, error) {
		faults, err := e.director.Check(r.Context())
		if err != nil {
			return nil, err
		}
		count, err := e.director.Count(r.Context(), director.ConnectionFilter{}, director.CountAll)
		if err != nil {
			return nil, err
		}
		stats, err := e.director.Stats(r.Context())
		if err != nil {
			return nil, err
		}
		check := TableCheck{Faults: make([]TableFault, len(faults)), Connections: count.Count}
		for i, f := range faults {
			check.Faults[i] = TableFault(f)
		}
		for _, t := range stats.Table {
			check.Keys += t.Keys
		}
		return check, nil
	})
}
