package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// chain is a list of rules. A base chain has a hook; the others are jumped to.
type chain struct {
	where  string // such as inet filter input
	hook   string // prerouting, input and so on, in lower case
	policy string // drop or accept; only of base chains
	rules  []rule
}

// rule is a firewall's rule as far as it is understood.
type rule struct {
	text    string
	match   match
	verdict verdict
	targets []string // chains it may go on to
	remove  string   // the command that removes it
}

type verdict uint8

const (
	goesOn  verdict = iota // counts, marks, translates, jumps
	accepts                // ends the hook
	drops
)

// match is what a rule asks of a packet. A nil list asks nothing.
type match struct {
	family                string // ipv4, ipv6 or, for both, empty
	sources, destinations []netip.Prefix
	ports                 []portRange // destination's
	protocols             []string
	inputs                []string // interfaces it came in by
	other                 bool     // asks something else that is not understood, too
}

// The families as nft names them.
const (
	ipv4 = "ipv4"
	ipv6 = "ipv6"
)

type portRange struct{ first, last uint16 }

// may reports whether packets of clients to the service, before or after the
// server's address is written in, can match.
func (i *inspection) may(m match, s subject) bool {
	if m.inputs != nil && !slices.ContainsFunc(m.inputs, func(pattern string) bool {
		return slices.ContainsFunc(i.Interfaces, func(name string) bool {
			prefix, wild := strings.CutSuffix(pattern, "*")
			return name == pattern || wild && strings.HasPrefix(name, prefix)
		})
	}) {
		return false
	}
	if own := map[bool]string{false: ipv4, true: ipv6}[s.Key.Address.Addr().Is6()]; m.family != "" && m.family != own {
		return false
	}
	if m.protocols != nil && !slices.Contains(m.protocols, s.Key.Protocol.String()) {
		return false
	}
	return slices.ContainsFunc(s.targets, func(t netip.AddrPort) bool {
		return (m.destinations == nil || contains(m.destinations, t.Addr())) &&
			(m.ports == nil || slices.ContainsFunc(m.ports, func(p portRange) bool { return p.first <= t.Port() && t.Port() <= p.last }))
	}) && (m.sources == nil || slices.ContainsFunc(m.sources, func(p netip.Prefix) bool { return p.Addr().Is4() == s.Key.Address.Addr().Is4() }))
}

// isSpecific reports whether the rule is about the service by name, so to say: by
// its addresses or ports.
func (m match) isSpecific(s subject) bool {
	return m.destinations != nil || m.ports != nil ||
		slices.ContainsFunc(s.targets, func(t netip.AddrPort) bool { return contains(m.sources, t.Addr()) })
}

