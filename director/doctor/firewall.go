package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/director"
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
	alters  bool         // marks, translates or does something that is not known
	to      *translation // the destination it writes in; nil: none
	targets []string     // chains it may go on to
	remove  string       // the command that removes it
}

// key tells rules apart that are alike, in other chains.
func (r rule) key(c *chain) string { return c.where + "\x00" + r.remove + r.text }

type verdict uint8

const (
	goesOn  verdict = iota // counts, alters, jumps
	accepts                // ends the hook
	drops
)

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
		i.walk(base, chains, services, func(c *chain, rule rule, _ bool) {
			if key := rule.key(c); !told[key] {
				told[key] = i.judgeRule(r, c, rule, services)
			}
		})
		if base.policy == "drop" && slices.Contains([]string{"input", "prerouting", "ingress"}, base.hook) {
			i.judgePolicy(r, base, chains, services)
		}
	}
	if i.strict {
		i.judgeTranslations(r, chains, services, told)
	}
}

// concerns reports whether the rule may have to do with packets to the service or,
// where nothing is to be left out, with what it does to those to its clients.
func (i *inspection) concerns(r rule, s subject) bool {
	return i.may(r.match, s) || i.strict && (r.alters || len(r.targets) > 0) && i.mayReply(r.match, s)
}

// isDoubted reports whether the rule is named though it is about no service by
// name: masquerading and marks of all packets, and what asks for addresses in ways
// that are not understood. A jump does nothing by itself.
func (i *inspection) isDoubted(r rule) bool {
	return i.strict && (r.alters || r.match.unclear && r.verdict != accepts && len(r.targets) == 0)
}

// judgeRule reports a rule if it is about the services or drops their packets, or
// in doubt. It returns whether it did.
func (i *inspection) judgeRule(r *report, c *chain, rule rule, services []subject) bool {
	const why = "XDP takes these packets before any firewall sees them"
	var concerned []subject
	specific := false
	for _, s := range services {
		if !i.concerns(rule, s) {
			continue
		}
		own := i.may(rule.match, s) && rule.match.isSpecific(s)
		if own || rule.verdict == drops || i.isDoubted(rule) {
			concerned = append(concerned, s)
		}
		specific = specific || own
	}
	if len(concerned) == 0 {
		return false
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
	return true
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
		opened, partly := false, false
		var allowed []netip.Prefix
		i.walk(base, chains, []subject{s}, func(_ *chain, rule rule, narrow bool) {
			switch {
			case rule.verdict != accepts || rule.match.other:
			case narrow || !rule.match.covers(s):
				partly = true
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
		if partly {
			r.add(Warning, ref(s.Service), what+"; its rules accept a part of them alone", why, "")
			continue
		}
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
