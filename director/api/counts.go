package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// The range of the interval at which connections are counted.
const (
	defaultInterval = time.Second
	minInterval     = 100 * time.Millisecond
	maxInterval     = time.Hour
)

// StreamConnectionCounts answers streamConnectionCounts.
func (e endpoints) StreamConnectionCounts(w http.ResponseWriter, r *http.Request, p StreamConnectionCountsParams) {
	interval, err := parseInterval(p.Interval)
	if err == nil {
		// A data plane that cannot be read is told of as long as it can be.
		_, _, err = e.counts.read(r.Context(), e.Handler, interval)
	}
	last, _, idErr := lastEventID(p.LastEventID)
	if err == nil {
		err = idErr
	}
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	e.stream(w, r, func(ctx context.Context, s *sender) error { return e.sendCounts(ctx, s, interval, last) })
}

func parseInterval(text *string) (time.Duration, error) {
	if text == nil {
		return defaultInterval, nil
	}
	d, err := time.ParseDuration(*text)
	if err != nil {
		return 0, invalid(fmt.Sprintf("interval %.40q is not a duration", *text), "write it as 5s")
	}
	if d < minInterval || d > maxInterval {
		return 0, invalid(fmt.Sprintf("interval %s is out of range: want %s to %s", d, minInterval, maxInterval), "")
	}
	return d, nil
}

// sendCounts sends the numbers when they are not those of the sequence number
// last.
func (e endpoints) sendCounts(ctx context.Context, s *sender, interval time.Duration, last uint64) error {
	look, alive := time.NewTicker(interval), time.NewTicker(e.limits.heartbeat)
	defer look.Stop()
	defer alive.Stop()
	for {
		sequence, counts, err := e.counts.read(ctx, e.Handler, interval)
		if err != nil {
			return err
		}
		if sequence != last {
			last = sequence
			if err := s.event(sequence, countsName, counts); err != nil {
				return err
			}
		}
		for due := false; !due; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-look.C:
				due = true
			case <-alive.C:
				if err := s.heartbeat(); err != nil {
					return err
				}
			}
		}
	}
}

// sampler counts connections for all streams: each set of numbers that differs
// from the one before has a sequence number.
type sampler struct {
	turn     chan struct{} // taken while what is below is used; the next waits for it
	at       time.Time
	sequence uint64 // begins at the time, so that it rises over restarts
	counts   ConnectionCounts
}

func newSampler() *sampler { return &sampler{turn: make(chan struct{}, 1)} }

// read returns numbers that are not older than half the interval. Whoever waits
// for another one's reading of the data plane waits as long as its own context
// lasts.
func (s *sampler) read(ctx context.Context, h *Handler, interval time.Duration) (uint64, ConnectionCounts, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return 0, ConnectionCounts{}, fmt.Errorf("count connections: %w", ctx.Err())
	}
	if !s.at.IsZero() && time.Since(s.at) < interval/2 {
		return s.sequence, s.counts, nil
	}
	stats, err := h.director.Stats(ctx)
	if err != nil {
		return 0, ConnectionCounts{}, err
	}
	counts := connectionCounts(stats, h.names())
	switch {
	case s.at.IsZero():
		s.sequence = uint64(time.Now().UnixMicro())
	case !reflect.DeepEqual(counts, s.counts):
		s.sequence++
	}
	s.at, s.counts = time.Now(), counts
	return s.sequence, counts, nil
}

func connectionCounts(stats director.Stats, names map[director.ServiceKey]string) ConnectionCounts {
	all := ConnectionCounts{Services: []ServiceConnections{}}
	for _, service := range stats.Services {
		one := ServiceConnections{Listen: service.Key.String(), Name: names[service.Key]}
		for _, server := range service.Servers {
			one.Active += server.Active
			one.Inactive += server.Inactive
		}
		all.Active += one.Active
		all.Inactive += one.Inactive
		all.Services = append(all.Services, one)
	}
	return all
}
