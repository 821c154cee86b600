package main

import (
	"math"
	"time"

	"github.com/shunt-lb/shunt/director/api"
)

// topReading is what the daemon said at one time.
type topReading struct {
	at       time.Time // when the counters were read
	status   api.Status
	services []api.Service
	stats    api.Stats
	list     *topList // nil: not asked for
}

// topList are the connections that a query found, or why there are none.
type topList struct {
	query       api.ConnectionQuery
	connections []api.Connection
	err         error
}

// topRates are changes a second; NaN if not known.
type topRates struct {
	connections                            float64
	packetsIn, bitsIn, packetsOut, bitsOut float64
}

// unknown is a number that is not known.
var unknown = math.NaN()

var noRates = topRates{unknown, unknown, unknown, unknown, unknown}

// topKey names what has counters: a service, or one of its servers.
type topKey struct{ service, server string }

// topSnapshot is a reading with what changed since the one before.
type topSnapshot struct {
	topReading
	rates  map[topKey]topRates
	events map[string]float64 // packets a second, by packet event
}

// topChanges computes the rates between two readings. Those of what was not
// there before are not known, nor are those of what began to count anew.
func topChanges(before, now topReading) topSnapshot {
	s := topSnapshot{topReading: now, rates: map[topKey]topRates{}, events: map[string]float64{}}
	seconds := now.at.Sub(before.at).Seconds()
	if before.at.IsZero() || seconds <= 0 {
		return s
	}
	was := topCounters(before.stats)
	for key, counters := range topCounters(now.stats) {
		if old, ok := was[key]; ok {
			s.rates[key] = ratesBetween(old, counters, seconds)
		}
	}
	events := map[string]uint64{}
	for _, e := range before.stats.PacketEvents {
		events[e.Name] = e.Count
	}
	for _, e := range now.stats.PacketEvents {
		if old, ok := events[e.Name]; ok && e.Count >= old {
			s.events[e.Name] = float64(e.Count-old) / seconds
		}
	}
	return s
}

// topCounters finds the counters of everything.
func topCounters(stats api.Stats) map[topKey]api.Counters {
	all := map[topKey]api.Counters{}
	for _, service := range stats.Services {
		all[topKey{service: service.Listen}] = service.Counters
		for _, server := range service.Servers {
			all[topKey{service.Listen, server.Address}] = server.Counters
		}
	}
	return all
}

func ratesBetween(before, now api.Counters, seconds float64) topRates {
	if now.Connections < before.Connections || wentBack(before.In, now.In) || wentBack(before.Out, now.Out) {
		return noRates
	}
	return topRates{
		connections: float64(now.Connections-before.Connections) / seconds,
		packetsIn:   float64(now.In.Packets-before.In.Packets) / seconds,
		bitsIn:      8 * float64(now.In.Bytes-before.In.Bytes) / seconds,
		packetsOut:  float64(now.Out.Packets-before.Out.Packets) / seconds,
		bitsOut:     8 * float64(now.Out.Bytes-before.Out.Bytes) / seconds,
	}
}

func wentBack(before, now api.Traffic) bool {
	return now.Packets < before.Packets || now.Bytes < before.Bytes
}

// of returns the rates of what the key names.
func (s topSnapshot) of(key topKey) topRates {
	if rates, ok := s.rates[key]; ok {
		return rates
	}
	return noRates
}

// event returns the rate of a packet event.
func (s topSnapshot) event(name string) float64 {
	if rate, ok := s.events[name]; ok {
		return rate
	}
	return unknown
}

// total adds up the services' rates, as far as they are known.
func (s topSnapshot) total() topRates {
	sum := noRates
	for _, service := range s.services {
		r := s.of(topKey{service: service.Listen})
		sum.connections = addKnown(sum.connections, r.connections)
		sum.packetsIn = addKnown(sum.packetsIn, r.packetsIn)
		sum.bitsIn = addKnown(sum.bitsIn, r.bitsIn)
		sum.packetsOut = addKnown(sum.packetsOut, r.packetsOut)
		sum.bitsOut = addKnown(sum.bitsOut, r.bitsOut)
	}
	return sum
}

// drops returns the rate of all drops, and the reason of most of them.
func (s topSnapshot) drops() (all float64, reason string, most float64) {
	all, most = unknown, 0
	for _, e := range s.stats.PacketEvents {
		if e.Kind != "drop" {
			continue
		}
		rate := s.event(e.Name)
		all = addKnown(all, rate)
		if rate > most {
			reason, most = e.Name, rate
		}
	}
	return all, reason, most
}

// addKnown adds what is known; the sum is known if one of the two is.
func addKnown(a, b float64) float64 {
	switch {
	case math.IsNaN(a):
		return b
	case math.IsNaN(b):
		return a
	default:
		return a + b
	}
}
