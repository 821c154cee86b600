package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// checkIptables names the rules of the old iptables (those that iptables makes by
// way of nftables are nftables' rules).
func checkIptables(i *inspection, r *report) {
	services := i.bypassing()
	if len(services) == 0 {
		return
	}
	for _, family := range []struct{ names, prefix, family string }{
		{"ip_tables_names", "iptables", ipv4}, {"ip6_tables_names", "ip6tables", ipv6},
	} {
		tables, err := i.read("proc/thread-self/net/" + family.names)
		if missing(err) || err == nil && tables == "" {
			continue // no such module, or no table in use
		}
		if err != nil {
			r.unknown(family.prefix, err)
			continue
		}
		listing, err := i.output(family.prefix + "-legacy-save")
		if errors.Is(err, exec.ErrNotFound) {
			listing, err = i.output(family.prefix + "-save")
		}
		if errors.Is(err, exec.ErrNotFound) {
			r.add(Unknown, family.prefix, fmt.Sprintf("%s has tables (%s), and %s-save is not installed", family.prefix, strings.Join(strings.Fields(tables), ", "), family.prefix),
				"rules about the services do not hold for what XDP forwards", "apt-get install iptables")
			continue
		}
		if err != nil {
			r.unknown(family.prefix, err)
			continue
		}
		for _, table := range parseIptables(string(listing), family.prefix, family.family) {
			i.judge(r, table, services)
		}
	}
	limitRules(r)
}

// parseIptables reads what iptables-save prints: the tables in its order, their
// chains by name.
func parseIptables(listing, program, family string) []map[string]*chain {
	var tables []map[string]*chain
	var chains map[string]*chain
	name := ""
	for line := range strings.Lines(listing) {
		line = strings.TrimSpace(line)
		words := shellWords(line)
		switch {
		case len(words) == 0 || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "*"):
			name, chains = line[1:], map[string]*chain{}
			tables = append(tables, chains)
		case chains == nil:
		case strings.HasPrefix(line, ":") && len(words) >= 2:
			c := &chain{where: program + " " + name + " " + words[0][1:]}
			if words[1] != "-" { // a built-in chain
				c.hook, c.policy = strings.ToLower(words[0][1:]), strings.ToLower(words[1])
			}
			chains[words[0][1:]] = c
		case words[0] == "-A" && len(words) > 1 && chains[words[1]] != nil:
			parsed := iptablesRule(words[2:], family, chains)
			parsed.text = strings.TrimPrefix(line, "-A "+words[1]+" ")
			// The words as they are quoted already.
			parsed.remove = fmt.Sprintf("%s-legacy -t %s -D %s", program, name, strings.TrimPrefix(line, "-A "))
			chains[words[1]].rules = append(chains[words[1]].rules, parsed)
		}
	}
	return tables
}

// iptablesRule reads a rule's words after its chain.
func iptablesRule(words []string, family string, chains map[string]*chain) rule {
	r := rule{match: match{family: family}}
	negated := false
	for n := 0; n < len(words); n++ {
		option, value := words[n], ""
		if n+1 < len(words) {
			value = words[n+1]
		}
		switch {
		case option == "!": // what follows is asked the other way round
			negated = true
			continue
		case option == "-j" || option == "-g":
			switch {
			case chains[value] != nil:
				r.targets = append(r.targets, value)
			case value == "DROP" || value == "REJECT":
				r.verdict = drops
			case value == "ACCEPT":
				r.verdict = accepts
			default:
				r.alters = altering(value)
				r.to = iptablesTranslation(value, words[n+1:])
			}
			// A target's own words ask nothing.
			return r
		case !strings.HasPrefix(option, "-"): // one more value of the last option
			continue
		}
		r.match.askIptables(option, value, negated)
		negated = false
		if option == "--comment" || !strings.HasPrefix(value, "-") && value != "!" {
			n++
		}
	}
	return r
}

// askIptables adds what an option of a match asks. An option that is not known may
// ask for anything.
func (m *match) askIptables(option, value string, negated bool) {
	asked := *m
	understood := true
	switch option {
	case "-s":
		asked.sources, understood = iptablesPrefixes(value)
	case "-d":
		asked.destinations, understood = iptablesPrefixes(value)
	case "-p":
		asked.protocols = []string{protocolName(value)}
	case "-i":
		asked.inputs = []string{strings.Replace(value, "+", "*", 1)}
	case "--dport", "--dports":
		asked.ports, understood = iptablesPorts(value)
	case "--vaddr", "--ctorigdst":
		asked.virtual, understood = iptablesPrefixes(value)
	case "--vport", "--ctorigdstport":
		asked.virtualPorts, understood = iptablesPorts(value)
	case "--vproto":
		asked.protocols = []string{protocolName(value)}
	case "-m", "--comment":
		return // the match's own words follow
	default:
		understood = false
	}
	if understood && !negated {
		*m = asked
		return
	}
	m.other = true
	m.unclear = m.unclear || !slices.Contains(addressless, option)
}

// addressless are the options that ask nothing of where a packet is sent to.
var addressless = []string{
	"-s", "-p", "-i", "-o", "-f", "--sport", "--sports", "--src-range", "--mac-source", "--ctstate", "--ctstatus", "--ctdir", "--state",
	"--limit", "--limit-burst", "--tcp-flags", "--syn", "--tcp-option", "--icmp-type", "--icmpv6-type", "--mark", "--pkt-type", "--length",
	"--src-type", "--dst-type", "--probability",
}

// iptablesPrefixes reads 10.0.0.0/8 and 10.0.0.1; masks with holes are not
// understood.
func iptablesPrefixes(value string) ([]netip.Prefix, bool) {
	if a, err := netip.ParseAddr(value); err == nil {
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, true
	}
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return nil, false
	}
	return []netip.Prefix{p}, true
}

// iptablesPorts reads 80, 80:90 and lists of these.
func iptablesPorts(value string) ([]portRange, bool) {
	var ports []portRange
	for part := range strings.SplitSeq(value, ",") {
		first, last, isRange := strings.Cut(part, ":")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil {
			return nil, false
		}
		ports = append(ports, portRange{uint16(from), uint16(to)})
	}
	return ports, true
}

// protocolName names the protocols that services have.
func protocolName(number string) string {
	switch number {
	case "6":
		return "tcp"
	case "17":
		return "udp"
	case "132":
		return "sctp"
	default:
		return number
	}
}

// shellWords splits a line as iptables-save quotes it.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	quoted, escaped, begun := false, false, false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quoted:
			escaped = true
		case c == '"':
			quoted, begun = !quoted, true
		case c == ' ' && !quoted:
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return slices.Clip(words)
}
