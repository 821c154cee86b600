package translation

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Asked is a check of one server, and where it stands. Literal arguments of a script
// are escaped already (Escape).
type Asked struct {
	Source
	Check realserver.Check
}

// AskedAt returns the checks of a server, whose ports are those that the other program
// asks, or 0 for the server's own: with a port if they need one, and by the way that the
// other program asks. given is the server as the text has it.
func (s *Service) AskedAt(server realserver.Server, checks []Asked, given netip.AddrPort) []Asked {
	var all []Asked
	own := s.Key.ServerAddress(server.Address).Port()
	for _, asked := range checks {
		switch {
		case !asked.needsPort():
		case asked.Check.Port == 0 && own == 0:
			s.Notes = append(s.Notes, Note{
				Position: asked.At, Kind: NotCarried, What: asked.What, Server: given,
				Why: "neither the server nor the check has a port: it is not asked",
			})
			continue
		case server.Method == realserver.DR || server.Method == realserver.Tunnel:
			asked.Check.Via = realserver.ViaServer
			s.Notes = append(s.Notes, Note{
				Position: Position{File: s.At.File}, Kind: Reminder, What: "via: server",
				Why: "servers reached by dr and tunnel are asked at their own address, as before: without via, Shunt asks them at the virtual address by the way of a client's packet, which finds out more",
			})
		}
		if asked.needsPort() && asked.Check.Port == 0 {
			asked.Check.Port = own
		}
		all = append(all, asked)
	}
	return all
}

func (a Asked) needsPort() bool {
	return a.Check.Kind != realserver.CheckICMP && a.Check.Kind != realserver.CheckScript
}

// Escape returns an argument of a script that stands for itself.
func Escape(argument string) string { return strings.ReplaceAll(argument, "%", "%%") }

// Named returns a script's command with its server's address as %h and its port as
// %p: commands of several servers that differ in nothing else become the same. What is
// part of a longer address or number stays.
func Named(command []string, server netip.AddrPort) []string {
	named := slices.Clone(command)
	host := server.Addr().String()
	for i, argument := range named[min(1, len(named)):] {
		argument = replaceWhole(argument, host, "%h")
		if server.Port() != 0 && strings.Contains(argument, "%h") || argument == strconv.Itoa(int(server.Port())) {
			argument = replaceWhole(argument, strconv.Itoa(int(server.Port())), "%p")
		}
		named[i+1] = argument
	}
	return named
}

// replaceWhole replaces a text where no letter, digit, colon or dot makes it part of
// a longer word; a colon and a port may follow an address.
func replaceWhole(text, old, with string) string {
	var b strings.Builder
	for {
		i := strings.Index(text, old)
		if i < 0 {
			return b.String() + text
		}
		rest := text[i+len(old):]
		before, after := i > 0 && isWordByte(text[i-1]), rest != "" && isWordByte(rest[0])
		if old != "" && strings.Contains(old, ":") {
			before, after = before || i > 0 && text[i-1] == ':', after || strings.HasPrefix(rest, ":")
		}
		b.WriteString(text[:i])
		if before || after {
			b.WriteString(old)
		} else {
			b.WriteString(with)
		}
		text = rest
	}
}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.'
}

// common makes the service's checks of what its servers are asked: Shunt asks all
// servers of a service the same. A check that not all of them have is not asked, with
// a note; of one that differs from server to server in what it expects, less is asked.
func (s *Service) common() {
	if len(s.Servers) == 0 {
		return
	}
	groups, order := s.sameQuestions()
	for _, key := range order {
		group := groups[key]
		if len(group) < len(s.Servers) {
			for _, one := range group {
				s.checkNote(NotCarried, one, fmt.Sprintf(
					"only %d of the service's %d servers have this check, and Shunt asks all servers of a service the same: it is not asked, and does not take the server out",
					len(group), len(s.Servers)))
			}
			continue
		}
		check := s.merge(group)
		if len(s.Health.Checks) == director.MaxChecks {
			s.checkNote(NotCarried, group[0], fmt.Sprintf("a service has at most %d checks: it is not asked", director.MaxChecks))
		} else {
			s.Health.Checks = append(s.Health.Checks, check)
		}
	}
}

// member is a check of one of the servers.
type member struct {
	Asked
	server int
	named  []string // of scripts
	own    bool     // the port is the server's own
}

// sameQuestions groups what asks the same, of the servers in their order: literally, or
// but for the servers' addresses and ports. A server that has a check twice is in two
// groups.
func (s *Service) sameQuestions() (groups map[string][]member, order []string) {
	var all []member
	literally := make(map[string]int) // servers
	for i, source := range s.Sources {
		seen := make(map[string]bool)
		for _, asked := range source.Asked {
			m := member{Asked: asked, server: i}
			m.own = asked.needsPort() && asked.Check.Port == s.Key.ServerAddress(s.Servers[i].Address).Port()
			if err := valid(asked.Check); err != nil {
				s.checkNote(NotCarried, m, fmt.Sprintf("it is not asked: %v", err))
				continue
			}
			if script := asked.Check.Script; script != nil {
				m.named = script.Command
			}
			if key := m.question(asked.Check.Port); !seen[key] {
				seen[key] = true
				literally[key]++
			}
			all = append(all, m)
		}
	}
	groups = make(map[string][]member)
	seen := make(map[string]int) // in the server that the last member was of
	for i, m := range all {
		if i > 0 && all[i-1].server != m.server {
			clear(seen)
		}
		key := m.question(m.Check.Port)
		if literally[key] < len(s.Servers) {
			port := m.Check.Port
			if m.own {
				port = 0
			}
			if m.Check.Script != nil {
				m.named = Named(m.named, s.Key.ServerAddress(s.Servers[m.server].Address))
			}
			key = m.question(port)
		}
		seen[key]++
		key += fmt.Sprintf(" %d", seen[key])
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], m)
	}
	return groups, order
}

