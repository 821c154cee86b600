package bpftest

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/bpf"
)

// Protocol numbers.
const (
	TCP uint8 = 6
	UDP uint8 = 17
)

// Server is a real server of a service. Weight, Method and Hop may be changed,
// then the service applied.
type Server struct {
	Address netip.AddrPort
	Method  bpf.KernelMethod // 0: NAT
	Weight  uint32
	Hop     uint32 // index of its next hop; 0: unreachable, not scheduled
	Tunnel  uint16 // index of PutTunnel, of method tunnel
	// Upper and Lower are its thresholds; 0: none, and three quarters of Upper.
	Upper, Lower uint32
	Draining     bool

	Index      uint32 // set by Apply
	lastWeight uint32
}

func (s *Server) offered() uint32 {
	if s.Draining || s.Hop == 0 && s.Method != bpf.KernelMethodMETHOD_LOCAL {
		return 0
	}
	return s.Weight
}

// Service is a virtual service. Its fields may be changed, then it is applied.
type Service struct {
	Listen netip.AddrPort
	// Prefix is the length of the prefix of addresses that Listen is of, LastPort the
	// end of the range of ports that it begins; 0: one address, one port, except that
	// port 0 is all ports.
	Prefix    int
	LastPort  uint16
	Protocol  uint8                  // 0: TCP
	Scheduler bpf.KernelScheduler    // 0: rr
	Flags     bpf.KernelServiceFlags // SERVICE_HASH_PORT, SERVICE_FALLBACK
	Access    uint32                 // of PutAccess; 0: every client is let in
	MSS       uint16                 // announced segment sizes are clamped to it; 0: not
	// ClientPrefix is the length of the networks whose clients a template holds
	// together, with SERVICE_PERSISTENT.
	ClientPrefix int
	// Timeouts in place of the settings', for those states that it has; a
	// template's must be among them with SERVICE_PERSISTENT.
	Timeouts map[bpf.KernelConnState]time.Duration
	Servers  []*Server // kernel order: last added first

	Index   uint32 // set by Apply
	applied []*Server
	was     bpf.KernelScheduler // 0: not applied yet
}

// Apply writes the service as it is now: servers that are new or changed, then a
// new schedule and, in one step, the switch to it. Servers that are gone are
// marked removed.
func (f *Fixture) Apply(s *Service) *Service {
	f.t.Helper()
	if s.Protocol == 0 {
		s.Protocol = TCP
	}
	if s.Scheduler == 0 {
		s.Scheduler = bpf.KernelSchedulerSCHEDULER_RR
	}
	isNew := s.was == 0
	if isNew {
		s.Index = f.next.service
		f.next.service++
		f.must(f.Plane.Services.Put(s.Index, &bpf.KernelService{Key: serviceKey(s)}))
	}
	for _, server := range s.Servers {
		f.applyServer(s, server)
	}
	f.applyTimeouts(s)
	if s.isWide() {
		s.Flags |= bpf.KernelServiceFlagsSERVICE_WIDE
	}
	schedule := f.schedule(s)
	var steps []uint32
	if s.Scheduler == bpf.KernelSchedulerSCHEDULER_WRR {
		steps = []uint32{schedule.MaxWeight, schedule.Gcd}
	}
	f.must(f.Plane.Switch(&bpf.KernelSwitchArgs{
		Key: serviceKey(s), Access: s.Access, Mss: s.MSS,
		Service: s.Index, Schedule: schedule,
		Steps: f.putWords(steps), StepCount: uint32(len(steps) / 2),
		Positions: f.positions(s), OldServers: uint32(len(s.applied)),
		Life:    uint8(bpf.KernelLifecycleLIFE_LIVE),
		Restart: flag(s.Scheduler != s.was),
	}))
	for _, server := range s.applied {
		if !slices.Contains(s.Servers, server) {
			f.setServer(s, server, bpf.KernelLifecycleLIFE_SERVER_REMOVED)
		}
	}
	s.applied, s.was = slices.Clone(s.Servers), s.Scheduler
	switch {
	case isNew && s.isWide():
		f.addWide(s)
	case isNew:
		f.must(f.Plane.ServiceIndex.Put(serviceKey(s), s.Index))
		f.AddVirtualAddress(s.Listen.Addr())
	}
	return s
}

// applyTimeouts writes the service's own timeouts.
func (f *Fixture) applyTimeouts(s *Service) {
	f.t.Helper()
	if len(s.Timeouts) == 0 {
		return
	}
	settings, err := f.Plane.Settings()
	f.must(err)
	set := bpf.KernelTimeoutSet{Ticks: settings.Timeout}
	for state, timeout := range s.Timeouts {
		set.Ticks[state] = f.Plane.Clock.Ticks(timeout)
	}
	f.must(f.Plane.Timeouts.Put(s.Index, &set))
}

