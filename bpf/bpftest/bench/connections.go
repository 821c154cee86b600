package bench

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// counts are the plane's, summed over CPUs.
type counts struct {
	events  [bpf.KernelEventEVENTS]uint64
	traffic bpf.KernelTraffic
}

func (w *world) counts() (c counts, err error) {
	if c.events, err = bpf.EventCountsOf(w.Maps[bpf.KernelMapEvents], w.Maps[bpf.KernelMapDrops]); err != nil {
		return c, err
	}
	var traffic []bpf.KernelTraffic
	for i := w.firstServer(); i < w.firstServer()+servers; i++ {
		if err := w.Maps[bpf.KernelMapServerTraffic].Lookup(i, &traffic); err != nil {
			return c, fmt.Errorf("read traffic: %w", err)
		}
		for _, t := range traffic {
			c.traffic.Connections += t.Connections
			c.traffic.InPackets += t.InPackets
			c.traffic.OutPackets += t.OutPackets
		}
	}
	return c, nil
}

// watch returns a check that since the last one all packets were counted as they
// should be: by the server's traffic counter named, or by the event; and that no
// other event but those allowed was counted.
func (w *world) watch(traffic func(bpf.KernelTraffic) uint64, event bpf.KernelEvent) (func(int) error, error) {
	last, err := w.counts()
	if err != nil {
		return nil, err
	}
	return func(packets int) error {
		now, err := w.counts()
		if err != nil {
			return err
		}
		defer func() { last = now }()
		if traffic != nil {
			if n := traffic(now.traffic) - traffic(last.traffic); n != uint64(packets) {
				return fmt.Errorf("%d of %d packets took the way; %s", n, packets, difference(last, now))
			}
		}
		for i := range now.events {
			n, want := now.events[i]-last.events[i], uint64(0)
			if bpf.KernelEvent(i) == event && event != bpf.KernelEventEVENT_NONE {
				want = uint64(packets)
			}
			if n != want {
				return fmt.Errorf("event %d was counted %d times in %d packets, want %d", i, n, packets, want)
			}
		}
		return nil
	}, nil
}

func difference(last, now counts) string {
	text := "events:"
	for i := range now.events {
		if n := now.events[i] - last.events[i]; n > 0 {
			text += fmt.Sprintf(" %d: %d", i, n)
		}
	}
	return text
}

func inPackets(t bpf.KernelTraffic) uint64   { return t.InPackets }
func outPackets(t bpf.KernelTraffic) uint64  { return t.OutPackets }
func connections(t bpf.KernelTraffic) uint64 { return t.Connections }

// step is one packet of a connection's beginning.
type step struct {
	d     direction
	flags uint8
}

// beginning returns the packets that make the world's connections: a datagram each
// way, or TCP's handshake; by NAT, the server's first segment after that, too, which
// shows the table that its key is proven.
func (w *world) beginning() []step {
	steps := []step{{toService, flagSYN}, {fromServer, flagSYN | flagACK}, {toService, flagACK}, {fromServer, flagACK}}
	if w.protocol == udp {
		steps = steps[:2]
	}
	return slices.DeleteFunc(steps, func(s step) bool {
		return s.d == fromServer && !w.isNAT()
	})
}

// connect makes the world's connections by their packets.
func (w *world) connect(h *harness) error {
	check, err := w.watch(nil, bpf.KernelEventEVENT_NONE)
	if err != nil {
		return err
	}
	for _, s := range w.beginning() {
		plan := newPlan(w, s.d, s.flags, inOrder)
		if _, err := h.run(&plan, w.main(), int(w.connections), xdpTX); err != nil {
			return fmt.Errorf("make %d connections: %w", w.connections, err)
		}
	}
	if err := check(0); err != nil {
		return fmt.Errorf("make %d connections: %w", w.connections, err)
	}
	return w.checkLoads(uint64(w.connections))
}

// checkLoads proves that the servers have so many connections.
func (w *world) checkLoads(want uint64) error {
	var sum uint64
	for i := w.firstServer(); i < w.firstServer()+servers; i++ {
		var load bpf.KernelServerLoad
		if err := w.Maps[bpf.KernelMapLoads].Lookup(i, &load); err != nil {
			return fmt.Errorf("read loads: %w", err)
		}
		if w.protocol == tcp {
			sum += uint64(load.Active)
		} else {
			sum += uint64(load.Inactive)
		}
	}
	if sum != want {
		return fmt.Errorf("the servers have %d connections, want %d", sum, want)
	}
	return nil
}

// fillFloor puts the connections' forward keys into the harness's HASH.
func (h *harness) fillFloor(w *world) error {
	const batch = 4096
	var keys4 []BenchFloorKey4
	var keys6 []BenchFloorKey6
	flush := func() error {
		n := len(keys4) + len(keys6)
		if n == 0 {
			return nil
		}
		values := make([]BenchFloorValue, n)
		var err error
		if w.family.v6 {
			err = putAll(h.Floor6, keys6, values)
		} else {
			err = putAll(h.Floor4, keys4, values)
		}
		keys4, keys6 = keys4[:0], keys6[:0]
		return err
	}
	virtual := bpf.Address(w.virtual)
	for i := range w.connections {
		client := bpf.Address(offset(w.family.clients, i>>8))
		ports := uint32(bpf.Port(uint16(1024+i&0xff))) | uint32(bpf.Port(virtualPort))<<16
		if w.family.v6 {
			keys6 = append(keys6, BenchFloorKey6{Source: client, Destination: virtual, Ports: ports, Protocol: uint32(w.protocol)})
		} else {
			keys4 = append(keys4, BenchFloorKey4{Source: client[0], Destination: virtual[0], Ports: ports, Protocol: uint32(w.protocol)})
		}
		if i%batch == batch-1 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func putAll[K any](m *ebpf.Map, keys []K, values []BenchFloorValue) error {
	if _, err := m.BatchUpdate(keys, values, nil); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("fill the floor's HASH: %w", err)
	}
	return nil
}
