package director

import (
	"slices"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// Health says how a service's servers are known to be alive and what follows. The
// zero value: they are offered as configured, whatever becomes of them. No data plane
// knows it: see Offers. What it points to is not changed once made.
type Health struct {
	// Checks are asked of each server; it is up while all of them are.
	Checks []realserver.Check
	// Initial is what a server is before its first result.
	Initial Initial
	// Down is what becomes of a server that is down, Established of its connections.
	Down        DownAction
	Established Established
	// Quorum is the sum of weights of servers that are up below which the service has
	// lost its quorum; it has it again from Quorum + Hysteresis on. 0: 1.
	Quorum, Hysteresis uint32
	// Sorry are servers that are offered while the quorum is lost, in place of the others.
	Sorry []realserver.Server
	// Panic is the share of servers in per cent that must be up: while fewer are, the
	// checks are doubted and all are offered. 0: never.
	Panic uint8
	// SlowStart is how long the weight of a server that came up grows to its own.
	SlowStart time.Duration
	Damping   Damping
	Passive   Passive
	// Maintenance is a folder on the director: a server that has a file there, named as
	// ldirectord's maintenancedir, is down. "": none.
	Maintenance string
	Notify      Notify
	Load        LoadPolicy
	// Pool names the leases that add servers to the service; "": none may.
	Pool string
}

// Initial is what a server is before its first result.
type Initial string

// The initial states.
const (
	InitialDown Initial = "" // out of rotation
	InitialUp   Initial = "up"
)

// DownAction is what becomes of a server that is down.
type DownAction string

// The actions.
const (
	DownInhibit DownAction = "" // weight 0
	DownRemove  DownAction = "remove"
)

// Established is what becomes of the connections of a server that goes down.
type Established string

// The fates of connections.
const (
	EstablishedKeep Established = ""
	EstablishedCut  Established = "cut"
)

// Damping holds down a server that changed Changes times within Within, for Hold. Zero
// Changes: it does not.
type Damping struct {
	Changes      uint16
	Within, Hold time.Duration
}

// Passive is what the data path tells of servers. A server of which any count within
// Within reaches its limit is suspended at once, for at most Suspend, and its checks are
// asked to confirm it. 0: no such limit; all 0: nothing is counted.
type Passive struct {
	Unanswered  uint32 // first segments sent again, unanswered
	Resets      uint32 // answered by a reset
	Unreachable uint32 // answered by ICMP unreachable
	// Within is 10 s if it is 0, Suspend 30 s, and an hour at most.
	Within, Suspend time.Duration
}

// IsZero reports whether nothing is counted.
func (p Passive) IsZero() bool { return p.Unanswered == 0 && p.Resets == 0 && p.Unreachable == 0 }

// Notify are commands that are told of changes, each a program's absolute path with its
// arguments, run as the script user; FIFO is a named pipe that gets a line a change,
// keepalived's.
type Notify struct {
	Up, Down             []string // of a server
	QuorumUp, QuorumDown []string
	FIFO                 string
}

// LoadPolicy turns the load that servers report into weights. The zero value: weights
// are as configured.
type LoadPolicy struct {
	Kind LoadKind
	// Minimum and Maximum bound the weight in per cent of the configured one; 0: 10, 200.
	Minimum, Maximum uint32
	// Silence is how long after its last report a server has its configured weight again;
	// 0: 30 s, or three reports' time if that is more.
	Silence time.Duration
	// SNMP has the hosts of configured servers asked for their load: what agents there
	// report does not count then. Servers of leases report by themselves. Nil: nobody is
	// asked.
	SNMP *realserver.SNMP
}

// Equal reports whether the policies are the same.
func (l LoadPolicy) Equal(o LoadPolicy) bool {
	same := l.SNMP == o.SNMP || l.SNMP != nil && o.SNMP != nil && *l.SNMP == *o.SNMP
	l.SNMP, o.SNMP = nil, nil
	return same && l == o
}

// LoadKind is a way from loads to weights.
type LoadKind string

// The ways.
const (
	LoadNone        LoadKind = ""
	LoadLinear      LoadKind = "linear"     // the weight falls with the load
	LoadLeastUsed   LoadKind = "least-used" // RFC 5356 §4.2, least used with degradation
	LoadFromMeasure LoadKind = "reported"   // the report is the weight, in per cent
)

// Equal reports whether the policies are the same.
func (h Health) Equal(o Health) bool {
	return realserver.SameChecks(h.Checks, o.Checks) && h.Initial == o.Initial && h.Down == o.Down && h.Established == o.Established &&
		h.Quorum == o.Quorum && h.Hysteresis == o.Hysteresis && slices.Equal(h.Sorry, o.Sorry) && h.Panic == o.Panic &&
		h.SlowStart == o.SlowStart && h.Damping == o.Damping && h.Passive == o.Passive && h.Maintenance == o.Maintenance &&
		h.Notify.equal(o.Notify) && h.Load.Equal(o.Load) && h.Pool == o.Pool
}

func (n Notify) equal(o Notify) bool {
	return slices.Equal(n.Up, o.Up) && slices.Equal(n.Down, o.Down) && slices.Equal(n.QuorumUp, o.QuorumUp) &&
		slices.Equal(n.QuorumDown, o.QuorumDown) && n.FIFO == o.FIFO
}

// IsZero reports whether the servers are offered as configured.
func (h Health) IsZero() bool { return h.Equal(Health{}) }
