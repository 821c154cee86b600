package director

// Limits bound what a service lets begin; zero fields are no limit. A client beyond
// one is dropped without an answer and counted by the name of the limit; connections
// that exist go on.
type Limits struct {
	Rate        uint32 // new connections a second; as many at once
	Connections uint32 // at one time, those of removed servers included
	Source      SourceLimits
}

// SourceLimits are limits of each source network by itself. They hold for networks
// of which the data plane remembers recent connections: the last ones of all.
type SourceLimits struct {
	// Prefix is the length of a source network: 0 for every client by itself, /32 or
	// /128.
	Prefix      uint8
	Rate        uint32
	Connections uint32
}

// IsZero reports whether there is no limit.
func (l Limits) IsZero() bool { return l == Limits{} }

// GuardMode says when a service's guard is on: TCP clients without a connection have
// to show that their address is theirs before the service remembers anything of them.
type GuardMode string

// The modes.
const (
	GuardOff  GuardMode = "" // never
	GuardAuto GuardMode = "auto"
	GuardOn   GuardMode = "on"
)

// SourceGuard is a service's guard. GuardAuto goes on while at least On connections a
// second begin that do not prove themselves, and off when fewer than Off did for ten
// seconds.
type SourceGuard struct {
	Mode GuardMode
	On   uint32 // GuardAuto's; 0: DefaultGuardOn
	Off  uint32 // GuardAuto's; 0: a fifth of On
}

// DefaultGuardOn is SourceGuard.On where none is given: connections a second.
const DefaultGuardOn = 5000
