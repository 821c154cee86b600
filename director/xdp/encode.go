package xdp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// schedulerNumber is the ABI's number of a scheduler, 0 if the fast path has none.
func schedulerNumber(name director.Scheduler) uint8 {
	switch name {
	case director.RoundRobin:
		return uint8(bpf.KernelSchedulerSCHEDULER_RR)
	case director.WeightedRoundRobin:
		return uint8(bpf.KernelSchedulerSCHEDULER_WRR)
	case director.SourceHash:
		return uint8(bpf.KernelSchedulerSCHEDULER_SH)
	case director.Maglev:
		return uint8(bpf.KernelSchedulerSCHEDULER_MH)
	default:
		return 0
	}
}

func schedulerName(number uint8) director.Scheduler {
	for _, name := range director.Schedulers() {
		if schedulerNumber(name) == number {
			return name
		}
	}
	return ""
}

func serviceFlags(svc *service) uint16 {
	var flags uint16
	if svc.flags.Port {
		flags |= uint16(bpf.KernelServiceFlagsSERVICE_HASH_PORT)
	}
	if svc.flags.Fallback {
		flags |= uint16(bpf.KernelServiceFlagsSERVICE_FALLBACK)
	}
	if svc.vip == director.VIPManaged {
		flags |= uint16(bpf.KernelServiceFlagsSERVICE_VIP_MANAGED)
	}
	return flags
}

func serviceKey(key director.ServiceKey) bpf.KernelServiceKey {
	k := bpf.KernelServiceKey{
		Address:  bpf.Address(key.Address.Addr()),
		Port:     bpf.Port(key.Address.Port()),
		Protocol: uint8(key.Protocol),
		Family:   4,
	}
	if key.Address.Addr().Is6() {
		k.Family = 6
	}
	return k
}

func parseServiceKey(k bpf.KernelServiceKey) director.ServiceKey {
	return director.ServiceKey{
		Protocol: conntrack.Protocol(k.Protocol),
		Address:  netip.AddrPortFrom(bpf.ParseAddress(k.Address, k.Family == 6), bpf.Port(k.Port)),
	}
}

// parseService reads a service's settings; its access word and its schedule are
// read by others.
func parseService(index uint32, k *bpf.KernelService) *service {
	svc := &service{
		index:     index,
		key:       parseServiceKey(k.Key),
		name:      string(bytes.TrimRight(k.Name[:], "\x00")),
		scheduler: schedulerName(k.Scheduler),
		vip:       director.VIPExternal,
		removed:   k.Life != uint8(bpf.KernelLifecycleLIFE_LIVE),
	}
	has := func(flag bpf.KernelServiceFlags) bool { return k.Flags&uint16(flag) != 0 }
	svc.flags.Port = has(bpf.KernelServiceFlagsSERVICE_HASH_PORT)
	svc.flags.Fallback = has(bpf.KernelServiceFlagsSERVICE_FALLBACK)
	if has(bpf.KernelServiceFlagsSERVICE_VIP_MANAGED) {
		svc.vip = director.VIPManaged
	}
	return svc
}

// kernelServer is what the servers map is to hold of a server.
func kernelServer(s *server) bpf.KernelServer {
	virtual, real := s.service.key.Address, s.address
	return bpf.KernelServer{
		Hop: s.hop, Service: s.service.index, Life: uint8(s.life()), Method: uint8(s.method),
		Port: bpf.Port(real.Port()), VirtualPort: bpf.Port(virtual.Port()),
		DeltaL4: bpf.Delta(wire(virtual), wire(real)),
		DeltaIp: bpf.Delta(virtual.Addr().AsSlice(), real.Addr().AsSlice()),
		Weight:  s.weight, LastWeight: s.lastWeight, OfferedWeight: s.offered(),
		Address: bpf.Address(real.Addr()), VirtualAddress: bpf.Address(virtual.Addr()),
	}
}

// wire returns the address and port as on the wire.
func wire(a netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(a.Addr().AsSlice(), a.Port())
}

func (s *server) life() bpf.KernelLifecycle {
	switch {
	case s.service.removed:
		return bpf.KernelLifecycleLIFE_SERVICE_REMOVED
	case s.removed:
		return bpf.KernelLifecycleLIFE_SERVER_REMOVED
	default:
		return bpf.KernelLifecycleLIFE_LIVE
	}
}

func parseServer(index uint32, k *bpf.KernelServer, svc *service) *server {
	return &server{
		index:      index,
		service:    svc,
		address:    netip.AddrPortFrom(bpf.ParseAddress(k.Address, svc.key.Address.Addr().Is6()), bpf.Port(k.Port)),
		method:     realserver.Method(k.Method),
		weight:     k.Weight,
		lastWeight: k.LastWeight,
		removed:    k.Life != uint8(bpf.KernelLifecycleLIFE_LIVE),
		hop:        k.Hop,
	}
}

func putTimeouts(s *bpf.KernelSettings, clock bpf.Clock, t conntrack.Timeouts) {
	for _, state := range conntrack.States() {
		s.Timeout[state] = clock.Ticks(t.Of(state))
	}
	s.Seconds = [3]uint32{uint32(t.TCP / time.Second), uint32(t.TCPFin / time.Second), uint32(t.UDP / time.Second)}
}

// readTimeouts returns what the timeouts were set from.
func readTimeouts(s *bpf.KernelSettings) conntrack.Timeouts {
	seconds := func(i int) time.Duration { return time.Duration(s.Seconds[i]) * time.Second }
	return conntrack.Timeouts{TCP: seconds(0), TCPFin: seconds(1), UDP: seconds(2)}
}

// foundTimeouts returns the timeouts in force; none if the ticks of a state are
// not what the timeouts make them.
func foundTimeouts(s *bpf.KernelSettings, clock bpf.Clock) conntrack.Timeouts {
	t, want := readTimeouts(s), *s
	if putTimeouts(&want, clock, t); want.Timeout != s.Timeout {
		return conntrack.Timeouts{}
	}
	return t
}
