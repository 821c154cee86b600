package kernel

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Protocol is a number of IANA's, such as 6 for TCP; 0 for a service by mark.
type Protocol uint8

// The protocols of services.
const (
	TCP  Protocol = 6   // IPPROTO_TCP
	UDP  Protocol = 17  // IPPROTO_UDP
	SCTP Protocol = 132 // IPPROTO_SCTP
)

// String returns the name in lower case.
func (p Protocol) String() string {
	switch p {
	case 0:
		return "ip"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	default:
		return fmt.Sprintf("protocol-%d", uint8(p))
	}
}

// ServiceID is what the kernel knows a service by: protocol, address and port, or
// a firewall mark and a family. Comparable.
type ServiceID struct {
	Protocol Protocol // 0 if there is a mark
	// Address of a service by mark is 0.0.0.0:0 or [::]:0, which says its family.
	Address netip.AddrPort
	Mark    uint32 // 0: by address
}

// MarkID returns the identity of a service by firewall mark, whose packets are
// IPv4's or IPv6's.
func MarkID(mark uint32, family Family) ServiceID {
	any := netip.IPv4Unspecified()
	if family == IPv6 {
		any = netip.IPv6Unspecified()
	}
	return ServiceID{Mark: mark, Address: netip.AddrPortFrom(any, 0)}
}

// Family returns the address family of the service's clients.
func (id ServiceID) Family() Family { return familyOf(id.Address.Addr()) }

// String returns tcp://192.0.2.1:80, fwmark://7, or fwmark6://7 for IPv6.
func (id ServiceID) String() string {
	switch {
	case id.Mark != 0 && id.Family() == IPv6:
		return "fwmark6://" + strconv.FormatUint(uint64(id.Mark), 10)
	case id.Mark != 0:
		return "fwmark://" + strconv.FormatUint(uint64(id.Mark), 10)
	default:
		return id.Protocol.String() + "://" + id.Address.String()
	}
}

// Family is an address family. The numbers are Linux's.
type Family uint16

// The families of IPVS.
const (
	IPv4 Family = 2  // AF_INET
	IPv6 Family = 10 // AF_INET6
)

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// bits is the length of an address.
func (f Family) bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

// ServiceFlags are a service's flags (kernel: include/uapi/linux/ip_vs.h).
type ServiceFlags uint32

// The flags of services. The scheduler's flags are what sh and mh call fallback
// and port; other schedulers keep them and do not look at them.
const (
	FlagPersistent ServiceFlags = 0x01 // IP_VS_SVC_F_PERSISTENT
	FlagOnePacket  ServiceFlags = 0x04 // IP_VS_SVC_F_ONEPACKET
	FlagScheduler1 ServiceFlags = 0x08 // IP_VS_SVC_F_SCHED1, fallback
	FlagScheduler2 ServiceFlags = 0x10 // IP_VS_SVC_F_SCHED2, port
	FlagScheduler3 ServiceFlags = 0x20 // IP_VS_SVC_F_SCHED3

	flagHashed ServiceFlags = 0x02 // IP_VS_SVC_F_HASHED, the kernel's own: neither shown nor set
)

// String returns the flags' names, separated by commas; empty for none.
func (f ServiceFlags) String() string {
	var names []string
	for _, flag := range []struct {
		bit  ServiceFlags
		name string
	}{
		{FlagPersistent, "persistent"},
		{FlagOnePacket, "one-packet"},
		{FlagScheduler1, "flag-1"},
		{FlagScheduler2, "flag-2"},
		{FlagScheduler3, "flag-3"},
	} {
		if f&flag.bit != 0 {
			names = append(names, flag.name)
			f &^= flag.bit
		}
	}
	if f != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(f)))
	}
	return strings.Join(names, ",")
}

// Service is a virtual service as the kernel keeps it. Comparable.
type Service struct {
	ServiceID
	Scheduler string // "wlc"
	Flags     ServiceFlags
	// Timeout is persistence's, in whole seconds; without FlagPersistent the kernel
	// keeps it and does not look at it.
	Timeout time.Duration
	// Prefix is the number of bits of a client's address that persistence looks at:
	// 32 for each IPv4 client by itself, 128 for IPv6. The kernel wants 1 at least
	// for IPv6, whether the service is persistent or not.
	Prefix uint8
	// OddMask is an IPv4 mask that is no prefix, such as 255.0.255.0: then Prefix
	// does not count. Only ipvsadm makes such services. Else the zero Addr.
	OddMask netip.Addr
	Engine  string // of persistence: "sip", or empty
}

// ServiceEntry is a service as listed.
type ServiceEntry struct {
	Service
	Stats   Stats
	Servers []ServerEntry // in the kernel's order: the one added last is first
}

// Counters count since the service or server was made, or set to zero. The
// kernel (6.2 and later) brings them up to date every two seconds.
type Counters struct {
	Connections, InPackets, InBytes, OutPackets, OutBytes uint64
}

// Stats are what is counted of a service or server, and the same per second.
type Stats struct {
	Counters Counters
	Rates    Counters // per second: the kernel's estimate (kernel: ip_vs_est.c)
}
