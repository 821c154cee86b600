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
func schedulerNumber(name director.Scheduler) uint8 { return uint8(bpf.SchedulerNumber(string(name))) }

func schedulerName(number uint8) director.Scheduler {
	return director.Scheduler(bpf.SchedulerName(number))
}

// hasDestinations says whether the scheduler remembers what it chose for a virtual
// address.
func hasDestinations(name director.Scheduler) bool {
	return name == director.LocalityLC || name == director.LocalityLCReplicated
}

// serviceFlag is one of the flags, with whether a service's settings have it and
// what gives it to them.
type serviceFlag struct {
	flag bpf.KernelServiceFlags
	is   func(*settings) bool
	set  func(*settings)
}

// serviceFlags are those that stand for settings.
var serviceFlags = []serviceFlag{
	{
		bpf.KernelServiceFlagsSERVICE_HASH_PORT,
		func(s *settings) bool { return s.flags.Port }, func(s *settings) { s.flags.Port = true },
	},
	{
		bpf.KernelServiceFlagsSERVICE_FALLBACK,
		func(s *settings) bool { return s.flags.Fallback }, func(s *settings) { s.flags.Fallback = true },
	},
	{
		bpf.KernelServiceFlagsSERVICE_FLAG_3,
		func(s *settings) bool { return s.flags.Third }, func(s *settings) { s.flags.Third = true },
	},
	{
		bpf.KernelServiceFlagsSERVICE_VIP_MANAGED,
		func(s *settings) bool { return s.vip == director.VIPManaged }, func(s *settings) { s.vip = director.VIPManaged },
	},
	{
		bpf.KernelServiceFlagsSERVICE_ONE_PACKET,
		func(s *settings) bool { return s.onePacket }, func(s *settings) { s.onePacket = true },
	},
	{
		bpf.KernelServiceFlagsSERVICE_SLOPPY_TCP,
		func(s *settings) bool { return s.rules.SloppyTCP }, func(s *settings) { s.rules.SloppyTCP = true },
	},
	{
		bpf.KernelServiceFlagsSERVICE_EXPIRE_NODEST,
		func(s *settings) bool { return s.rules.ExpireNoDestConn }, func(s *settings) { s.rules.ExpireNoDestConn = true },
	},
	{
		bpf.KernelServiceFlagsSERVICE_EXPIRE_QUIESCENT,
		func(s *settings) bool { return s.rules.ExpireQuiescentTemplate },
		func(s *settings) { s.rules.ExpireQuiescentTemplate = true },
	},
	{
		bpf.KernelServiceFlagsSERVICE_REUSE_NEVER,
		func(s *settings) bool { return s.rules.ConnReuse == director.ReuseNever },
		func(s *settings) { s.rules.ConnReuse = director.ReuseNever },
	},
	{
		bpf.KernelServiceFlagsSERVICE_REUSE_FIN_WAIT,
		func(s *settings) bool { return s.rules.ConnReuse == director.ReuseFinWait },
		func(s *settings) { s.rules.ConnReuse = director.ReuseFinWait },
	},
	{
		bpf.KernelServiceFlagsSERVICE_PERSISTENT,
		func(s *settings) bool { return s.persistence.Timeout != 0 },
		func(*settings) {}, // what it is comes with the number of seconds
	},
	{
		bpf.KernelServiceFlagsSERVICE_LIMITED,
		func(s *settings) bool { return !s.limits.IsZero() }, func(*settings) {}, // they are in a map of their own
	},
	{
		bpf.KernelServiceFlagsSERVICE_GUARDED,
		func(s *settings) bool { return s.guard.Mode != director.GuardOff }, func(*settings) {}, // in the same
	},
}

// kernelSchedule is what a service's schedule is to hold of its settings.
func kernelSchedule(svc *service) bpf.KernelSchedule {
	k := bpf.KernelSchedule{Scheduler: schedulerNumber(svc.scheduler)}
	for _, f := range serviceFlags {
		if f.is(&svc.settings) {
			k.Flags |= uint16(f.flag)
		}
	}
	if svc.key.IsWide() {
		k.Flags |= uint16(bpf.KernelServiceFlagsSERVICE_WIDE)
	}
	k.Flags |= svc.migration.flags()
	if svc.persistence.Timeout != 0 {
		k.ClientMask = clientMask(svc.key.Address.Addr().Is6(), svc.persistence.Prefix)
	}
	return k
}

