package director

import (
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

// ServiceKey identifies a service. Comparable; its text form is a URL such as
// tcp://192.0.2.1:80 or udp://[2001:db8::1]:53 (see ParseServiceKey).
type ServiceKey struct {
	Protocol conntrack.Protocol
	Address  netip.AddrPort
}

// String returns the URL form of the key.
func (k ServiceKey) String() string { return k.Protocol.String() + "://" + k.Address.String() }

// Scheduler names a scheduling algorithm of IPVS, such as rr or mh.
type Scheduler string

// The schedulers this version has.
const (
	RoundRobin         Scheduler = "rr"
	WeightedRoundRobin Scheduler = "wrr"
	SourceHash         Scheduler = "sh"
	Maglev             Scheduler = "mh"
)

// SchedulerFlags refine the hash schedulers; the names are ipvsadm's.
type SchedulerFlags struct {
	Port     bool // sh-port, mh-port: the client's port is part of the hash
	Fallback bool // sh-fallback, mh-fallback: an unavailable server's clients go to another
}

// VIPOwner says who puts a service's virtual address on the host.
type VIPOwner string

// Who owns a virtual address.
const (
	// VIPManaged: Shunt adds the address to the loopback interface and removes
	// it with the last service that uses it.
	VIPManaged VIPOwner = "managed"
	// VIPExternal: someone else announces the address; Shunt leaves it alone.
	VIPExternal VIPOwner = "external"
)

// Service is a virtual service as configured.
type Service struct {
	Key       ServiceKey
	Name      string // optional, unique among the services that have one
	Scheduler Scheduler
	Flags     SchedulerFlags
	VIP       VIPOwner
	Access    Access
	// Servers in the order they were added. The kernel keeps its list the other
	// way round (last added first); schedulers walk it in that order.
	Servers []realserver.Server
}

// Clone returns a copy that shares nothing with s.
func (s Service) Clone() Service {
	s.Servers = slices.Clone(s.Servers)
	s.Access = s.Access.Clone()
	return s
}

// Identical reports whether the services are the same, the order of servers
// included; both must be normalized. It is not named Equal because cmp.Diff, by
// which tests show what differs, would ask it and name no field.
func (s Service) Identical(o Service) bool {
	return sameSettings(&s, &o) && slices.Equal(s.Servers, o.Servers)
}

// Server returns the index of the server with the address, or -1.
func (s Service) Server(addr netip.AddrPort) int {
	return slices.IndexFunc(s.Servers, func(r realserver.Server) bool { return r.Address == addr })
}
