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
			parsed := iptablesRule(words[2:], family)
			parsed.text = strings.TrimPrefix(line, "-A "+words[1]+" ")
			// The words as they are quoted already.
			parsed.remove = fmt.Sprintf("%s-legacy -t %s -D %s", program, name, strings.TrimPrefix(line, "-A "))
			chains[words[1]].rules = append(chains[words[1]].rules, parsed)
		}
	}
	return tables
}

// iptablesRule reads a rule's words after its chain.
func iptablesRule(words []string, family string) rule {
	r := rule{match: match{family: family}}
	m := &r.match
	for n := 0; n < len(words); n++ {
		value := ""
		if n+1 < len(words) {
			value = words[n+1]
		}
		understood := true
		switch words[n] {
		case "!": // what follows is asked the other way round
			m.other = true
			n += 2
			continue
		case "-s":
			m.sources, understood = iptablesPrefixes(value)
		case "-d":
			m.destinations, understood = iptablesPrefixes(value)
		case "-p":
			m.protocols = []string{protocolName(value)}
		case "-i":
			m.inputs = []string{strings.Replace(value, "+", "*", 1)}
		case "--dport", "--dports":
			m.ports, understood = iptablesPorts(value)
		case "-m":
			// The match's own words follow, and are looked at.
		case "--comment":
		case "-j", "-g":
			switch value {
			case "DROP", "REJECT":
				r.verdict = drops
			case "ACCEPT":
				r.verdict = accepts
			case "RETURN", "LOG", "MARK", "CONNMARK", "NFLOG":
			default:
				r.targets = append(r.targets, value) // a chain; of a target there is none by its name
			}
			return r // a target's own words ask nothing
		default:
			understood = false
		}
		if !understood {
			m.other = true
		}
		if strings.HasPrefix(words[n], "-") && !strings.HasPrefix(value, "-") && value != "!" {
			n++
		}
	}
	return r
}

func iptablesPrefixes(value string) ([]netip.Prefix, bool) {
	p, err := netip.ParsePrefix(value)
	return []netip.Prefix{p}, err == nil
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