// valid says why a check cannot be asked, or not be written down.
func valid(c realserver.Check) error {
	texts := []string{}
	switch {
	case c.HTTP != nil:
		texts = append(texts, c.HTTP.Path, c.HTTP.Host, c.HTTP.Match)
	case c.DNS != nil:
		texts = append(texts, c.DNS.Name, c.DNS.Answer)
	case c.Exchange != nil:
		texts = append(texts, c.Exchange.Expect)
	case c.SMTP != nil:
		texts = append(texts, c.SMTP.Hello)
	case c.Script != nil:
		texts = append(slices.Clone(c.Script.Command), c.Script.User)
	}
	if c.TLS != nil {
		texts = append(texts, c.TLS.Certificate, c.TLS.Key)
	}
	if problem := Unwritable(texts...); problem != "" {
		return errors.New(problem)
	}
	return c.Validate()
}

// Unwritable says why a configuration cannot have the texts; nothing if it can.
func Unwritable(texts ...string) string {
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return fmt.Sprintf("%q is no UTF-8 text", text)
		}
	}
	return ""
}

// question is what two checks have in common that ask the same of a port, whatever
// answers, how often and by which way.
func (m member) question(port uint16) string {
	c := m.Check
	q := realserver.Check{Kind: c.Kind, Port: port}
	switch {
	case c.HTTP != nil:
		q.HTTP = &realserver.HTTPCheck{Method: c.HTTP.Method, Path: c.HTTP.Path, Host: c.HTTP.Host}
	case c.DNS != nil:
		q.DNS = &realserver.DNSCheck{Name: c.DNS.Name, Type: c.DNS.Type, TCP: c.DNS.TCP}
	case c.Exchange != nil:
		q.Exchange = &realserver.ExchangeCheck{Send: c.Exchange.Send}
	case c.Script != nil:
		q.Script = &realserver.ScriptCheck{Command: m.named}
	case c.File != nil:
		q.File = c.File
	}
	if c.TLS != nil {
		q.TLS = &realserver.TLSCheck{}
	}
	return q.Key()
}

// merge makes one check of those of all servers: the first server's, without what
// others expect otherwise.
func (s *Service) merge(group []member) realserver.Check {
	first := group[0]
	check, own := first.Check, true
	for _, m := range group {
		own = own && m.own
		if m.Check.Via != "" {
			check.Via = m.Check.Via // which makes no difference to the others
		}
	}
	if own {
		check.Port = 0
	}
	for _, m := range group[1:] {
		m.Check.Port, m.Check.Via = check.Port, check.Via
		if m.Check.Key() != check.Key() {
			s.loosen(&check, first, m)
		}
	}
	return check
}

// loosen takes from the check what the server's own has otherwise.
func (s *Service) loosen(check *realserver.Check, first, m member) {
	other := m.Check
	if a, b := check.HTTP, other.HTTP; a != nil {
		h := *a
		if a.Digest != b.Digest {
			h.Digest = ""
		}
		if a.Match != b.Match {
			h.Match = ""
		}
		if (h.Digest != a.Digest || h.Match != a.Match) && first.Check.HTTP.Digest+first.Check.HTTP.Match != "" {
			s.checkNote(Differs, first, "the servers' bodies are to be different ones, and Shunt asks all servers of a service the same: what is in the body is not looked at")
		}
		if own := first.Check.HTTP; own.Digest+own.Match == "" && b.Digest+b.Match != "" {
			s.checkNote(Differs, m, "not all of the servers' bodies are looked at, and Shunt asks all servers of a service the same: what is in the body is not looked at")
		}
		for _, status := range b.Status {
			if !slices.Contains(h.Status, status) {
				h.Status = append(slices.Clone(h.Status), status)
				s.checkNote(Differs, m, "the servers' status codes differ: those of any of them will do")
			}
		}
		check.HTTP, other.HTTP = &h, &h
	}
	if a, b := check.Exchange, other.Exchange; a != nil && a.Expect != b.Expect {
		check.Exchange = &realserver.ExchangeCheck{Send: a.Send}
		s.checkNote(Differs, m, "the servers' answers are to be different ones, and Shunt asks all servers of a service the same: any answer will do")
	}
	if a, b := check.Script, other.Script; a != nil && !slices.Equal(a.Command, b.Command) {
		script := *a
		script.Command = m.named
		check.Script = &script
		s.checkNote(Assumed, first, "the servers' commands differ in their address and port alone: %h and %p stand for them")
	}
	// What is left is the pace, and on whose behalf: the first server's counts.
	other.Exchange, other.Script = check.Exchange, scriptOf(check, other)
	if check.Key() != other.Key() {
		s.checkNote(Differs, m, fmt.Sprintf("the check of %s has other settings, which count: Shunt asks all servers of a service the same", first.At))
	}
}

// scriptOf returns the other's script with the check's command.
func scriptOf(check *realserver.Check, other realserver.Check) *realserver.ScriptCheck {
	if other.Script == nil {
		return nil
	}
	script := *other.Script
	script.Command = check.Script.Command
	return &script
}

// checkNote notes what became of a server's check.
func (s *Service) checkNote(kind Kind, m member, why string) {
	s.Notes = append(s.Notes, Note{Position: m.At, Kind: kind, What: m.What, Why: why, Server: s.Servers[m.server].Address})
}
