package main

import (
	"log/slog"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// healthParts are what asks the servers and what decides on them.
type healthParts struct {
	env     health.Env
	monitor *health.Monitor
	keeper  *offer.Keeper
}

// newHealth makes them over the data plane: with what packets tell, and the true path,
// where it has them.
func newHealth(plane dataplane, events *event.Stream, settings config.Settings, log *slog.Logger) *healthParts {
	h := &healthParts{env: health.NewEnv(settings.ScriptUser)}
	h.monitor = health.NewMonitor(health.Options{
		New: func(check realserver.Check, target health.Target, dial health.Dial) (health.Prober, error) {
			return health.NewProber(check, target, dial, h.env)
		},
		Changed: func(changes []health.Change) { h.keeper.Changed(changes) },
		Log:     log,
	})
	h.keeper = offer.New(offer.Options{
		Checks: h.monitor, Events: events, Log: log, Env: h.env, Packet: witnessOf(plane), Dialer: dialerOf(plane),
	})
	return h
}

// witnessOf returns what tells of packets; nil if the data plane does not.
func witnessOf(plane dataplane) director.Witness {
	witness, _ := plane.(director.Witness)
	return witness
}

// dialerOf returns what talks to servers by the true path; nil if nothing does.
func dialerOf(plane dataplane) offer.ProbeDialer {
	dialer, _ := plane.(offer.ProbeDialer)
	return dialer
}

// close gives back what the probes share, once they have ended.
func (h *healthParts) close() { h.env.Close() }
