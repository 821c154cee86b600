package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
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
		text := texts[fmt.Sprintf("%s %s %d", table, o.Rule.Chain, o.Rule.Handle)]
		p := nftParser{sets: sets, table: table, text: text}
		parsed := p.rule(o.Rule)
		parsed.text = text
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
	text  string // the rule as nft writes it
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
			field, _ := body["left"].(map[string]any)
			fieldOf(field, &r.match) // the protocol is asked for all the same
			r.match.other = true
			r.match.unclear = r.match.unclear || !isAddressless(body["left"])
			return
		}
		p.match(&r.match, body["left"], p.values(body["right"]))
	case "drop", "reject":
		r.verdict = drops
	case "accept":
		if r.verdict != drops { // another element of a map
			r.verdict = accepts
		}
	case "jump", "goto":
		if target, ok := body["target"].(string); ok {
			r.targets = append(r.targets, target)
		}
	case "vmap":
		r.match.other = true
		r.match.unclear = r.match.unclear || !isAddressless(body["key"])
		for _, element := range p.values(body["data"]) {
			if pair, ok := element.([]any); ok && len(pair) == 2 {
				if then, ok := pair[1].(map[string]any); ok {
					for kind, value := range then {
						p.statement(r, kind, value)
					}
				}
			}
		}
	case "limit", "quota", "ct count", "meter":
		r.match.other = true
	case "counter", "log", "notrack", "return", "continue", "set", "map", "last", "flow", "ct helper", "ct timeout", "ct expectation":
		// Nothing that a packet is another one for.
	case "dnat", "redirect":
		r.alters = true
		r.to = p.nftTranslation(body)
	case "xt": // iptables' own, which nft cannot read
		p.xt(r, body)
	default: // masquerade, snat, mangle, tproxy, queue and so on
		r.alters = true
	}
}

// translated is how nft writes the destination of iptables' targets.
var translated = regexp.MustCompile(`\b(?:dnat|redirect) to (\S+)`)

func (p nftParser) xt(r *rule, body map[string]any) {
	name, _ := body["name"].(string)
	if kind, _ := body["type"].(string); kind == "match" {
		r.match.other = true
		r.match.unclear = r.match.unclear || name != "comment" && name != "limit" && name != "mark"
		return
	}
	if name == "REJECT" {
		r.verdict = drops
		return
	}
	r.alters = r.alters || altering(name)
	if r.to = iptablesTranslation(name, nil); r.to != nil {
		if found := translated.FindStringSubmatch(p.text); found != nil {
			r.to = parseTranslation(found[1])
		}
	}
}

// isAddressless reports whether what a match compares is not where a packet is
// sent to.
func isAddressless(left any) bool {
	field, _ := left.(map[string]any)
	if payload, ok := field["payload"].(map[string]any); ok {
		name, _ := payload["field"].(string)
		return name != "" && name != "daddr" && name != "dport"
	}
	if ct, ok := field["ct"].(map[string]any); ok {
		name, _ := ct["key"].(string)
		return slices.Contains([]string{"state", "status", "direction", "mark", "protocol", "l3proto", "zone", "expiration"}, name)
	}
	for _, kind := range []string{"meta", "fib", "exthdr", "tcp option", "socket", "numgen", "osf"} {
		if _, ok := field[kind]; ok {
			return true
		}
	}
	return false
}

// match reads what a rule asks of one field.
func (p nftParser) match(m *match, left any, values []any) {
	field, _ := left.(map[string]any)
	if parts, ok := field["concat"].([]any); ok {
		for n, part := range parts {
			var column []any
			for _, v := range values {
				var cell []any = []any{nil} // not understood
				if tuple, ok := v.(map[string]any); ok {
					if row, ok := tuple["concat"].([]any); ok && len(row) == len(parts) {
						cell = p.values(row[n])
					}
				}
				column = append(column, cell...)
			}
			p.match(m, part, column)
		}
		return
	}
	name := fieldOf(field, m)
	asked := *m
	understood := false
	switch name {
	case "saddr":
		asked.sources, understood = prefixesOf(values)
	case "daddr":
		asked.destinations, understood = prefixesOf(values)
	case "dport":
		asked.ports, understood = portsOf(values)
	case "ct original daddr", "ct original ip daddr", "ct original ip6 daddr":
		asked.virtual, understood = prefixesOf(values)
	case "ct original proto-dst":
		asked.virtualPorts, understood = portsOf(values)
	case "iifname", "iif":
		asked.inputs, understood = textsOf(values)
	case "l4proto", "protocol", "nexthdr", "ct protocol", "ct original protocol":
		asked.protocols, understood = textsOf(values)
	case "meta protocol", "nfproto":
		var families []string
		if families, understood = textsOf(values); understood && len(families) == 1 {
			asked.family, understood = map[string]string{"ip": ipv4, "ip6": ipv6, ipv4: ipv4, ipv6: ipv6, "arp": "arp"}[families[0]]
		}
	}
	if understood {
		*m = asked
		return
	}
	m.other = true
	m.unclear = m.unclear || !isAddressless(left)
}

// fieldOf names what a match compares, and adds the protocol that it is of.
func fieldOf(field map[string]any, m *match) string {
	if payload, ok := field["payload"].(map[string]any); ok {
		protocol, _ := payload["protocol"].(string)
		if slices.Contains([]string{"tcp", "udp", "sctp", "dccp", "udplite"}, protocol) {
			m.protocols = []string{protocol}
		}
		name, _ := payload["field"].(string)
		return name
	}
	if meta, ok := field["meta"].(map[string]any); ok {
		if name, _ := meta["key"].(string); name != "protocol" {
			return name
		}
		return "meta protocol"
	}
	if ct, ok := field["ct"].(map[string]any); ok {
		name, _ := ct["key"].(string)
		if direction, _ := ct["dir"].(string); direction != "" {
			name = direction + " " + name
		}
		return "ct " + name
	}
	return ""
}
