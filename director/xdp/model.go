package xdp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// model is the index of what the maps hold: services and servers by number and
// by name. It is built from the maps and changes with them.
type model struct {
	services map[uint32]*service
	servers  map[uint32]*server
	byKey    map[director.ServiceKey]*service // live and removed
}

// service is a service that has an index: live, or removed with servers that
// connections may still refer to.
type service struct {
	index     uint32
	key       director.ServiceKey
	name      string
	scheduler director.Scheduler
	flags     director.SchedulerFlags
	vip       director.VIPOwner
	removed   bool
	// list is the schedule's server list in kernel order: last added first.
	list []*server
	// weights are the list's in the schedule in force.
	weights []uint32
	// words is the region of the schedule in force; empty if there is none.
	words region
}

// server is a server that has an index.
type server struct {
	index      uint32
	service    *service
	address    netip.AddrPort
	method     realserver.Method
	weight     uint32
	lastWeight uint32
	removed    bool
	// removedBefore is the number of the first sweep that began after the removal.
	removedBefore uint64
	watched       bool
	hop           uint32 // static hop; 0: none
	reason        string // why there is none, for the operator
	resolving     bool   // the reason may be gone in a moment
}

func newModel() *model {
	return &model{
		services: map[uint32]*service{},
		servers:  map[uint32]*server{},
		byKey:    map[director.ServiceKey]*service{},
	}
}

// offered is the server's weight as scheduled.
func (s *server) offered() uint32 {
	if s.method != realserver.Local && s.hop == 0 {
		return 0
	}
	return s.weight
}

func (s *server) value() realserver.Server {
	return realserver.Server{Address: s.address, Method: s.method, Weight: s.weight}
}

// find returns the service's server with the address, removed ones included.
func (m *model) find(svc *service, addr netip.AddrPort) *server {
	for _, s := range m.servers {
		if s.service == svc && s.address == addr {
			return s
		}
	}
	return nil
}

// live returns the live service with the key.
func (m *model) live(key director.ServiceKey) (*service, error) {
	svc := m.byKey[key]
	if svc == nil || svc.removed {
		return nil, director.ErrNotFound
	}
	return svc, nil
}

// sorted returns the services by key.
func (m *model) sorted() []*service {
	all := make([]*service, 0, len(m.services))
	for _, svc := range m.services {
		all = append(all, svc)
	}
	slices.SortFunc(all, func(a, b *service) int {
		return cmp.Or(a.key.Compare(b.key), cmp.Compare(a.index, b.index))
	})
	return all
}

// freeIndex returns the lowest index from 1 below limit that is not in use.
func freeIndex[T any](used map[uint32]T, limit uint32, what string) (uint32, error) {
	for i := uint32(1); i < limit; i++ {
		if _, ok := used[i]; !ok {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: all %d places for %s are taken, removed ones included until their connections end: raise limits.%s", director.ErrFull, limit-1, what, what)
}

// needsAddress says whether a live service but this one has its virtual address,
// whoever manages it.
func (m *model) needsAddress(but *service) bool {
	for _, svc := range m.services {
		if !svc.removed && svc.index != but.index && svc.key.Address.Addr() == but.key.Address.Addr() {
			return true
		}
	}
	return false
}

// managedAddresses returns the virtual addresses that live services have Shunt manage.
func (m *model) managedAddresses() []netip.Addr {
	seen := map[netip.Addr]bool{}
	var addrs []netip.Addr
	for _, svc := range m.services {
		if a := svc.key.Address.Addr(); !svc.removed && svc.vip == director.VIPManaged && !seen[a] {
			seen[a] = true
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// filter returns the address filter for all that has an index: removed services
// and servers too, whose packets are dropped by name.
func (m *model) filter() *bpf.KernelFilter {
	f := new(bpf.KernelFilter)
	set := func(words *[bpf.KernelFilterShapeFILTER_WORDS]uint32, a netip.Addr) {
		bit := bpf.FilterBit(a)
		words[bit>>5] |= 1 << (bit & 31)
	}
	for _, svc := range m.services {
		set(&f.VirtualAddress, svc.key.Address.Addr())
	}
	for _, s := range m.servers {
		// Whatever its method is now: it may have been nat, with connections left.
		set(&f.ServerAddress, s.address.Addr())
	}
	return f
}

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

func serviceFlags(svc *service) uint8 {
	var flags uint8
	if svc.flags.Port {
		flags |= uint8(bpf.KernelServiceFlagsSERVICE_HASH_PORT)
	}
	if svc.flags.Fallback {
		flags |= uint8(bpf.KernelServiceFlagsSERVICE_FALLBACK)
	}
	if svc.vip == director.VIPManaged {
		flags |= uint8(bpf.KernelServiceFlagsSERVICE_VIP_MANAGED)
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
