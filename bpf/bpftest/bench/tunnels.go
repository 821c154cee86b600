package bench

import (
	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// firstTunnel is the index of the first service by tunnel, behind those of full NAT.
const firstTunnel = firstFullNAT + 8

// benchTunnel is the element of tunnels that the services' servers name.
const benchTunnel = 1

// tunnelRows are the kinds of tunnels that are measured.
var tunnelRows = []struct {
	name     string
	tunnel   bpf.KernelTunnelType
	checksum bpf.KernelTunnelChecksum
	octets   uint8 // behind the outer IP header
	isMixed  bool  // the outer header is of the other family
}{
	{name: "ipip-hit/"},
	{name: "ipip-mixed-hit/", isMixed: true},
	{name: "gue-hit/", tunnel: bpf.KernelTunnelTypeTUNNEL_GUE, octets: 12},
	{name: "gue-checksum-hit/", tunnel: bpf.KernelTunnelTypeTUNNEL_GUE, checksum: bpf.KernelTunnelChecksumTUNNEL_CHECKSUM, octets: 12},
	{name: "gre-hit/", tunnel: bpf.KernelTunnelTypeTUNNEL_GRE, octets: 4},
}

// tunnels measures the packets of one established connection by each kind of tunnel.
func (b *bench) tunnels(coll *ebpf.Collection, f family) error {
	w, err := newWorld(coll, f, tcp, bpf.KernelMethodMETHOD_TUNNEL, 1)
	if err != nil {
		return err
	}
	b.Log("%s, tunnels", label(f, tcp))
	h, err := newHarness(b.counter, 1, f.v6)
	if err != nil {
		return err
	}
	defer h.Close()
	g := group{packets: b.Packets, suffix: label(f, tcp) + "/1"}
	for _, row := range tunnelRows {
		k := bpf.KernelTunnel{
			Type: uint8(row.tunnel), Checksum: uint8(row.checksum), Port: bpf.Port(6080),
		}
		outer := f
		if row.isMixed {
			outer = map[bool]family{false: family6, true: family4}[f.v6]
		}
		k.Address, k.Source = bpf.Address(outer.servers), bpf.Address(outer.others)
		k.Family, k.Overhead = 4, 20+row.octets
		if outer.v6 {
			k.Family, k.Overhead = 6, 40+row.octets
		}
		g.watched(row.name+g.suffix, w, newPlan(w, toService, flagACK, random), inPackets, bpf.KernelEventEVENT_NONE)
		s := g.subjects[len(g.subjects)-1]
		watch := s.begin
		s.begin = func() error {
			if err := coll.Maps[bpf.KernelMapTunnels].Put(uint32(benchTunnel), &k); err != nil {
				return err
			}
			return watch()
		}
	}
	if err := g.subjects[0].begin(); err != nil {
		return err
	}
	if err := w.connect(h); err != nil {
		return err
	}
	return b.take(h, &g)
}
