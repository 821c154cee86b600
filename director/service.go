package director

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

// ServiceKey identifies a service. Comparable; its text form is a URL such as
// tcp://192.0.2.1:80, udp://[2001:db8::1]:53, tcp://192.0.2.0/24:8000-8999 or
// tcp://192.0.2.1:0, fwmark://7 or fwmark6://7 (see ParseServiceKey). Where services overlap, the longer
// prefix has a packet, then the narrower range of ports.
type ServiceKey struct {
	Protocol conntrack.Protocol // 0 for a service of a firewall mark
	// Mark is the firewall mark whose packets are for the service, whatever they
	// are and wherever they go; 0: none. Address is then unspecified, with port 0:
	// the family of the packets.
	Mark uint32
	// Address is the virtual address and port: the first of them, if there are
	// several. Port 0, of persistent services only, stands for all ports.
	Address netip.AddrPort
	// Bits is the length of the prefix that Address begins; 0: one address.
	Bits uint8
	// LastPort ends the range of ports that Address begins; 0: one port, or all.
	LastPort uint16
}

// IsMark reports whether the service is that of a firewall mark.
func (k ServiceKey) IsMark() bool { return k.Mark != 0 }

// IsWide reports whether the service has more than one address or port, that of
// a firewall mark included.
func (k ServiceKey) IsWide() bool { return k.Bits != 0 || k.AnyPort() }

// AnyPort reports whether the service has more than one port. Servers of such a
// service may have port 0: the port that the client asked for.
func (k ServiceKey) AnyPort() bool { return k.LastPort != 0 || k.Address.Port() == 0 }

// FullPrefix is Persistence's prefix where none is given, ipvsadm's: every client
// is a network by itself. 0 for a key without an address.
func (k ServiceKey) FullPrefix() uint8 { return uint8(k.Address.Addr().BitLen()) }

// Scheduler names a scheduling algorithm of IPVS, such as rr or mh.
type Scheduler string

// The schedulers of IPVS.
const (
	RoundRobin              Scheduler = "rr"
	WeightedRoundRobin      Scheduler = "wrr"
	LeastConnection         Scheduler = "lc"
	WeightedLeastConnection Scheduler = "wlc"
	ShortestExpectedDelay   Scheduler = "sed"
	NeverQueue              Scheduler = "nq"
	Failover                Scheduler = "fo"
	Overflow                Scheduler = "ovf"
	TwoRandomChoices        Scheduler = "twos"
	DestinationHash         Scheduler = "dh"
	SourceHash              Scheduler = "sh"
	Maglev                  Scheduler = "mh"
	// LocalityLC is locality-based least-connection, LocalityLCReplicated the
	// same with several servers a destination.
	LocalityLC           Scheduler = "lblc"
	LocalityLCReplicated Scheduler = "lblcr"
)

// SchedulerFlags refine the hash schedulers. Others can have them, as flag-1 to
// flag-3, without effect: the kernel's interface takes them, and they are kept.
type SchedulerFlags struct {
	Port     bool // sh-port, mh-port: the client's port is part of the hash; flag-2
	Fallback bool // sh-fallback, mh-fallback: an unavailable server's clients go to another; flag-1
	Third    bool // flag-3: no scheduler's
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
	// Persistence keeps a client's connections on one server; zero: none.
	Persistence Persistence
	// OnePacket schedules each packet by itself and makes no connection; UDP
	// only (IP_VS_SVC_F_ONEPACKET).
	OnePacket bool
	// Timeouts replace the director's for this service where they are not zero.
	Timeouts conntrack.Timeouts
	Rules    Rules
	Limits   Limits
	Guard    SourceGuard
	// MSS is the largest segment that either end of a connection may announce to the
	// other (TCP's option of that name); a larger one is lowered to it on its way.
	// 0: as they announce.
	MSS uint16
	// Health says how its servers are known to be alive. No data plane knows it.
	Health Health
	// Servers in the order they were added. The kernel keeps its list the other
	// way round (last added first); schedulers walk it in that order.
	Servers []realserver.Server
}

// Persistence sends connections of one client network to one server, by a template
// that lives Timeout after the last new one and as long as it has connections.
type Persistence struct {
	Timeout time.Duration // whole seconds; 0: no persistence
	// Prefix is the length of a client network: 0 to 32, or 1 to 128 for IPv6.
	// ipvsadm's -M; its default, every client for itself, is 32 or 128.
	Prefix uint8
	// Mask is a client mask that is no prefix; 0: none. The kernel's IPVS can have
	// one and no configuration: it is found, and Validate refuses it. Prefix is then
	// its leading ones.
	Mask Mask
	// Engine finds what a client is in the packet's contents; "": its address.
	// The kernel has EngineSIP.
	Engine Engine
}

// Mask is a mask of IPv4 addresses, the first octet the highest.
type Mask uint32

// String returns the mask as 255.0.255.0.
func (m Mask) String() string {
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)}).String()
}

// Engine names a persistence engine of IPVS (ipvsadm --pe).
type Engine string

// EngineSIP keeps a call's packets on one server, by SIP's Call-ID.
const EngineSIP Engine = "sip"

// String returns the timeout and the prefix, or nothing for none.
func (p Persistence) String() string {
	if p == (Persistence{}) {
		return ""
	}
	text := fmt.Sprintf("%s for each /%d", p.Timeout, p.Prefix)
	if p.Mask != 0 {
		text = fmt.Sprintf("%s for each %s", p.Timeout, p.Mask)
	}
	if p.Engine != "" {
		text += " by " + string(p.Engine)
	}
	return text
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
	return sameSettings(&s, &o) && s.Health.Equal(o.Health) && slices.Equal(s.Servers, o.Servers)
}

// Server returns the index of the server with the address, or -1.
func (s Service) Server(addr netip.AddrPort) int {
	return slices.IndexFunc(s.Servers, func(r realserver.Server) bool { return r.Address == addr })
}
