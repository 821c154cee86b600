package director

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// The bounds of policies.
const (
	MaxChecks       = 16
	MaxSorry        = 64
	MaxHealthTime   = 31 * 24 * time.Hour // of slow start, damping, passive evidence and silence
	MaxSuspend      = time.Hour           // of a server, by passive evidence
	MaxLoadShare    = 10000               // per cent of the configured weight
	maxNotifyWords  = 64
	maxNotifyLength = 4096 // bytes of a word
)

// health checks a service's policy: what no kernel would refuse.
func (c *checker) health(s Service) {
	h := s.Health
	if len(h.Checks) > MaxChecks {
		c.report("check", "%d checks: a service has at most %d", len(h.Checks), MaxChecks)
	}
	where := c.at.Where
	for i, check := range h.Checks {
		c.at.Where = fmt.Sprintf("%s: check[%d]", where, i)
		for _, err := range parts(check.Validate()) {
			field := fmt.Sprintf("check[%d]", i)
			if problem := (*realserver.Problem)(nil); errors.As(err, &problem) && problem.Field != "" {
				field += "." + strings.ReplaceAll(problem.Field, "_", "-")
			}
			c.report(field, "%v", err)
		}
		if text := noTruePath(s, check); text != "" {
			c.report(fmt.Sprintf("check[%d].via", i), "via virtual: %s", text)
		}
	}
	c.sorry(s, where)
	c.at.Where = where + ": health"
	c.consequences(h)
	c.measures(h)
	c.notify(h.Notify)
	c.at.Where = where
}

// noTruePath says why a check that is to go by the way of clients' packets would fail
// whatever the server does; empty: it would not.
func noTruePath(s Service, check realserver.Check) string {
	protocol := check.Protocol()
	if check.Via != realserver.ViaVirtual || protocol == "" {
		return "" // what else is wrong is the check's
	}
	port := s.Key.Address.Port()
	switch {
	case s.Key.IsWide():
		return "the service has more than one address or port: leave via out"
	case s.Key.Protocol.String() != protocol:
		return fmt.Sprintf("the check is by %s, and clients of the service come by %s", protocol, s.Key.Protocol)
	case check.Port != 0 && check.Port != port:
		return fmt.Sprintf("clients' packets come by port %d, not %d", port, check.Port)
	}
	for _, server := range s.Servers {
		if server.Method == realserver.Local {
			return fmt.Sprintf("no packet leaves for server %s by method local", server.Address)
		}
	}
	return ""
}

// sorry wants servers that could be the service's, and are not.
func (c *checker) sorry(s Service, where string) {
	if len(s.Health.Sorry) > MaxSorry {
		c.report("sorry", "%d sorry servers: a service has at most %d", len(s.Health.Sorry), MaxSorry)
	}
	for i, server := range s.Health.Sorry {
		inner := checker{at: c.at}
		inner.at.Where = fmt.Sprintf("%s: sorry[%d]", where, i)
		same := func(o realserver.Server) bool { return o.Address == server.Address }
		switch first := slices.IndexFunc(s.Health.Sorry, same); {
		case first < i:
			inner.report("address", "%s is sorry[%d] already", server.Address, first)
		case slices.ContainsFunc(s.Servers, same):
			inner.report("address", "%s is one of the service's servers", server.Address)
		}
		if server.Weight == 0 {
			inner.report("weight", "weight 0: a sorry server takes connections")
		}
		inner.server(&s, server)
		c.within(fmt.Sprintf("sorry[%d]", i), inner.problems)
	}
}

// within takes over the problems of what the field is.
func (c *checker) within(field string, problems []error) {
	for _, problem := range Problems(errors.Join(problems...)) {
		problem.Field = strings.TrimSuffix(field+"."+problem.Field, ".")
		c.problems = append(c.problems, problem)
	}
}

func (c *checker) consequences(h Health) {
	if h.Initial != InitialDown && h.Initial != InitialUp {
		c.report("health.initial", "unknown initial state %q: want down or up", h.Initial)
	}
	if h.Down != DownInhibit && h.Down != DownRemove {
		c.report("health.down", "unknown action %q: want inhibit or remove", h.Down)
	}
	if h.Established != EstablishedKeep && h.Established != EstablishedCut {
		c.report("health.established", "unknown word %q: want keep or cut", h.Established)
	}
	if sum := uint64(h.Quorum) + uint64(h.Hysteresis); sum > 1<<32-1 {
		c.report("health.hysteresis", "quorum %d and hysteresis %d: want a sum of %d at most", h.Quorum, h.Hysteresis, uint32(1<<32-1))
	}
	if h.Panic > 100 {
		c.report("health.panic", "panic %d%%: want 100%% at most", h.Panic)
	}
	if h.Pool != "" && !namePattern.MatchString(h.Pool) {
		c.report("health.pool", "pool %q: want 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first", h.Pool)
	}
	c.absolute("health.maintenance", "maintenance", h.Maintenance)
}