// clientMask is the mask of ClientPrefix as it lies in memory.
func clientMask(s *Service) [4]uint32 {
	ones := netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	if s.Listen.Addr().Is4() {
		ones = netip.MustParseAddr("255.255.255.255")
	}
	prefix, err := ones.Prefix(s.ClientPrefix)
	if err != nil {
		panic(err) // the test's mistake
	}
	return bpf.Address(prefix.Addr())
}

func serverFlags(s *Service, server *Server) uint8 {
	var flags bpf.KernelServerFlags
	if server.Draining {
		flags |= bpf.KernelServerFlagsSERVER_DRAINING
	}
	if len(s.Timeouts) > 0 {
		flags |= bpf.KernelServerFlagsSERVER_OWN_TIMEOUTS
	}
	return uint8(flags)
}

// RemoveService takes the service away; its connections' packets are refused.
func (f *Fixture) RemoveService(s *Service) {
	f.t.Helper()
	if s.isWide() {
		f.removeWide(s)
	} else {
		f.must(f.Plane.ServiceIndex.Delete(serviceKey(s)))
	}
	var k bpf.KernelService
	f.must(f.Plane.Services.Lookup(s.Index, &k))
	k.Life = uint8(bpf.KernelLifecycleLIFE_SERVICE_REMOVED)
	f.must(f.Plane.Services.Put(s.Index, &k))
	for _, server := range s.applied {
		f.setServer(s, server, bpf.KernelLifecycleLIFE_SERVICE_REMOVED)
	}
}

// Server returns the server with this index.
func (f *Fixture) Server(index uint32) *Server {
	f.t.Helper()
	s, ok := f.servers[index]
	if !ok {
		f.t.Fatalf("there is no server %d", index)
	}
	return s
}

func serviceKey(s *Service) bpf.KernelServiceKey {
	k := bpf.KernelServiceKey{
		Address: bpf.Address(s.Listen.Addr()), Port: bpf.Port(s.Listen.Port()), Protocol: s.Protocol, Family: 4,
	}
	if s.Listen.Addr().Is6() {
		k.Family = 6
	}
	return k
}

func (f *Fixture) applyServer(s *Service, server *Server) {
	f.t.Helper()
	if server.Weight != 0 || !slices.Contains(s.applied, server) { // new, or back
		server.lastWeight = server.Weight
	}
	if server.Index != 0 {
		f.setServer(s, server, bpf.KernelLifecycleLIFE_LIVE)
		return
	}
	server.Index = f.next.server
	f.next.server++
	virtual, real := s.Listen, server.Address
	f.must(f.Plane.Servers.Put(server.Index, &bpf.KernelServer{
		Hop: uint16(server.Hop), Service: s.Index, Life: uint8(bpf.KernelLifecycleLIFE_LIVE), Method: uint8(server.Method),
		Port: bpf.Port(real.Port()), VirtualPort: bpf.Port(virtual.Port()),
		DeltaL4: bpf.Delta(wire(virtual), wire(real)),
		DeltaIp: bpf.Delta(virtual.Addr().AsSlice(), real.Addr().AsSlice()),
		Weight:  server.Weight, LastWeight: server.lastWeight, OfferedWeight: server.offered(),
		Address: bpf.Address(real.Addr()), VirtualAddress: bpf.Address(virtual.Addr()),
	}))
	f.servers[server.Index] = server
	f.setServer(s, server, bpf.KernelLifecycleLIFE_LIVE)
	if server.Method == bpf.KernelMethodMETHOD_NAT || server.Method == bpf.KernelMethodMETHOD_FULLNAT {
		f.AddServerAddress(real.Addr())
	}
}

func (f *Fixture) setServer(s *Service, server *Server, life bpf.KernelLifecycle) {
	f.t.Helper()
	f.must(f.Plane.SetServer(&bpf.KernelServerArgs{
		Server: server.Index, Hop: uint16(server.Hop), Tunnel: server.Tunnel, Weight: server.Weight, LastWeight: server.lastWeight,
		OfferedWeight: server.offered(), Life: uint8(life), Method: uint8(server.Method),
		Upper: server.Upper, Lower: server.Lower, Flags: serverFlags(s, server),
	}))
}

// wire returns an address and port as they stand in a packet.
func wire(a netip.AddrPort) []byte {
	return append(a.Addr().AsSlice(), byte(a.Port()>>8), byte(a.Port()))
}

func flag(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}
