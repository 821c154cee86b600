package xdp

import (
	"context"
	"hash/maphash"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
)

// trafficReader reads what each connection has carried, beside a walk. The counters
// lie beside the entries: those of packets to the server at the forward key's, those
// of replies at the reply key's, which are read first. Nil where connections are not
// counted.
type trafficReader struct {
	plane   *bpf.Plane
	v6      bool
	seed    maphash.Seed
	replies map[uint64]bpf.KernelSlotTraffic // by the hash of the reply key
	groups  []bpf.KernelGroupTraffic         // of the walk's groups
	first   uint32                           // of them
	traffic conntrack.Traffic                // that of the last entry asked for
}

func (d *Dataplane) newTrafficReader(ctx context.Context, v6 bool) (*trafficReader, error) {
	if !d.opts.CountConnections {
		return nil, nil
	}
	t := &trafficReader{plane: d.plane, v6: v6, seed: maphash.MakeSeed(), replies: map[uint64]bpf.KernelSlotTraffic{}}
	_, err := d.walkGroups(ctx, v6, t.read, func(walk *bpf.Walk) bool {
		return walk.Slots(0, func(s *bpf.Slot) bool {
			if s.Is(bpf.KernelRecipeLayoutRECIPE_REPLY) {
				t.replies[maphash.Comparable(t.seed, s.Key())] = t.at(s)
			}
			return true
		})
	})
	return t, err
}

// read reads the counters of the groups that the walk has just read.
func (t *trafficReader) read(walk *bpf.Walk) error {
	if t == nil {
		return nil
	}
	first, n := walk.Groups()
	t.first = first
	t.groups = grown(t.groups, n-1)[:n]
	return t.plane.SlotTraffic(t.v6, first, t.groups)
}

func (t *trafficReader) at(s *bpf.Slot) bpf.KernelSlotTraffic {
	return t.groups[s.Group-t.first].Slots[s.Index]
}

// of returns what the connection of the forward entry has carried: nil of a
// template, or if it is not counted. The next call overwrites it.
func (t *trafficReader) of(s *bpf.Slot, v *view) *conntrack.Traffic {
	if t == nil || s.IsTemplate() {
		return nil
	}
	in := t.at(s)
	var out bpf.KernelSlotTraffic
	if s.Method() == uint8(bpf.KernelMethodMETHOD_NAT) {
		reply := v.replyKey(s)
		out = t.replies[maphash.Comparable(t.seed, reply)]
	}
	t.traffic = conntrack.Traffic{InPackets: in.Packets, InBytes: in.Bytes, OutPackets: out.Packets, OutBytes: out.Bytes}
	return &t.traffic
}

// replyKey returns the key of the replies to the forward entry's client, of a
// server that the view knows (connection.h, reply_key).
func (v *view) replyKey(s *bpf.Slot) bpf.Key {
	forward := s.Key()
	client, port := forward.PortsBE()
	server := v.servers[s.Server()].address
	if server.Port() != 0 {
		port = bpf.Port(server.Port())
	}
	if s.IsFullNAT() {
		local := v.local(s.Hop)
		forward.Source, client = [4]uint32{}, bpf.Port(local.Port())
		if local.IsValid() {
			forward.Source = bpf.Address(local.Addr())
		}
	}
	return bpf.MakeKey(bpf.Address(server.Addr()), forward.Source, port, client, s.Protocol())
}