// subject is a service that rules may be about.
type subject struct {
	director.Service
	targets []netip.AddrPort // the addresses that packets to it have on their way
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// bypassing returns the services whose packets XDP takes past the stack.
func (i *inspection) bypassing() []subject {
	var services []subject
	for _, s := range i.Services {
		targets := []netip.AddrPort{s.Key.Address}
		local := len(s.Servers) > 0
		for _, server := range s.Servers {
			if server.Method == realserver.NAT {
				targets = append(targets, server.Address)
			}
			local = local && server.Method == realserver.Local
		}
		if !local {
			services = append(services, subject{s, targets})
		}
	}
	return services
}

// walk calls visit for the rules of a chain and of the chains that packets to a
// service can be sent on to, each chain once.
func (i *inspection) walk(c *chain, chains map[string]*chain, services []subject, visit func(*chain, rule)) {
	seen := map[*chain]bool{}
	var enter func(*chain)
	enter = func(c *chain) {
		if c == nil || seen[c] {
			return
		}
		seen[c] = true
		for _, rule := range c.rules {
			if !slices.ContainsFunc(services, func(s subject) bool { return i.may(rule.match, s) }) {
				continue
			}
			visit(c, rule)
			for _, target := range rule.targets {
				enter(chains[target])
			}
		}
	}
	enter(c)
}

// maxRules bounds how many rules are reported one by one.
const maxRules = 20

// judge reports the rules that the services' packets do not come by. The chains
// are those of one table, by name.
func (i *inspection) judge(r *report, chains map[string]*chain, services []subject) {
	var names []string
	for name, c := range chains {
		if c.hook != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	told := map[string]bool{}
	for _, name := range names {
		base := chains[name]
		i.walk(base, chains, services, func(c *chain, rule rule) {
			key := c.where + "\x00" + rule.remove + rule.text
			if !told[key] {
				told[key] = true
				i.judgeRule(r, c, rule, services)
			}
		})
		if base.policy == "drop" && slices.Contains([]string{"input", "prerouting", "ingress"}, base.hook) {
			i.judgePolicy(r, base, chains, services)
		}
	}
}

// judgeRule reports a rule if it is about the services or drops their packets.
func (i *inspection) judgeRule(r *report, c *chain, rule rule, services []subject) {
	const why = "XDP takes these packets before any firewall sees them"
	var concerned []subject
	specific := false
	for _, s := range services {
		if !i.may(rule.match, s) {
			continue
		}
		own := rule.match.isSpecific(s)
		if own || rule.verdict == drops {
			concerned = append(concerned, s)
		}
		specific = specific || own
	}
	if len(concerned) == 0 {
		return
	}
	what := fmt.Sprintf("packets to %s do not come by this rule of %s: %s", refs(concerned), c.where, shorten(rule.text))
	sources := rule.match.sources
	switch {
	case rule.verdict == drops && sources != nil && !rule.match.other:
		var open []subject // those that let in what the rule would drop
		for _, s := range concerned {
			if slices.ContainsFunc(sources, func(p netip.Prefix) bool { return letsIn(s, p) }) {
				open = append(open, s)
			}
		}
		if len(open) > 0 {
			r.add(Warning, c.where, what, why+": clients that the rule drops are served. A service's own list of clients holds for XDP", denyCommands(open, sources))
		}
	case rule.verdict == drops && specific:
		r.add(Warning, c.where, what, why+": what the rule drops is served", rule.remove)
	case rule.verdict == drops:
		r.add(Info, c.where, what, why+": the rule holds for the other traffic alone", "")
	default:
		r.add(Info, c.where, what, why+": its counters stand still for them, and what it does is not done", "")
	}
}

// letsIn reports whether the service's access list allows clients of the prefix.
// A part of the prefix is not looked at: a list that denies the whole is meant.
func letsIn(s subject, p netip.Prefix) bool {
	return p.Addr().Is4() == s.Key.Address.Addr().Is4() && s.Access.Allows(p.Masked().Addr())
}

// judgePolicy reports a chain that drops what no rule accepts, if that keeps
// clients away from a service whose access list does not.
func (i *inspection) judgePolicy(r *report, base *chain, chains map[string]*chain, services []subject) {
	const why = "XDP takes these packets before any firewall sees them: whom no rule accepts is served all the same. A service's own list of clients holds for XDP"
	for _, s := range services {
		if len(s.Access.Allow) > 0 {
			continue
		}
		opened := false
		var allowed []netip.Prefix
		i.walk(base, chains, []subject{s}, func(_ *chain, rule rule) {
			switch {
			case rule.verdict != accepts || rule.match.other:
			case rule.match.sources == nil:
				opened = true
			default:
				allowed = append(allowed, slices.DeleteFunc(slices.Clone(rule.match.sources), func(p netip.Prefix) bool { return p.Addr().Is4() != s.Key.Address.Addr().Is4() })...)
			}
		})
		if opened {
			continue
		}
		what := fmt.Sprintf("the policy of %s is drop, which packets to %s do not come by", base.where, ref(s.Service))
		if len(allowed) == 0 {
			r.add(Info, ref(s.Service), what+"; no rule accepts them from anybody", why, "")
			continue
		}
		command := "shunt service edit " + quote(ref(s.Service))
		for _, p := range allowed {
			command += " --allow " + p.String()
		}
		r.add(Warning, ref(s.Service), fmt.Sprintf("%s; its rules accept them from %d prefixes alone", what, len(allowed)), why, command)
	}
}

// listed bounds how many services a finding names.
const listed = 3

func refs(services []subject) string {
	var names []string
	for _, s := range services[:min(listed, len(services))] {
		names = append(names, ref(s.Service))
	}
	if more := len(services) - listed; more > 0 {
		return fmt.Sprintf("%s and %d more services", strings.Join(names, ", "), more)
	}
	return strings.Join(names, ", ")
}

// denyCommands add the sources to the services' lists. An edit replaces a list,
// so that what is denied already is named again.
func denyCommands(services []subject, sources []netip.Prefix) string {
	var commands []string
	for _, s := range services[:min(listed, len(services))] {
		command := "shunt service edit " + quote(ref(s.Service))
		deny := slices.Clone(s.Access.Deny)
		for _, p := range sources {
			if p.Addr().Is4() == s.Key.Address.Addr().Is4() {
				deny = append(deny, p)
			}
		}
		for _, p := range (director.Access{Deny: deny}).Normalize().Deny {
			command += " --deny " + p.String()
		}
		commands = append(commands, command)
	}
	text := strings.Join(commands, " && ")
	if more := len(services) - listed; more > 0 {
		text += fmt.Sprintf(" # and %d more services alike", more)
	}
	return text
}

// shorten keeps a rule with a long list readable.
func shorten(text string) string {
	const longest = 200
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest], "") + "..."
}

