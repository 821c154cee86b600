package director

import (
	"fmt"

	"github.com/shunt-lb/shunt/conntrack"
)

// MaxRate is the largest rate of a limit and of a guard's threshold, in new
// connections a second. The XDP program counts with the time that one of them takes,
// in 1/65536 jiffies: at 100 jiffies a second some seven of those, and none of ten
// times the rate.
const MaxRate = 1000000

// Limits bound what a service lets begin; zero fields are no limit. A client beyond
// one is dropped without an answer and counted by the name of the limit; connections
// that exist go on.
type Limits struct {
	Rate        uint32 // new connections a second; as many at once
	Connections uint32 // at one time, those of removed servers included
	Source      SourceLimits
}

// RefusedTableFull is the one name in ServiceStats.Refused that is no limit's: there was
// no room for the connection.
const RefusedTableFull = "table-full"

// SourceLimits are limits of each source network by itself. They hold for networks
// of which the data plane remembers recent connections: the last ones of all.
type SourceLimits struct {
	// Prefix is the length of a source network: 0 for every client by itself, /32 or
	// /128.
	Prefix      uint8
	Rate        uint32
	Connections uint32
}

// IsZero reports whether sources have no limit; they may have a prefix all the same.
func (l SourceLimits) IsZero() bool { return l.Rate == 0 && l.Connections == 0 }

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
	Off  uint32 // GuardAuto's; 0: a fifth of On, and 1 at least
}

// DefaultGuardOn is SourceGuard.On where none is given: connections a second.
const DefaultGuardOn = 5000

// String returns the mode's word: off, auto or on.
func (m GuardMode) String() string {
	if m == GuardOff {
		return "off"
	}
	return string(m)
}

// ParseGuardMode is the inverse of GuardMode.String.
func ParseGuardMode(s string) (GuardMode, error) {
	for _, m := range []GuardMode{GuardAuto, GuardOn, GuardOff} {
		if m.String() == s {
			return m, nil
		}
	}
	return "", fmt.Errorf("unknown guard %.40q: want auto, on or off", s)
}

// String returns the mode, and GuardAuto's thresholds.
func (g SourceGuard) String() string {
	if g.On == 0 && g.Off == 0 {
		return g.Mode.String()
	}
	return fmt.Sprintf("%s, on from %d/s, off below %d/s", g.Mode, g.On, g.Off)
}

// normalize returns the limits with the prefix of source networks filled in.
func (l Limits) normalize(key ServiceKey) Limits {
	if l.Source.Prefix == 0 && !l.Source.IsZero() {
		l.Source.Prefix = key.FullPrefix()
	}
	return l
}

// normalize returns the guard with GuardAuto's thresholds filled in. The lower one is
// not 0: no rate is below it, and the guard would stay on for ever.
func (g SourceGuard) normalize() SourceGuard {
	if g.Mode != GuardAuto {
		return g
	}
	if g.On == 0 {
		g.On = DefaultGuardOn
	}
	if g.Off == 0 {
		g.Off = max(1, g.On/5)
	}
	return g
}

func (c *checker) limits(s Service) {
	rate := func(field, what string, n uint32) {
		if n > MaxRate {
			c.report(field, "%s %d: want %d new connections a second at most", what, n, MaxRate)
		}
	}
	l := s.Limits
	rate("limits.rate", "limit of the rate", l.Rate)
	rate("limits.source.rate", "limit of a source's rate", l.Source.Rate)
	if s.OnePacket && l.Connections > 0 {
		c.report("limits.connections", "one-packet scheduling makes no connections: there are none to limit")
	}
	if s.OnePacket && l.Source.Connections > 0 {
		c.report("limits.source.connections", "one-packet scheduling makes no connections: a source has none to limit")
	}
	bits := s.Key.FullPrefix()
	switch {
	case l.Source.Prefix == 0:
	case l.Source.IsZero():
		c.report("limits.source.prefix", "source prefix %d without a limit of sources: give a rate, or a number of connections", l.Source.Prefix)
	case bits > 0 && l.Source.Prefix > bits:
		c.report("limits.source.prefix", "source prefix %d: want 1 to %d", l.Source.Prefix, bits)
	}
}

func (c *checker) guard(s Service) {
	g := s.Guard
	switch g.Mode {
	case GuardOff, GuardOn:
		if g.On > 0 || g.Off > 0 {
			c.report("guard", "guard %s has no thresholds: they are auto's", g.Mode)
		}
	case GuardAuto:
		switch {
		case g.On > MaxRate:
			c.report("guard.on", "guard on from %d: want %d connections a second at most", g.On, MaxRate)
		case g.Off > g.On:
			c.report("guard.off", "guard off below %d: it goes on from %d, want that at most", g.Off, g.On)
		}
	default:
		c.report("guard", "unknown guard %q: want auto, on or off", string(g.Mode))
	}
	if g != (SourceGuard{}) && s.Key.Protocol != conntrack.TCP {
		c.report("guard", "a guard is for tcp")
	}
}