// kernelService is what the services map is to hold of a service, and of its
// schedule the settings alone.
func kernelService(svc *service) bpf.KernelService {
	k := bpf.KernelService{
		Schedule:    [2]bpf.KernelSchedule{kernelSchedule(svc)},
		Key:         serviceKey(svc.key),
		Life:        uint8(bpf.KernelLifecycleLIFE_LIVE),
		Access:      svc.access.word,
		Seconds:     timeoutSeconds(svc.timeouts),
		Persistence: uint32(svc.persistence.Timeout / time.Second),
		LastPort:    svc.key.LastPort,
		Prefix:      svc.key.Bits, ClientPrefix: svc.persistence.Prefix,
		Mss: svc.mss,
	}
	if svc.removed {
		k.Life = uint8(bpf.KernelLifecycleLIFE_SERVICE_REMOVED)
	}
	copy(k.Name[:], svc.name)
	return k
}

// clientMask has the bits of an address set that the prefix covers.
func clientMask(v6 bool, prefix uint8) [4]uint32 {
	ones := netip.AddrFrom4([4]byte{0xff, 0xff, 0xff, 0xff})
	if v6 {
		ones = netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	}
	return bpf.Address(netip.PrefixFrom(ones, min(int(prefix), ones.BitLen())).Masked().Addr())
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

// parseService reads a service's key and settings; its limits, its access word and
// its schedule are read by others.
func parseService(index uint32, k *bpf.KernelService) *service {
	svc := &service{
		index: index,
		key:   parseServiceKey(k.Key),
		settings: settings{
			name:      string(bytes.TrimRight(k.Name[:], "\x00")),
			scheduler: schedulerName(schedule(k).Scheduler),
			vip:       director.VIPExternal,
			persistence: director.Persistence{
				Timeout: time.Duration(k.Persistence) * time.Second, Prefix: k.ClientPrefix,
			},
			timeouts: parseSeconds(k.Seconds),
			mss:      k.Mss,
		},
		removed:   k.Life != uint8(bpf.KernelLifecycleLIFE_LIVE),
		migration: parseMigration(schedule(k).Flags),
	}
	svc.key.LastPort, svc.key.Bits = k.LastPort, k.Prefix
	for _, f := range serviceFlags {
		if schedule(k).Flags&uint16(f.flag) != 0 {
			f.set(&svc.settings)
		}
	}
	return svc
}

// kernelServer is what the servers map is to hold of a server.
func kernelServer(s *server) bpf.KernelServer {
	virtual, real := s.service.key.Address, s.address
	return bpf.KernelServer{
		Hop: uint16(s.hop), Tunnel: uint16(s.tunnel), Service: s.service.index,
		Life: uint8(s.life()), Method: uint8(s.method), Family: familyOf(real.Addr()),
		Port: bpf.Port(real.Port()), VirtualPort: bpf.Port(virtual.Port()),
		DeltaL4: bpf.Delta(wire(virtual), wire(real)),
		DeltaIp: bpf.Delta(virtual.Addr().AsSlice(), real.Addr().AsSlice()),
		Weight:  s.weight, LastWeight: s.lastWeight, OfferedWeight: s.offered(), Flags: serverFlags(s),
		Address: bpf.Address(real.Addr()), VirtualAddress: bpf.Address(virtual.Addr()),
	}
}

func serverFlags(s *server) uint8 {
	var flags bpf.KernelServerFlags
	if s.draining {
		flags |= bpf.KernelServerFlagsSERVER_DRAINING
	}
	if s.service.hasTimeouts() {
		flags |= bpf.KernelServerFlagsSERVER_OWN_TIMEOUTS
	}
	return uint8(flags)
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

// parseServer reads a server; its thresholds are in its load, its tunnel elsewhere.
func parseServer(index uint32, k *bpf.KernelServer, load *bpf.KernelServerLoad, svc *service) *server {
	isV6 := k.Family == 6 || k.Family == 0 && svc.isV6()
	return &server{
		index:   index,
		service: svc,
		address: netip.AddrPortFrom(bpf.ParseAddress(k.Address, isV6), bpf.Port(k.Port)),
		terms: terms{
			method: realserver.Method(k.Method), weight: k.Weight, lastWeight: k.LastWeight,
			upper: load.Upper, lower: load.Lower,
			draining: k.Flags&uint8(bpf.KernelServerFlagsSERVER_DRAINING) != 0,
		},
		removed: k.Life != uint8(bpf.KernelLifecycleLIFE_LIVE),
		hop:     uint32(k.Hop),
		tunnel:  uint32(k.Tunnel),
	}
}

// server reads the server with the index, of the service.
func (r *reading) server(index uint32, svc *service) *server {
	s := parseServer(index, &r.servers[index], &r.loads[index], svc)
	if s.method == realserver.Tunnel && int(s.tunnel) < len(r.tunnels) {
		t, _ := parseTunnel(&r.tunnels[s.tunnel])
		s.tunnelOptions = t.options
	}
	return s
}

func familyOf(a netip.Addr) uint8 {
	if a.Is6() {
		return 6
	}
	return 4
}