// limitRules keeps the most urgent findings and counts the rest.
func limitRules(r *report) {
	if len(r.findings) <= maxRules {
		return
	}
	slices.SortStableFunc(r.findings, func(a, b Finding) int { return a.Severity.Compare(b.Severity) })
	more := len(r.findings) - maxRules
	r.findings = r.findings[:maxRules]
	r.add(Info, "", fmt.Sprintf("%d more rules that services' packets do not come by", more), "only the first ones are listed", "")
}

// What a program may print and how long it may take.
const (
	maxOutput  = 64 << 20
	maxRunning = 10 * time.Second
)

var errLong = fmt.Errorf("it printed more than %d MiB", maxOutput>>20)

// bounded is a buffer that refuses to grow for ever.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxOutput {
		return 0, errLong
	}
	return b.Buffer.Write(p)
}

// output runs a program of the system in this thread's network namespace and
// returns what it prints. Errors wrap exec.ErrNotFound if it is not installed.
func (i *inspection) output(name string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(name)
	for _, folder := range []string{"/usr/sbin", "/sbin"} { // not in every user's PATH
		if err != nil {
			path, err = exec.LookPath(filepath.Join(folder, name))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", name, exec.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(i.ctx, maxRunning)
	defer cancel()
	command := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bounded
	command.Stdout, command.Stderr = &stdout, &stderr
	command.WaitDelay = time.Second // a grandchild may hold the pipes
	if err := command.Run(); err != nil {
		if stdout.Len() > 0 && errors.Is(err, errLong) {
			err = errLong
		}
		return nil, fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, shorten(strings.TrimSpace(stderr.String())))
	}
	return stdout.Bytes(), nil
}

// rangePrefixes returns the prefixes that make up the range of addresses.
func rangePrefixes(first, last netip.Addr) []netip.Prefix {
	var prefixes []netip.Prefix
	if !first.IsValid() || first.BitLen() != last.BitLen() || last.Less(first) {
		return nil
	}
	for {
		bits := first.BitLen()
		for bits > 0 {
			wider := netip.PrefixFrom(first, bits-1)
			if wider.Masked().Addr() != first || last.Less(lastOf(wider)) {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(first, bits)
		prefixes = append(prefixes, p)
		end := lastOf(p)
		if !end.Less(last) {
			return prefixes
		}
		first = end.Next()
	}
}

// lastOf returns a prefix's last address.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for n := p.Bits(); n < len(b)*8; n++ {
		b[n/8] |= 0x80 >> (n % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
