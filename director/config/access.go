package config

import (
	"errors"
	"fmt"
	"net/netip"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
)

// access reads the prefixes that may and may not use a service.
func (d *decoder) access(n *yaml.Node, path string) director.Access {
	var access director.Access
	list := func(key string, prefixes *[]netip.Prefix) field {
		return field{key, func(n *yaml.Node, list string) {
			first := make(map[netip.Prefix]int)
			d.sequence(n, list, func(n *yaml.Node, item string, i int) {
				var prefix netip.Prefix
				word(d, &prefix, parsePrefix)(n, item)
				if !prefix.IsValid() {
					return
				}
				if before, again := first[prefix]; again {
					d.refuse(n, item, "%s is %s[%d] already", prefix, key, before)
					return
				}
				first[prefix] = i
				d.places[prefixPath(path, prefix.String())] = n
				*prefixes = append(*prefixes, prefix)
			})
		}}
	}
	d.mapping(n, path, fields{list("allow", &access.Allow), list("deny", &access.Deny)})
	return access
}

// prefixPath is the path that stands for a prefix of an access list.
func prefixPath(access, prefix string) string { return access + "." + prefix }

// parsePrefix reads a network such as 10.0.0.0/8, or an address alone.
func parsePrefix(s string) (netip.Prefix, error) {
	addr, err := netip.ParseAddr(s)
	prefix := netip.PrefixFrom(addr, addr.BitLen())
	if err != nil {
		if prefix, err = netip.ParsePrefix(s); err != nil {
			return prefix, fmt.Errorf("%q is not a network: want 192.0.2.0/24, 2001:db8::/32 or an address (names are not looked up)", s)
		}
	}
	switch masked := prefix.Masked(); {
	case addr.Zone() != "":
		return prefix, errors.New("a network has no zone: an access list does not tell interfaces apart")
	case prefix.Addr().Is4In6():
		return prefix, fmt.Errorf("%s is an IPv4 address in IPv6 form: write it as IPv4", s)
	case masked != prefix:
		return prefix, fmt.Errorf("%s has bits beyond its length: write %s, or %s for the one address", s, masked, prefix.Addr())
	}
	return prefix, nil
}
