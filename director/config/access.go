package config

import (
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
				word(d, &prefix, director.ParsePrefix)(n, item)
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
