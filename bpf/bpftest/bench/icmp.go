package bench

import (
	"encoding/binary"
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
)

// ICMP's numbers, IPv4 and IPv6 (RFC 792, RFC 4443).
const (
	icmp4, icmp6               = 1, 58
	unreachable4, fragNeeded   = 3, 4
	echoRequest4, echoRequest6 = 8, 128
)

// icmp measures an error about a packet of the first connection, by NAT, which is sent
// on to its server, and echo requests that are answered. The error quotes what fits the
// wrapper's frame, which is IPv4's alone.
func (b *bench) icmp(nat *world) error {
	f := nat.family
	b.Log("%s, ICMP", label(f, tcp))
	h, err := newHarness(b.counter, 1, f.v6)
	if err != nil {
		return err
	}
	defer h.Close()
	key := bpf.VirtualKey(netip.PrefixFrom(nat.virtual, nat.virtual.BitLen()))
	if err := nat.Maps[bpf.KernelMapVirtualAddresses].Put(key, uint32(bpf.KernelEchoECHO_ANSWERED)); err != nil {
		return err
	}
	g := group{packets: b.Packets, suffix: "icmp" + f.name}
	if !f.v6 {
		g.message("icmp-in/"+g.suffix, nat, tooBigFrame(nat), bpf.KernelEventEVENT_NOTE_ICMP_IN)
	}
	g.message("echo/"+g.suffix, nat, echoFrame(nat), bpf.KernelEventEVENT_ANSWER_ECHO)
	return b.take(h, &g)
}

// message adds a frame that is sent as it is, of which each is counted by the event.
func (g *group) message(name string, w *world, frame [frameSize]byte, event bpf.KernelEvent) {
	plan := newPlan(w, toService, flagACK, inOrder)
	plan.Vary = uint32(BenchVaryVARY_NOTHING)
	plan.setFrame(frame)
	s := g.add(name, w.main(), plan, xdpTX, nil)
	s.begin = func() (err error) {
		s.check, err = w.watch(nil, event)
		return err
	}
}

// tooBigFrame is a router's answer to a segment from the service to its first client.
func tooBigFrame(w *world) [frameSize]byte {
	f := frame(w.family.others, w.virtual, icmp4, 0)
	quoted := frame(w.virtual, w.family.clients, tcp, flagACK)
	binary.BigEndian.PutUint16(quoted[14+20+2:], firstPort)
	message := f[14+20:]
	clear(message)
	message[0], message[1] = unreachable4, fragNeeded
	binary.BigEndian.PutUint16(message[6:], 1400)
	copy(message[8:], quoted[14:])
	return f
}

// firstPort is that of the first client's first connection (src/bench.bpf.c, client_ports).
const firstPort = 1024

// echoFrame is the first client's request.
func echoFrame(w *world) [frameSize]byte {
	protocol, kind, header := uint8(icmp4), byte(echoRequest4), 20
	if w.family.v6 {
		protocol, kind, header = icmp6, echoRequest6, 40
	}
	f := frame(offset(w.family.clients, 1), w.virtual, protocol, 0)
	message := f[14+header:]
	clear(message)
	message[0] = kind
	return f
}
