package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// checkNftables names the rules of nftables that services' packets do not come
// by.
func checkNftables(i *inspection, r *report) {
	services := i.bypassing()
	if len(services) == 0 {
		return
	}
	listing, err := i.output("nft", "-j", "list", "ruleset")
	if errors.Is(err, exec.ErrNotFound) {
		r.add(Unknown, "", "nft is not installed: whether nftables has rules is not known", "rules about the services do not hold for what XDP forwards", "apt-get install nftables")
		return
	}
	if err != nil {
		r.unknown("", err)
		return
	}
	texts, err := i.output("nft", "-a", "list", "ruleset")
	if err != nil {
		r.unknown("", err)
		return
	}
	tables, err := parseNft(listing, nftTexts(string(texts)))
	if err != nil {
		r.unknown("", fmt.Errorf("read what nft prints: %w", err))
		return
	}
	var names []string
	for name := range tables {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		i.judge(r, tables[name], services)
	}
	limitRules(r)
}

// The objects of nft's JSON (libnftables-json(5)), as far as they are read.
type (
	nftObject struct {
		Chain *nftChain `json:"chain"`
		Rule  *nftRule  `json:"rule"`
		Set   *nftSet   `json:"set"`
		Map   *nftSet   `json:"map"`
	}
	nftChain struct {
		Family, Table, Name, Hook, Policy string
	}
	nftRule struct {
		Family, Table, Chain string
		Handle               uint64
		Expr                 []map[string]any
	}
	nftSet struct {
		Family, Table, Name string
		Elem                []any
	}
)

// parseNft reads nft's JSON. The tables are by family and name, their chains by
// name; texts has the rules as nft writes them.
func parseNft(listing []byte, texts map[string]string) (map[string]map[string]*chain, error) {
	var all struct{ Nftables []nftObject }
	if err := json.Unmarshal(listing, &all); err != nil {
		return nil, err
	}
	tables := map[string]map[string]*chain{}
	sets := map[string][]any{}
	for _, o := range all.Nftables {
		if c := o.Chain; c != nil {
			table := c.Family + " " + c.Table
			if tables[table] == nil {
				tables[table] = map[string]*chain{}
			}
			tables[table][c.Name] = &chain{where: table + " " + c.Name, hook: c.Hook, policy: c.Policy}
		}
		for _, s := range []*nftSet{o.Set, o.Map} {
			if s != nil {
				sets[s.Family+" "+s.Table+" @"+s.Name] = s.Elem
			}
		}
	}
	for _, o := range all.Nftables {
		if o.Rule == nil {
			continue
		}
		table := o.Rule.Family + " " + o.Rule.Table
		c := tables[table][o.Rule.Chain]
		if c == nil {
			return nil, fmt.Errorf("rule %d is of chain %s %s, which is not listed", o.Rule.Handle, table, o.Rule.Chain)
		}
		p := nftParser{sets: sets, table: table}
		parsed := p.rule(o.Rule)
		parsed.text = texts[fmt.Sprintf("%s %s %d", table, o.Rule.Chain, o.Rule.Handle)]
		parsed.remove = fmt.Sprintf("nft delete rule %s %s %s handle %d", o.Rule.Family, quote(o.Rule.Table), quote(o.Rule.Chain), o.Rule.Handle)
		c.rules = append(c.rules, parsed)
	}
	return tables, nil
}

var nftHandle = regexp.MustCompile(`^(.*) # handle (\d+)$`)

// nftTexts returns the rules' texts by family, table, chain and handle.
func nftTexts(listing string) map[string]string {
	texts := map[string]string{}
	var table, chain string
	for line := range strings.Lines(listing) {
		found := nftHandle.FindStringSubmatch(strings.TrimSpace(line))
		if found == nil {
			continue
		}
		text, opens := strings.CutSuffix(found[1], " {")
		switch words := strings.Fields(text); {
		case opens && len(words) == 3 && words[0] == "table":
			table = words[1] + " " + words[2]
		case opens && len(words) == 2 && words[0] == "chain":
			chain = words[1]
		default:
			texts[table+" "+chain+" "+found[2]] = text
		}
	}
	return texts
}

// nftParser reads one rule's expressions.
type nftParser struct {
	sets  map[string][]any
	table string
}

func (p nftParser) rule(listed *nftRule) rule {
	r := rule{match: match{family: map[string]string{"ip": ipv4, "ip6": ipv6}[listed.Family]}}
	for _, statement := range listed.Expr {
		for kind, value := range statement {
			p.statement(&r, kind, value)
		}
	}
	return r
}

// statement reads one statement. What is not known asks something of the packet
// as far as we can tell, or does something to it.
func (p nftParser) statement(r *rule, kind string, value any) {
	body, _ := value.(map[string]any)
	switch kind {
	case "match":
		if op, _ := body["op"].(string); op != "==" && op != "in" {
			r.match.other = true
			return
		}
		p.match(&r.match, body["left"], p.values(body["right"]))
	case "drop", "reject":
		r.verdict = drops
	case "accept":
		r.verdict = accepts
	case "jump", "goto":
		if target, ok := body["target"].(string); ok {
			r.targets = append(r.targets, target)
		}
	case "vmap":
		r.match.other = true
		for _, element := range p.values(body["data"]) {
			if pair, ok := element.([]any); ok && len(pair) == 2 {
				if then, ok := pair[1].(map[string]any); ok {
					for kind, value := range then {
						p.statement(r, kind, value)
					}
				}
			}
		}
	case "limit", "quota", "ct count":
		r.match.other = true
	case "xt": // iptables' own, which nft cannot read
		r.match.other = true
		if name, _ := body["name"].(string); name == "REJECT" {
			r.verdict = drops
		}
	}
}

