package config

import (
	"fmt"
	"net/netip"
	"strconv"

	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director"
)

// syncDaemons reads the sync daemons in the order of the text. An empty list is
// one that wants none.
func (d *decoder) syncDaemons(n *yaml.Node, path string, state *director.State) {
	state.Sync = []director.SyncDaemon{}
	d.sequence(n, path, func(n *yaml.Node, path string, _ int) {
		state.Sync = append(state.Sync, d.syncDaemon(n, path))
	})
}

func (d *decoder) syncDaemon(n *yaml.Node, path string) director.SyncDaemon {
	var s director.SyncDaemon
	d.mapping(n, path, fields{
		{"role", word(d, &s.Role, oneOf(director.SyncMaster, director.SyncBackup))},
		{"interface", word(d, &s.Interface, nonEmpty)},
		{"id", word(d, &s.ID, numberBetween[uint8]("the id of a sync daemon", 0, 255))},
		{"max-length", word(d, &s.MaxLength, numberBetween[uint16]("the length of a message", 1, director.MaxSyncLength))},
		{"group", word(d, &s.Group, parseGroupAddress)},
		{"port", word(d, &s.Port, numberBetween[uint16]("a port", 1, 65535))},
		{"ttl", word(d, &s.TTL, numberBetween[uint8]("a time to live", 1, 255))},
	})
	switch {
	case d.broken[path]:
		d.broken[path+".role"] = true // there is nothing to validate
	case d.places[path+".role"] == nil:
		d.refuse(n, path+".role", "the key is missing: master or backup")
	}
	return s
}

// parseGroupAddress reads an address; what it may be is Validate's to say.
func parseGroupAddress(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address: want a multicast address such as %s", shortened(s), director.DefaultSyncGroup)
	}
	return addr, nil
}

// numberBetween returns a reader of numbers in a range.
func numberBetween[T uint8 | uint16](what string, least, most uint64) func(string) (T, error) {
	return func(s string) (T, error) {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("%q is not %s: want %d to %d", shortened(s), what, least, most)
		}
		return T(n), nil
	}
}

// writeSync returns the daemons, which are normalized, without what is the
// default.
func writeSync(daemons []director.SyncDaemon) *value {
	all := block(yaml.SequenceNode)
	for _, s := range daemons {
		v := flow(yaml.MappingNode).with("role", scalar(string(s.Role))).with("interface", scalar(s.Interface))
		if s.ID != 0 {
			v.put("id", number(uint32(s.ID)))
		}
		if s.MaxLength != 0 {
			v.put("max-length", number(uint32(s.MaxLength)))
		}
		if s.Group != director.DefaultSyncGroup {
			v.put("group", scalar(s.Group.String()))
		}
		if s.Port != director.DefaultSyncPort {
			v.put("port", number(uint32(s.Port)))
		}
		if s.TTL != director.DefaultSyncTTL {
			v.put("ttl", number(uint32(s.TTL)))
		}
		all.add(v)
	}
	return all
}
