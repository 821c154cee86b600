package offer

import (
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// Origin says where a server comes from.
type Origin string

// The origins.
const (
	FromConfiguration Origin = "configured"
	FromLease         Origin = "lease"
	FromSorry         Origin = "sorry"
)

// StepName names a step of a verdict, in the order they are taken.
type StepName string

// The steps.
const (
	StepConfigured StepName = "configured" // the server's own weight
	StepOverride   StepName = "override"   // an operator's word
	StepHealth     StepName = "health"     // checks, evidence, maintenance, quorum
	StepLoad       StepName = "load"       // what the server reported
)

// Step is what one step made of a server.
type Step struct {
	Name   StepName
	Weight uint32 // after the step
	Why    string // "": nothing to say
}

// Verdict is what is offered of a server at the moment, and why.
type Verdict struct {
	Server netip.AddrPort
	Origin Origin
	// Up is whether it would get new connections for all that orders and health say;
	// Why is the step's that decided on it, Since when that was; Why says as well that a
	// server that is up drains.
	Up    bool
	Why   string
	Since time.Time
	// Weight is what it is offered with: 0 while it is down, and of a server that is up
	// while sorry servers stand in. Withdrawn: it is not offered at all.
	Weight    uint32
	Withdrawn bool
	// Suspended is whether packets spoke against it; Held until when it is held down
	// because it changed too often, zero: it is not.
	Suspended bool
	Held      time.Time
	// Changes is how often it went up or down, Suspensions how often packets had it out,
	// since the service took it, or the daemon started.
	Changes, Suspensions uint64
	// Evidence is what packets told of it as of a moment ago; nil: they are not counted.
	Evidence *director.Evidence
	// Load is nil where its weight does not follow one that was reported.
	Load   *LoadState
	Steps  []Step       // four of configured servers and leases, none of sorry ones
	Checks []CheckState // in the order of the service's
}

// LoadState is what a server's load makes of its weight.
type LoadState struct {
	Value float64 // smoothed, 0 is idle and 1 busy; the share it wants of director.LoadFromMeasure
	Share float64 // of its weight that it has by that, 1 is all
}

// CheckState is a check of a server.
type CheckState struct {
	Check realserver.Check // with its defaults
	Key   health.Key
	// Status is the zero value before the check has begun.
	Status health.Status
}

// ServiceVerdict is what is offered of a service.
type ServiceVerdict struct {
	Service director.ServiceKey
	Name    string
	// Quorum is whether the sum of weights that are up, Weight, is enough: Needed now.
	Quorum         bool
	Weight, Needed uint64
	QuorumSince    time.Time
	Panic          bool      // so many look dead that the checks are doubted
	Sorry          bool      // sorry servers stand in
	Servers        []Verdict // configured, then of leases, then sorry ones while they stand in
}

// Event is what changed for a server or a service.
type Event string

// The events of the history.
const (
	EventUp         Event = "up"
	EventDown       Event = "down"
	EventSuspended  Event = "suspended" // by what packets tell
	EventAbsolved   Event = "absolved"
	EventHeld       Event = "held" // down for changing too often
	EventQuorumLost Event = "quorum-lost"
	EventQuorum     Event = "quorum"
	EventPanic      Event = "panic"
	EventCalm       Event = "calm" // panic is over
)

// Change is an entry of the history.
type Change struct {
	At      time.Time
	Service director.ServiceKey
	Server  netip.AddrPort // zero: the service as a whole
	What    Event
	Why     string
}
