package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// translation is where a rule sends packets by writing another destination into
// them. A nil list stands for all: it is not known.
type translation struct {
	addresses []netip.Prefix
	ports     []portRange
}

// parseTranslation reads a destination as iptables and nft print it: 10.0.0.1,
// 10.0.0.1-10.0.0.9:80-89, [2001:db8::1]:80, :80.
func parseTranslation(text string) *translation {
	t := &translation{}
	addresses, ports := text, ""
	if colon := strings.LastIndexByte(text, ':'); colon >= 0 && (strings.Count(text, ":") == 1 || strings.HasSuffix(text[:colon], "]")) {
		addresses, ports = text[:colon], text[colon+1:]
	}
	from, to, isRange := strings.Cut(strings.NewReplacer("[", "", "]", "").Replace(addresses), "-")
	if !isRange {
		to = from
	}
	first, err1 := netip.ParseAddr(from)
	last, err2 := netip.ParseAddr(to)
	if err1 == nil && err2 == nil {
		t.addresses = rangePrefixes(first, last)
	} else if prefix, err := netip.ParsePrefix(addresses); err == nil {
		t.addresses = []netip.Prefix{prefix}
	}
	ports, _, _ = strings.Cut(ports, "/") // iptables-extensions(8): where a shifted range begins
	if read, ok := iptablesPorts(strings.Replace(ports, "-", ":", 1)); ok {
		t.ports = read
	}
	return t
}

// reaches reports whether packets that the rule translates can become the
// service's. Where it leaves the port alone, it is the one that the rule asks for.
func (r rule) reaches(s subject) bool {
	if r.to == nil || !r.match.isKind(s) {
		return false
	}
	ports := r.to.ports
	if ports == nil {
		ports = r.match.ports
	}
	return s.targets[0].in(r.to.addresses, ports)
}

// judgeTranslations reports rules that make other packets the service's. XDP sees
// these before they are translated, and as nobody's. Whether a chain is ever come
// to is not asked.
func (i *inspection) judgeTranslations(r *report, chains map[string]*chain, services []subject, told map[string]bool) {
	var names []string
	for name := range chains {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c := chains[name]
		for _, rule := range c.rules {
			reached := slices.DeleteFunc(slices.Clone(services), func(s subject) bool { return !rule.reaches(s) })
			if len(reached) == 0 || told[rule.key(c)] {
				continue
			}
			told[rule.key(c)] = true
			r.add(Warning, c.where,
				fmt.Sprintf("packets that this rule of %s may translate to %s get there no more: %s", c.where, refs(reached), shorten(rule.text)),
				"XDP sees packets before any firewall translates them, and the stack does not serve what it is left with", rule.remove)
		}
	}
}

// altering reports whether a target of iptables does something to packets; the
// names of chains are not targets. One that is not known may.
func altering(target string) bool {
	return !slices.Contains([]string{
		"RETURN", "LOG", "NFLOG", "ULOG", "NOTRACK", "CT", "TRACE", "AUDIT", "LED", "RATEEST", "IDLETIMER",
	}, target)
}

// iptablesTranslation reads where a target sends packets by its words; nil if it
// leaves their destination alone. A redirection goes to an address of the host,
// which may be a virtual one.
func iptablesTranslation(target string, words []string) *translation {
	options := map[string]string{"DNAT": "--to-destination", "REDIRECT": "--to-ports", "NETMAP": "--to"}
	option, translates := options[target]
	if !translates {
		return nil
	}
	n := slices.Index(words, option)
	if n < 0 || n+1 >= len(words) {
		return &translation{}
	}
	if target == "REDIRECT" {
		return parseTranslation(":" + words[n+1])
	}
	return parseTranslation(words[n+1])
}

// nftTranslation reads the body of dnat and redirect.
func (p nftParser) nftTranslation(body map[string]any) *translation {
	t := &translation{}
	if address, given := body["addr"]; given {
		if prefixes, ok := prefixesOf(p.values(address)); ok {
			t.addresses = prefixes
		}
	}
	if port, given := body["port"]; given {
		if ports, ok := portsOf(p.values(port)); ok {
			t.ports = ports
		} else {
			t.ports = []portRange{{0, 65535}} // not the one the rule asks for
		}
	} else if t.addresses == nil && body["addr"] != nil {
		t.ports = []portRange{{0, 65535}} // a map may have ports, too
	}
	return t
}
