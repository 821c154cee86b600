package config

import (
	"fmt"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/realserver"
)

// tunnel reads how packets are wrapped. One that is wrong is refused here, where it
// stands, and not at each server that has it.
func (d *decoder) tunnel(n *yaml.Node, path string) *realserver.TunnelOptions {
	var t realserver.TunnelOptions
	d.mapping(n, path, fields{
		{"type", word(d, &t.Type, hinted(realserver.ParseTunnelType, "ipip", "gue", "gre"))},
		{"port", word(d, &t.Port, numberBetween[uint16]("a port", 1, 65535))},
		{"checksum", word(d, &t.Checksum, hinted(realserver.ParseTunnelChecksum, "none", "full", "remote"))},
	})
	if d.broken[path] || d.broken[path+".type"] || d.broken[path+".port"] || d.broken[path+".checksum"] {
		return new(realserver.TunnelOptions)
	}
	if err := t.Validate(); err != nil {
		d.refuse(n, path, "%v", err)
		return new(realserver.TunnelOptions)
	}
	return &t
}

// tunnelOf returns the tunnel of a server whose own and whose service's are given,
// nil if they are not. One's own with another method is refused.
func (d *decoder) tunnelOf(path string, method realserver.Method, own, service *realserver.TunnelOptions) realserver.TunnelOptions {
	switch {
	case own != nil && method != realserver.Tunnel && !d.broken[path+".method"]:
		if !d.broken[path+".tunnel"] {
			d.refuse(d.places[path+".tunnel"], path+".tunnel", "method %s has no tunnel", method)
		}
	case method != realserver.Tunnel:
	case own != nil:
		return *own
	case service != nil:
		return *service
	}
	return realserver.TunnelOptions{}
}

// hinted returns a reader that asks whether one of the words was meant.
func hinted[T any](parse func(string) (T, error), words ...string) func(string) (T, error) {
	return func(s string) (T, error) {
		value, err := parse(s)
		if hint := didYouMean(s, words); err != nil && hint != "" {
			err = fmt.Errorf("%w%s", err, hint)
		}
		return value, err
	}
}

// writeTunnel returns the tunnel, which is not the zero value.
func writeTunnel(t realserver.TunnelOptions) *value {
	v := flow(yaml.MappingNode).with("type", scalar(t.Type.String()))
	if t.Port != 0 {
		v.put("port", number(uint32(t.Port)))
	}
	if t.Checksum != realserver.TunnelNoChecksum {
		v.put("checksum", scalar(t.Checksum.String()))
	}
	return v
}
