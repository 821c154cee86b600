package doctor

import (
	"net/netip"
	"strconv"
	"strings"
)

// values makes one list of what a match compares with: a value, an anonymous set
// or a named one.
func (p nftParser) values(right any) []any {
	switch v := right.(type) {
	case string:
		if strings.HasPrefix(v, "@") {
			if elements, listed := p.sets[p.table+" "+v]; listed {
				return p.values(elements)
			}
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