// measures checks what counts and lasts.
func (c *checker) measures(h Health) {
	c.lasting("health.slow-start", "slow-start", h.SlowStart)
	c.lasting("health.load.silence", "silence", h.Load.Silence)
	if d := h.Damping; d.Changes == 0 && d != (Damping{}) {
		c.report("health.damping", "damping without changes: how many hold a server down is missing")
	} else if d.Changes == 1 {
		c.report("health.damping.changes", "changes 1: want 2 at least, for a server that goes down once has changed once")
	} else if d.Changes > 0 {
		c.needed("health.damping.within", "damping: within", d.Within)
		c.needed("health.damping.hold", "damping: hold", d.Hold)
	}
	if p := h.Passive; p.IsZero() && p != (Passive{}) {
		c.report("health.passive", "passive without a limit: give unanswered, resets or unreachable")
	} else if !p.IsZero() {
		c.lasting("health.passive.within", "passive: within", p.Within)
		if p.Suspend < 0 || p.Suspend > MaxSuspend {
			c.report("health.passive.suspend", "passive: suspend %s is out of range: want %s at most", p.Suspend, MaxSuspend)
		}
	}
	if h.Load.SNMP != nil {
		for _, err := range parts(h.Load.SNMP.Validate()) {
			field := "health.load.snmp"
			if problem := (*realserver.Problem)(nil); errors.As(err, &problem) && problem.Field != "" {
				field += "." + strings.ReplaceAll(problem.Field, "_", "-")
			}
			c.report(field, "load: snmp: %v", err)
		}
	}
	switch l := h.Load; {
	case l.Kind == LoadNone && l != (LoadPolicy{}):
		c.report("health.load", "load without a kind: want linear, least-used or reported")
	case !slices.Contains([]LoadKind{LoadNone, LoadLinear, LoadLeastUsed, LoadFromMeasure}, l.Kind):
		c.report("health.load.kind", "unknown load policy %q: want linear, least-used or reported", l.Kind)
	case l.Minimum > 100:
		c.report("health.load.minimum", "minimum %d%%: want 100%% at most, the configured weight", l.Minimum)
	case l.Maximum > MaxLoadShare || l.Maximum > 0 && l.Maximum < 100:
		c.report("health.load.maximum", "maximum %d%%: want 100%%, the configured weight, to %d%%", l.Maximum, MaxLoadShare)
	}
}

func (c *checker) notify(n Notify) {
	for _, command := range []struct {
		field string
		words []string
	}{{"up", n.Up}, {"down", n.Down}, {"quorum-up", n.QuorumUp}, {"quorum-down", n.QuorumDown}} {
		field := "health.notify." + command.field
		if len(command.words) == 0 {
			continue
		}
		if len(command.words) > maxNotifyWords {
			c.report(field, "notify %s: %d words: want %d at most", command.field, len(command.words), maxNotifyWords)
		}
		if i := realserver.RedactedArgument(command.words); i > 0 {
			c.report(field, "notify %s: argument %d is %s", command.field, i, realserver.WhyRedacted)
		}
		c.absolute(field, "notify "+command.field, command.words[0])
		if command.words[0] == "" {
			c.report(field, "notify %s: the program is missing", command.field)
		}
		for i, word := range command.words[1:] {
			if len(word) > maxNotifyLength || strings.ContainsRune(word, 0) {
				c.report(field, "notify %s: argument %d has a NUL byte, or more than %d bytes", command.field, i+1, maxNotifyLength)
			}
		}
	}
	c.absolute("health.notify.fifo", "notify: fifo", n.FIFO)
}

// absolute reports a path that is there and is not absolute.
func (c *checker) absolute(field, name, file string) {
	if file != "" && (!path.IsAbs(file) || strings.ContainsRune(file, 0) || len(file) > maxNotifyLength) {
		c.report(field, "%s %q is not an absolute path", name, file)
	}
}

// lasting reports a time out of bounds; needed reports one that is missing, too.
func (c *checker) lasting(field, name string, d time.Duration) {
	if d < 0 || d > MaxHealthTime {
		c.report(field, "%s %s is out of range: want %dh (31 days) at most", name, d, MaxHealthTime/time.Hour)
	}
}

func (c *checker) needed(field, name string, d time.Duration) {
	if d == 0 {
		c.report(field, "%s is missing: want a time such as 1m", name)
	}
	c.lasting(field, name, d)
}
