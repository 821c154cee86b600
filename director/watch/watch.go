package watch

import (
	"context"
	"fmt"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/event"
)

// Read reads a data plane's statistics, as director.Director.Stats does.
type Read func(context.Context) (director.Stats, error)

// Options are the parameters of a Watcher; zero values mean the defaults.
type Options struct {
	// Interval is the time between two readings. Default 1 s.
	Interval time.Duration
	// Resolving is how long a server that was never seen reachable is taken to
	// be looked for, before it is told as unreachable. Default 5 s: the kernel
	// gives a neighbour up after 3 s (kernel: net/ipv4/arp.c, MCAST_PROBES times
	// RETRANS_TIME), and then its reason says more.
	Resolving time.Duration
	// Quiet is how long no packet must have been dropped for a reason until its
	// drops have ended; nor a connection refused. Default 10 s.
	Quiet time.Duration
	// ServerEvents is the most events of one name that one reading publishes
	// about single servers, or services; one more tells the number of the others. An
	// interface that goes may take ten thousand servers with it, and must not
	// push everything else out of the stream. Default 100.
	ServerEvents int
}

// The defaults of Options.
const (
	defaultInterval     = time.Second
	defaultResolving    = 5 * time.Second
	defaultQuiet        = 10 * time.Second
	defaultServerEvents = 100
)

func (o Options) withDefaults() Options {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Resolving == 0 {
		o.Resolving = defaultResolving
	}
	if o.Quiet == 0 {
		o.Quiet = defaultQuiet
	}
	if o.ServerEvents == 0 {
		o.ServerEvents = defaultServerEvents
	}
	return o
}

// Watcher publishes what changes between two readings of a data plane. Run runs
// once.
type Watcher struct {
	read   Read
	events *event.Stream
	opts   Options

	begun      bool // there was a first reading
	failing    bool // the last reading failed
	servers    map[serverID]*serverState
	interfaces map[string]director.InterfaceMode
	levels     map[string]int    // of pressure, by table
	bursts     map[string]*burst // of drops and faults, by packet event
	full       map[string]*burst // of connections that found no room, by table
	services   map[director.ServiceKey]*serviceState
}

// New returns a Watcher that publishes to the stream what it learns by read.
func New(read Read, events *event.Stream, opts Options) *Watcher {
	return &Watcher{
		read: read, events: events, opts: opts.withDefaults(),
		servers: make(map[serverID]*serverState), levels: make(map[string]int), bursts: make(map[string]*burst),
		full: make(map[string]*burst), services: make(map[director.ServiceKey]*serviceState),
	}
}

// Run reads at once and then at each interval, until the context ends; nil then.
// The first reading is what later ones are compared with. It tells by itself
// only what is wrong already: a server that stays without a next hop, an
// interface that is gone, a table under pressure, faults.
//
// Readings that fail are told once per streak and change nothing that is known.
func (w *Watcher) Run(ctx context.Context) error {
	ticker := time.NewTicker(w.opts.Interval)
	defer ticker.Stop()
	for {
		stats, err := w.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		w.take(stats, err)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// take compares a reading with what was known, and keeps what matters of it.
func (w *Watcher) take(stats director.Stats, err error) {
	if err != nil {
		if !w.failing {
			w.events.Publish(event.Event{Name: event.ObserveFailed, Message: fmt.Sprintf("read the data plane's counters: %v", err)})
		}
		w.failing = true
		return
	}
	w.failing = false
	now := time.Now()
	w.takeInterfaces(stats.Interfaces)
	w.takeServers(stats.Services, now)
	w.takeServices(stats.Services, now)
	w.takeTables(stats.Table, now)
	w.takePackets(stats.PacketEvents, now)
	w.begun = true
}
