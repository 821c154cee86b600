package main

import (
	"log/slog"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/event"
	"github.com/shunt-lb/shunt/director/offer"
	"github.com/shunt-lb/shunt/realserver/health"
	"github.com/shunt-lb/shunt/realserver/snmp"
)

// healthParts are what asks the servers and what decides on them.
type healthParts struct {
	env     health.Env
	monitor *health.Monitor
	hosts   *snmp.Poller
	keeper  *offer.Keeper
}

// newHealth makes them over the data plane: with what packets tell, and the true path,
// where it has them.
func newHealth(plane dataplane, events *event.Stream, settings config.Settings, log *slog.Logger) *healthParts {
	h := &healthParts{env: health.NewEnv(settings.ScriptUser)}
	h.monitor = health.NewMonitor(health.Options{
		Env:     h.env,
		Changed: func(changes []health.Change) { h.keeper.Changed(changes) },
		Log:     log,
	})
	h.hosts = snmp.New(snmp.Options{
		Loaded:  func(k snmp.Key, load float64, at time.Time) { h.keeper.HostLoad(k, load, at) },
		Changed: func(k snmp.Key) { h.keeper.HostChanged(k) },
		Log:     log,
	})
	h.keeper = offer.New(offer.Options{
		Checks: h.monitor, Hosts: h.hosts, Events: events, Log: log, Env: h.env, Packet: witnessOf(plane), Dialer: dialerOf(plane), Features: plane.Features(),
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
