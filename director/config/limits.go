package config

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
)

// limits reads what a service lets begin. A limit of 0 would be one that lets nothing
// begin to whoever does not know that it is none, and is refused.
func (d *decoder) limits(n *yaml.Node, path string) director.Limits {
	var l director.Limits
	d.mapping(n, path, fields{
		{"rate", word(d, &l.Rate, parseRate)},
		{"connections", word(d, &l.Connections, parseLimit)},
		{"source", func(n *yaml.Node, path string) { l.Source = d.sourceLimits(n, path) }},
	})
	return l
}

func (d *decoder) sourceLimits(n *yaml.Node, path string) director.SourceLimits {
	var l director.SourceLimits
	d.mapping(n, path, fields{
		{"prefix", word(d, &l.Prefix, parseSourcePrefix)},
		{"rate", word(d, &l.Rate, parseRate)},
		{"connections", word(d, &l.Connections, parseLimit)},
	})
	if d.broken[path+".rate"] || d.broken[path+".connections"] {
		d.broken[path+".prefix"] = true // whether it is of use is not known
	}
	return l
}

// guard reads a mode alone, or with thresholds.
func (d *decoder) guard(n *yaml.Node, path string) director.SourceGuard {
	var g director.SourceGuard
	if n.Kind == yaml.ScalarNode {
		word(d, &g.Mode, parseGuard)(n, path)
		return g
	}
	d.mapping(n, path, fields{
		{"mode", word(d, &g.Mode, parseGuard)},
		{"on", word(d, &g.On, parseRate)},
		{"off", word(d, &g.Off, parseRate)},
	})
	if !d.broken[path] && d.places[path+".mode"] == nil {
		d.refuse(n, path+".mode", "the key is missing: auto, on or off")
	}
	for _, key := range []string{".mode", ".on", ".off"} {
		if d.broken[path+key] {
			d.broken[path], d.broken[path+".off"] = true, true // what goes with it is not known
			return director.SourceGuard{}
		}
	}
	return g
}

func parseGuard(s string) (director.GuardMode, error) {
	return hinted(director.ParseGuardMode, "auto", "on", "off")(s)
}

func parseRate(s string) (uint32, error) { return size32(1, director.MaxRate)(s) }

func parseLimit(s string) (uint32, error) { return size32(1, 1<<32-1)(s) }

// parseSourcePrefix reads a number; whether the family has it is Validate's to say.
func parseSourcePrefix(s string) (uint8, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n == 0 || n > 128 {
		return 0, fmt.Errorf("%q is not the length of a prefix: want 1 to 32, or 1 to 128 for IPv6", shortened(s))
	}
	return uint8(n), nil
}

// writeLimits returns the limits; nil for none.
func writeLimits(key director.ServiceKey, l director.Limits) *value {
	if l.IsZero() {
		return nil
	}
	v := flow(yaml.MappingNode)
	counted(v, "rate", l.Rate)
	counted(v, "connections", l.Connections)
	if !l.Source.IsZero() {
		source := flow(yaml.MappingNode)
		if l.Source.Prefix != key.FullPrefix() {
			source.put("prefix", number(uint32(l.Source.Prefix)))
		}
		counted(source, "rate", l.Source.Rate)
		counted(source, "connections", l.Source.Connections)
		v.put("source", source)
	}
	return v
}

// counted puts a number that is not 0.
func counted(v *value, key string, n uint32) {
	if n != 0 {
		v.put(key, number(n))
	}
}

// writeGuard returns the guard, whose thresholds are left out where they are the
// default; nil for none.
func writeGuard(g director.SourceGuard) *value {
	mode := scalar(g.Mode.String())
	switch g {
	case director.SourceGuard{}:
		return nil
	case director.Service{Guard: director.SourceGuard{Mode: g.Mode}}.Normalize().Guard:
		return mode
	}
	v := flow(yaml.MappingNode).with("mode", mode)
	counted(v, "on", g.On)
	if g != (director.Service{Guard: director.SourceGuard{Mode: g.Mode, On: g.On}}).Normalize().Guard {
		counted(v, "off", g.Off)
	}
	return v
}