// match reads what a rule asks of one field.
func (p nftParser) match(m *match, left any, values []any) {
	field, _ := left.(map[string]any)
	if parts, ok := field["concat"].([]any); ok {
		for n, part := range parts {
			var column []any
			for _, v := range values {
				if tuple, ok := v.(map[string]any); ok {
					if row, ok := tuple["concat"].([]any); ok && len(row) == len(parts) {
						column = append(column, p.values(row[n])...)
					}
				}
			}
			p.match(m, part, column)
		}
		return
	}
	name := ""
	if payload, ok := field["payload"].(map[string]any); ok {
		protocol, _ := payload["protocol"].(string)
		of, _ := payload["field"].(string)
		if protocol == "tcp" || protocol == "udp" {
			m.protocols = []string{protocol}
		}
		name = of
	} else if meta, ok := field["meta"].(map[string]any); ok {
		name, _ = meta["key"].(string)
	}
	understood := false
	switch name {
	case "saddr":
		m.sources, understood = prefixesOf(values)
	case "daddr":
		m.destinations, understood = prefixesOf(values)
	case "dport":
		m.ports, understood = portsOf(values)
	case "iifname", "iif":
		m.inputs, understood = textsOf(values)
	case "l4proto", "protocol", "nexthdr":
		m.protocols, understood = textsOf(values)
	case "nfproto":
		var families []string
		if families, understood = textsOf(values); understood && len(families) == 1 {
			m.family = families[0]
		}
	}
	m.other = m.other || !understood
}

// values makes one list of what a match compares with: a value, an anonymous set
// or a named one.
func (p nftParser) values(right any) []any {
	switch v := right.(type) {
	case string:
		if strings.HasPrefix(v, "@") {
			return p.values(p.sets[p.table+" "+v])
		}
	case []any:
		var all []any
		for _, element := range v {
			all = append(all, p.element(element))
		}
		return all
	case map[string]any:
		if set, ok := v["set"]; ok {
			return p.values(set)
		}
	}
	return []any{p.element(right)}
}

// element unwraps an element that has a timeout or a counter.
func (p nftParser) element(v any) any {
	if wrapped, ok := v.(map[string]any); ok {
		if inner, ok := wrapped["elem"].(map[string]any); ok {
			return inner["val"]
		}
	}
	return v
}

// prefixesOf reads addresses, prefixes and ranges; false if one is none of these.
func prefixesOf(values []any) ([]netip.Prefix, bool) {
	prefixes := []netip.Prefix{}
	for _, value := range values {
		switch v := value.(type) {
		case string:
			a, err := netip.ParseAddr(v)
			if err != nil {
				return nil, false
			}
			prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
		case map[string]any:
			if body, ok := v["prefix"].(map[string]any); ok {
				text, _ := body["addr"].(string)
				bits, _ := body["len"].(float64)
				a, err := netip.ParseAddr(text)
				if err != nil {
					return nil, false
				}
				prefixes = append(prefixes, netip.PrefixFrom(a, int(bits)))
			} else if ends, ok := v["range"].([]any); ok && len(ends) == 2 {
				first, _ := ends[0].(string)
				last, _ := ends[1].(string)
				from, err1 := netip.ParseAddr(first)
				to, err2 := netip.ParseAddr(last)
				if err1 != nil || err2 != nil {
					return nil, false
				}
				prefixes = append(prefixes, rangePrefixes(from, to)...)
			} else {
				return nil, false
			}
		default:
			return nil, false
		}
	}
	return prefixes, true
}

// portsOf reads ports and ranges of ports; false if one is neither.
func portsOf(values []any) ([]portRange, bool) {
	port := func(v any) (uint16, bool) {
		n, ok := v.(float64)
		return uint16(n), ok && n >= 0 && n <= 65535
	}
	ports := []portRange{}
	for _, value := range values {
		if n, ok := port(value); ok {
			ports = append(ports, portRange{n, n})
			continue
		}
		v, _ := value.(map[string]any)
		ends, _ := v["range"].([]any)
		if len(ends) != 2 {
			return nil, false
		}
		first, ok1 := port(ends[0])
		last, ok2 := port(ends[1])
		if !ok1 || !ok2 {
			return nil, false
		}
		ports = append(ports, portRange{first, last})
	}
	return ports, true
}

// textsOf reads names; numbers are protocols'.
func textsOf(values []any) ([]string, bool) {
	names := []string{}
	for _, value := range values {
		switch v := value.(type) {
		case string:
			names = append(names, v)
		case float64:
			names = append(names, protocolName(strconv.Itoa(int(v))))
		default:
			return nil, false
		}
	}
	return names, true
}
