package director

import (
	"context"
	"iter"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

// Dataplane is what moves packets: the XDP program or the kernel's IPVS. State
// flows one way: the director computes operations, the data plane runs them.
// Implementations are safe for concurrent use.
type Dataplane interface {
	// Features says what the data plane can do; the same at all times.
	Features() Features

	// Found reads what the kernel holds now: never a cached or assumed value.
	Found(ctx context.Context) (State, error)

	// Apply runs the operations in order. Each is idempotent: adding what is
	// there and removing what is not succeed. The first failure ends the run
	// and is returned as an *OperationError that names the operation.
	Apply(ctx context.Context, ops []Operation) error

	// Stats reads the counters of all services and servers, and the drops.
	Stats(ctx context.Context) (Stats, error)

	// Connections iterates over the connection table's entries that match. The
	// table changes meanwhile: an entry created or removed during the walk may
	// or may not be seen, no other is missed or seen twice.
	Connections(ctx context.Context, filter ConnectionFilter) iter.Seq2[conntrack.Connection, error]

	// Kill removes the connections, and templates, that match, and returns how
	// many there were. Their packets are those of no connection from then on.
	Kill(ctx context.Context, filter ConnectionFilter) (uint64, error)

	// Decide says which server a client's first packet to the address would get
	// at this moment, and why, by the data plane's own way of deciding. It
	// changes nothing: no entry, no counter, no scheduler's turn. ErrUnsupported
	// where the data plane cannot be asked.
	Decide(ctx context.Context, from Question) (Decision, error)

	// Zero sets the counters and rates of the service and of its servers to zero,
	// of all services if the key is zero; those of foreign ones included.
	// ErrNotFound if there is no such service.
	Zero(ctx context.Context, key ServiceKey) error

	// Close releases the handles. Traffic flows on.
	Close() error
}

// State is a set of services and the settings they share: desired or found.
type State struct {
	Services []Service // sorted by key
	Timeouts conntrack.Timeouts
	// Sync are the daemons, the master first, at most one of each role. In a
	// state for Apply, nil leaves those there are.
	Sync []SyncDaemon
	// Drains are the orders in force, by service and server; no data plane knows
	// them: it has Server.Draining.
	Drains []Drain
	// Overrides are the orders in force, by service and server, of servers that are
	// there; no data plane knows them.
	Overrides []Override
}

// Loader is a Dataplane that can take over the connections of another one.
type Loader interface {
	// Load makes the connections and templates its own, of which the service's
	// servers are known by their addresses: with their states, and until they
	// expire there. Those that are there already stay as they are, but for the state
	// of such as were loaded and have had no packet that changed it since.
	Load(ctx context.Context, key ServiceKey, connections iter.Seq[conntrack.Connection]) (LoadReport, error)
	// BeginMigration has packets of connections that are not known, and not their
	// first, left to the host's stack from then on: another data plane has them
	// there. A service that is not there migrates once it is added. EndMigration
	// ends that. In between, HoldMigration has those packets dropped instead, until
	// BeginMigration or EndMigration, or the end of the process: after it the other
	// data plane's connections of the service change no more, but for those that
	// expire there. All are idempotent.
	BeginMigration(ctx context.Context, key ServiceKey) error
	HoldMigration(ctx context.Context, key ServiceKey) error
	EndMigration(ctx context.Context, key ServiceKey) error
	// Migrating returns the services whose migrations have begun and not ended,
	// those among them that an earlier process began.
	Migrating() []ServiceKey
}

// LoadReport says what became of loaded connections.
type LoadReport struct {
	Loaded  uint64
	Known   uint64            // were there already, or had ended and another has their place
	Skipped map[string]uint64 // by the reason
}

// ConnectionFilter selects connections; zero fields match everything.
type ConnectionFilter struct {
	Service ServiceKey
	Server  netip.AddrPort
	// Client selects the connections of clients in the prefix, and the templates
	// of client networks that have clients in it: those may have others too.
	Client netip.Prefix
	Kind   ConnectionKind
	// State selects by the name of the state, as conntrack.State prints it: of every
	// protocol that has one of the name. On XDP a template's is NONE.
	State string
	// Age and Idle select by how long a connection lives, and has had no packet.
	Age, Idle Span
}

// Span is an interval of time; zero fields do not bound it.
type Span struct {
	AtLeast, Below time.Duration
}

// Contains reports whether t is in the interval.
func (s Span) Contains(t time.Duration) bool {
	return t >= s.AtLeast && (s.Below == 0 || t < s.Below)
}

// ConnectionKind tells connections from templates.
type ConnectionKind string

// The kinds; the zero value selects both.
const (
	KindConnection ConnectionKind = "connection"
	KindTemplate   ConnectionKind = "template"
)

// Matches reports whether the filter selects the connection of the service.
func (f ConnectionFilter) Matches(service ServiceKey, c conntrack.Connection) bool {
	switch {
	case f.Service != (ServiceKey{}) && f.Service != service,
		f.Server.IsValid() && f.Server != c.Server,
		f.Client.IsValid() && !f.Client.Overlaps(clientsOf(c)),
		f.Kind == KindConnection && c.Template, f.Kind == KindTemplate && !c.Template,
		f.State != "" && f.State != c.State.String(),
		!f.Age.Contains(c.Age), !f.Idle.Contains(c.Idle):
		return false
	}
	return true
}

// clientsOf returns the client of a connection, or the network of a template's.
func clientsOf(c conntrack.Connection) netip.Prefix {
	bits := c.Client.Addr().BitLen()
	if c.Template {
		bits = int(c.Prefix)
	}
	return netip.PrefixFrom(c.Client.Addr(), bits)
}

// Question is a packet that a client might send.
type Question struct {
	Protocol conntrack.Protocol
	Client   netip.AddrPort // port 0: any
	Virtual  netip.AddrPort
}

// DecisionBy says what decided on a packet's server.
type DecisionBy string

// What can decide.
const (
	ByConnection DecisionBy = "connection" // there is one already
	ByTemplate   DecisionBy = "template"   // persistence
	ByScheduler  DecisionBy = "scheduler"
	ByNothing    DecisionBy = "nothing" // no server: see Event
)

// Decision is what would become of a packet.
type Decision struct {
	Question
	Service ServiceKey // zero if the packet is for none
	By      DecisionBy
	// Event names what would be counted where the packet gets no server, such as
	// no-server or access-denied; empty where it gets one.
	Event  string
	Server netip.AddrPort
	Method realserver.Method
	// Connection is the connection or template that decided; nil if none did.
	Connection *conntrack.Connection
	// Scheduler and all below are what the scheduler looks at, whether it was
	// asked or not: Candidates in the order of the kernel's list, last added first.
	Scheduler  Scheduler
	Flags      SchedulerFlags
	Candidates []Candidate
	// Turn is rr's and wrr's place in Candidates, -1 at the head and for others;
	// CurrentWeight wrr's.
	Turn          int
	CurrentWeight uint32
	// Slot is where the hash schedulers look in their table; -1 for others.
	Slot int
}

// Candidate is a server as a scheduler sees it.
type Candidate struct {
	Server     netip.AddrPort
	Weight     uint32 // as offered: 0 while it has no next hop or is drained
	Active     uint64
	Inactive   uint64
	Overloaded bool // by its thresholds
	Suspended  bool // by what packets told of it: it gets none while others can (Witness)
}

// Counters are 64-bit totals since the service or server was added. Bytes count
// the IP packet (kernel: ip_vs_in_stats counts skb->len at the IP layer).
type Counters struct {
	Connections uint64
	InPackets   uint64 // client to server
	InBytes     uint64
	OutPackets  uint64 // server to client; only where replies pass the director (nat)
	OutBytes    uint64
}

// Add adds o to c.
func (c *Counters) Add(o Counters) {
	c.Connections += o.Connections
	c.InPackets += o.InPackets
	c.InBytes += o.InBytes
	c.OutPackets += o.OutPackets
	c.OutBytes += o.OutBytes
}

// Stats is an observation of a data plane.
type Stats struct {
	Services []ServiceStats // sorted by key
	// PacketEvents are the drops and other named packet events with their
	// totals since the data plane was loaded; every name the data plane knows
	// is present.
	PacketEvents []PacketEvent
	Info         DataplaneInfo
	Table        []TableStats // the connection tables
	// Interfaces the data plane was attached to.
	Interfaces []InterfaceStats
}

// PacketKind says what became of the packets a packet event counts.
type PacketKind string

// The kinds of packet events.
const (
	PacketPass   PacketKind = "pass"   // left to the host's stack, untouched
	PacketDrop   PacketKind = "drop"   // dropped
	PacketAnswer PacketKind = "answer" // answered by the director: ICMP error or TCP reset
	PacketNote   PacketKind = "note"   // something worth counting on the way of a packet
	PacketFault  PacketKind = "fault"  // cannot happen: a bug if not zero
)

// PacketEvent is one named count of packets.
type PacketEvent struct {
	// Number is the event's for ever; 0: it has none.
	Number uint8
	Name   string
	Kind   PacketKind
	Help   string
	Count  uint64
}

// DataplaneInfo is what the first line of ipvsadm's list tells.
type DataplaneInfo struct {
	Version   string // of IPVS, or of what the data plane reproduces, such as 1.2.1
	TableSize uint64 // ipvs: the buckets of its connection table; xdp: the connections its tables are sized for
}

// ServiceStats are one service's counters and those of its servers.
type ServiceStats struct {
	Key      ServiceKey
	Counters Counters // includes those of servers removed since
	Rates    Rates
	Servers  []ServerStats
	// Refused are new connections beyond the service's limits, by the packet event's
	// name: service-rate, service-connections, source-rate, source-connections; and
	// table-full, those refused, or served without state, for want of room.
	Refused map[string]uint64
	Guard   GuardStats
}

// GuardStats are of a service's guard.
type GuardStats struct {
	On         bool
	Challenged uint64 // first segments it answered
	Validated  uint64 // clients that showed themselves to be real
}

// ServerStats are one server's counters and its condition.
type ServerStats struct {
	Server   realserver.Server
	Counters Counters
	Rates    Rates
	Active   uint64 // connections in an active state, as IPVS counts them
	Inactive uint64 // UDP's included
	// UDP is how many of Inactive are UDP's; as of a few seconds ago.
	UDP        uint64
	Templates  uint64 // persistence templates that name the server
	Overloaded bool   // at its upper threshold, or not below the lower one since
	// Reachable is whether the data plane has a next hop for the server. An
	// unreachable server is not scheduled.
	Reachable bool
	// Reason says in words why the server is not reachable; empty if it is.
	Reason string
}

// TableStats describes one connection table.
type TableStats struct {
	Family    string // "ipv4" or "ipv6"
	Limit     uint64 // connections it is sized for, at two keys each
	Keys      uint64 // keys in use at the last complete sweep
	Slots     uint64 // keys it has room for
	Bytes     uint64 // memory it occupies
	Expired   uint64 // connections removed by the sweep since the daemon started
	Corrected uint64 // active/inactive counts healed by the sweep's recount
	// Pressure is the part of Limit in use, at two keys a connection: beyond 1 it works
	// on until groups are full. FullIn is when it comes to 1 at the present rate; 0:
	// it does not.
	Pressure float64
	FullIn   time.Duration
	// Refused is how many new connections found no room, the last one LastFull ago;
	// 0: none.
	Refused  uint64
	LastFull time.Duration
	// SweepPeriod is how long the last sweep of all tables took from its begin to the
	// next one's, SweepShare the part of one CPU that it used.
	SweepPeriod time.Duration
	SweepShare  float64
}

// EchoMode says what becomes of echo requests (ping) to virtual addresses.
type EchoMode string

// The modes of echo.
const (
	EchoService EchoMode = "service" // answered while a service of the address has a server to offer, else dropped
	EchoAlways  EchoMode = "always"  // answered for as long as there is a service of the address
	EchoStack   EchoMode = "stack"   // left to the host, which answers for addresses of its own
)

// InterfaceMode says how the data plane is attached to an interface.
type InterfaceMode string

// The modes.
const (
	InterfaceNative  InterfaceMode = "native"  // in the driver
	InterfaceGeneric InterfaceMode = "generic" // in the stack, after the driver: slow, for trials
	InterfaceGone    InterfaceMode = "gone"    // no more: the interface or the program on it has vanished
)

// InterfaceStats describes one interface the data plane was attached to.
type InterfaceStats struct {
	Name string
	Mode InterfaceMode
}
