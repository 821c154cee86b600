package lease

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// The bounds of a lease's lifetime.
const (
	MinLifetime = 5 * time.Second
	MaxLifetime = 10 * time.Minute
)

// Registration is what an agent says of its server in a pool. Each says all of it anew.
type Registration struct {
	Pool  string // its handle
	Agent string // who says it: one member of the pool each
	// Boot tells one run of the agent from the next, which has another; Sequence rises
	// from one message of a run to the next.
	Boot     string
	Sequence uint64
	Lifetime time.Duration
	// Server is offered as it is; with Draining it gets no new connections.
	Server realserver.Server
	// Load is nil where the agent does not say it.
	Load *Load
}

// Load is what an agent says of its host. Fields that are nil are not known.
type Load struct {
	Value float64 // 0 is idle, 1 busy
	// Degradation is what one more connection adds to Value (RFC 5356 §4.2); 0: not said.
	Degradation float64

	CPU         *float64 // share of its time, 0 to 1
	RunQueue    *float64 // tasks that run or would, by CPU
	Pressure    *float64 // share of time in which some task waited for a CPU
	Memory      *float64 // share that is not available
	Connections *uint64  // of TCP, established
}

// Member is a registration in force.
type Member struct {
	Registration

	Since, Until time.Time // when it came, and when it ends unless it is renewed
	LoadAt       time.Time // when Load was heard; zero: never
	Unreachable  int       // who reported it unreachable of late, counted
}

// handle is what pools and agents are called: harmless in logs and paths.
var handle = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$`)

// IsHandle reports whether a pool or an agent can be called so: 1 to 63 letters, digits,
// '.', '_', '@' or '-', a letter or digit first.
func IsHandle(name string) bool { return handle.MatchString(name) }

// Validate says what is wrong with a registration by itself; nil if nothing is.
func (r *Registration) Validate() error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, name := range []struct{ what, text string }{{"pool", r.Pool}, {"agent", r.Agent}, {"boot", r.Boot}} {
		if !IsHandle(name.text) {
			report("%s %.80q: want 1 to 63 letters, digits, '.', '_', '@' or '-', a letter or digit first", name.what, name.text)
		}
	}
	if r.Sequence == 0 {
		report("sequence 0: the first is 1")
	}
	if r.Lifetime < MinLifetime || r.Lifetime > MaxLifetime {
		report("lifetime %s is out of range: want %s to %s", r.Lifetime, MinLifetime, MaxLifetime)
	}
	if err := r.Server.Validate(); err != nil {
		report("server %s: %w", r.Server.Address, err)
	}
	if r.Load != nil {
		if err := r.Load.validate(); err != nil {
			report("load: %w", err)
		}
	}
	return errors.Join(problems...)
}

// validate wants numbers that are some: what comes of them is divided by.
func (l *Load) validate() error {
	const most = 1e9
	for _, n := range []struct {
		name  string
		value *float64
		most  float64
	}{
		{"value", &l.Value, most},
		{"degradation", &l.Degradation, 1},
		{"cpu", l.CPU, 1},
		{"run-queue", l.RunQueue, most},
		{"pressure", l.Pressure, 1},
		{"memory", l.Memory, 1},
	} {
		if n.value != nil && (math.IsNaN(*n.value) || *n.value < 0 || *n.value > n.most) {
			return fmt.Errorf("%s %v is out of range: want 0 to %g", n.name, *n.value, n.most)
		}
	}
	return nil
}
