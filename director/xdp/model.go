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

// model is the index of what we wrote into the maps: services and servers by
// number and by name. It is built from the maps and changes with them; what the
// maps hold now is read.go's to say.
type model struct {
	services map[uint32]*service
	servers  map[uint32]*server
	byKey    map[director.ServiceKey]*service // live and removed
	byAddr   map[netip.Addr]map[*server]bool
	filter   filter
	// The lowest indices that may be free.
	nextService, nextServer uint32
}

// service is a service that has an index: live, or removed with servers that
// connections may still refer to.
type service struct {
	index uint32
	key   director.ServiceKey
	settings
	access    accessList
	removed   bool
	migration migration
	members   map[netip.AddrPort]*server // removed ones included
	// list is the schedule's server list in kernel order: last added first.
	list []*server
	// weights are the list's in the schedule in force.
	weights []uint32
	// words is the region of the schedule in force; empty if there is none.
	words region
	// schedule is the one in force, sum that of the words it names.
	schedule bpf.KernelSchedule
	sum      uint64
	rates    director.Estimator
	// passive is what suspends its servers, as it was written; nil: by a daemon before.
	passive *bpf.KernelPassiveLimits
}

// settings are what an edit of a service changes, its access list apart.
type settings struct {
	name        string
	scheduler   director.Scheduler
	flags       director.SchedulerFlags
	vip         director.VIPOwner
	persistence director.Persistence
	onePacket   bool
	timeouts    conntrack.Timeouts
	rules       director.Rules
	limits      director.Limits
	guard       director.SourceGuard
	mss         uint16
}

func settingsOf(s director.Service) settings {
	return settings{
		name: s.Name, scheduler: s.Scheduler, flags: s.Flags, vip: s.VIP,
		persistence: s.Persistence, onePacket: s.OnePacket, timeouts: s.Timeouts, rules: s.Rules,
		limits: s.Limits, guard: s.Guard, mss: s.MSS,
	}
}

// hasTimeouts says whether the service has a set of timeouts in the maps: its own
// ones, or that of its templates.
func (s *settings) hasTimeouts() bool {
	return s.timeouts != conntrack.Timeouts{} || s.persistence.Timeout != 0
}

// server is a server that has an index.
type server struct {
	index   uint32
	service *service
	address netip.AddrPort
	terms
	removed bool
	// removedBefore is the number of the first sweep that began after the removal.
	removedBefore uint64
	watched       bool
	hop           uint32 // static hop; 0: none
	tunnel        uint32 // how it is wrapped for; 0: nothing is
	// source is where outer headers to it come from, as its route or the options say.
	source netip.Prefix
	// own is the host's address towards it, interfaceIndex where that way leads out; as
	// last resolved.
	own            netip.Addr
	interfaceIndex int
	reason         string // why there is none, for the operator
	resolving      bool   // the reason may be gone in a moment
	rates          director.Estimator
}

// terms are what an edit of a server changes.
type terms struct {
	method       realserver.Method
	weight       uint32
	lastWeight   uint32 // as given when it was added, then the latest that was not 0
	upper, lower uint32
	draining     bool
	// tunnelOptions are of method tunnel.
	tunnelOptions realserver.TunnelOptions
}

// edited returns the terms after an edit; those of a new server begin anew.
func (t terms) edited(v realserver.Server, isAdded bool) terms {
	next := terms{
		method: v.Method, weight: v.Weight, lastWeight: t.lastWeight,
		upper: v.Upper, lower: v.Lower, draining: v.Draining, tunnelOptions: v.Tunnel,
	}
	if isAdded || v.Weight != 0 {
		next.lastWeight = v.Weight
	}
	return next
}

func newModel() *model {
	return &model{
		services:    map[uint32]*service{},
		servers:     map[uint32]*server{},
		byKey:       map[director.ServiceKey]*service{},
		byAddr:      map[netip.Addr]map[*server]bool{},
		filter:      newFilter(),
		nextService: 1, nextServer: 1, // 0 means none
	}
}

// offered is the server's weight as scheduled.
func (s *server) offered() uint32 {
	if s.draining || !s.isReachable() {
		return 0
	}
	return s.weight
}

func (s *server) isReachable() bool {
	return s.method == realserver.Local || s.hop != 0 && (s.method != realserver.Tunnel || s.tunnel != 0)
}

func (s *server) value() realserver.Server {
	return realserver.Server{
		Address: s.address, Method: s.method, Weight: s.weight, Upper: s.upper, Lower: s.lower, Draining: s.draining,
		Tunnel: s.tunnelOptions,
	}
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

func (m *model) addService(svc *service) {
	svc.members = map[netip.AddrPort]*server{}
	m.services[svc.index], m.byKey[svc.key] = svc, svc
	m.filter.virtual.add(svc.key.Prefix())
}

func (m *model) dropService(svc *service) {
	delete(m.services, svc.index)
	if m.byKey[svc.key] == svc {
		delete(m.byKey, svc.key)
	}
	m.filter.virtual.drop(svc.key.Prefix())
	m.nextService = min(m.nextService, svc.index)
}

// addServer makes the server a member of its service. Its address is let through
// whatever its method is now: it may have been nat, with connections left.
func (m *model) addServer(s *server) {
	addr := s.address.Addr()
	m.servers[s.index] = s
	s.service.members[s.address] = s
	if m.byAddr[addr] == nil {
		m.byAddr[addr] = map[*server]bool{}
	}
	m.byAddr[addr][s] = true
	m.filter.server.add(host(addr))
}

func (m *model) dropServer(s *server) {
	addr := s.address.Addr()
	delete(m.servers, s.index)
	if s.service.members[s.address] == s {
		delete(s.service.members, s.address)
	}
	if delete(m.byAddr[addr], s); len(m.byAddr[addr]) == 0 {
		delete(m.byAddr, addr)
	}
	m.filter.server.drop(host(addr))
	m.nextServer = min(m.nextServer, s.index)
}

// freeIndex returns the lowest index from *next on and below limit that is not
// in use, and notes it in *next.
func freeIndex[T any](used map[uint32]T, next *uint32, limit uint32, what string) (uint32, error) {
	for i := *next; i < limit; i++ {
		if _, ok := used[i]; !ok {
			*next = i
			return i, nil
		}
	}
	*next = limit
	return 0, fmt.Errorf("%w: all %d places for %s are taken, removed ones included until their connections end: raise limits.%s", director.ErrFull, limit-1, what, what)
}

// usedServers is one more than the highest server index in use.
func (m *model) usedServers() uint32 {
	var highest uint32
	for i := range m.servers {
		highest = max(highest, i)
	}
	return highest + 1
}

// needsAddress says whether a live service but this one has its virtual addresses,
// whoever manages them.
func (m *model) needsAddress(but *service) bool {
	for _, svc := range m.services {
		if !svc.removed && svc.index != but.index && svc.key.Prefix() == but.key.Prefix() {
			return true
		}
	}
	return false
}

// managedAddresses returns the virtual addresses, and prefixes, that live services have
// Shunt manage.
func (m *model) managedAddresses() []netip.Prefix {
	seen := map[netip.Prefix]bool{}
	var all []netip.Prefix
	for _, svc := range m.services {
		if p := svc.key.Prefix(); !svc.removed && svc.vip == director.VIPManaged && !seen[p] {
			seen[p] = true
			all = append(all, p)
		}
	}
	return all
}
