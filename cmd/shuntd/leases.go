package main

import (
	"log/slog"
	"path/filepath"
	"time"

	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/lease"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
)

// openLeases returns the leases of the last run, which the keeper knows by then: before
// the first plan is made. Their file is beside the store.
func openLeases(keeper *offer.Keeper, events *event.Stream, settings config.Settings, log *slog.Logger) *lease.Registry {
	leases := lease.Open(lease.Options{
		File: filepath.Join(settings.StateDir, "leases.json"), Events: events, Log: log,
		Changed: keeper.SetLeases,
		Loaded: func(pool string, server realserver.Server, load lease.Load, at time.Time, renewal time.Duration) {
			err := keeper.ReportLoad(pool, server.Address.Addr(), offer.LoadReport{At: at, Load: load.Value, Degradation: load.Degradation, Every: renewal})
			if err != nil { // one that came late: the next one counts
				log.Debug("a load was of no use", "server", server.Address, "err", err)
			}
		},
		Suspect: keeper.Suspect,
	})
	leases.Announce()
	return leases
}
