package ipvs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Service is a virtual service: by address, or by the firewall mark that all
// packets of the wire then have, whatever virtual address they are for.
type Service struct {
	Protocol    conntrack.Protocol
	Address     netip.AddrPort
	Mark        uint32 // 0: by address
	Scheduler   director.Scheduler
	Flags       director.SchedulerFlags
	Persistence director.Persistence
	OnePacket   bool
}

// AddService adds the service, without servers.
func (k *Kernel) AddService(s Service) {
	k.t.Helper()
	k.service(commandNewService, s)
	if s.Mark != 0 {
		k.Mark(s.Mark)
	}
	if s.Protocol == conntrack.UDP {
		k.swallow(s.Address.Port())
	}
}

// EditService changes the service's scheduler, flags and persistence.
func (k *Kernel) EditService(s Service) {
	k.t.Helper()
	k.service(commandSetService, s)
}

// RemoveService removes the service with its servers.
func (k *Kernel) RemoveService(s Service) {
	k.t.Helper()
	if _, err := k.request(commandDelService, unix.NLM_F_ACK, s.identity()); err != nil {
		k.t.Fatalf("remove service %s: %v", s.Address, err)
	}
}

func (k *Kernel) service(command uint8, s Service) {
	k.t.Helper()
	var flags uint32
	for flag, set := range map[uint32]bool{
		flagPersistent: s.Persistence.Timeout != 0, flagOnePacket: s.OnePacket,
		flagPort: s.Flags.Port, flagFallback: s.Flags.Fallback,
	} {
		if set {
			flags |= flag
		}
	}
	a := s.identity()
	a.AddRtAttr(serviceScheduler, nl.ZeroTerminated(string(s.Scheduler)))
	// Flags, and which of them to set.
	a.AddRtAttr(serviceFlags, append(nl.Uint32Attr(flags), nl.Uint32Attr(^uint32(0))...))
	a.AddRtAttr(serviceTimeout, nl.Uint32Attr(uint32(s.Persistence.Timeout/time.Second)))
	a.AddRtAttr(serviceNetmask, s.netmask())
	if _, err := k.request(command, unix.NLM_F_ACK, a); err != nil {
		k.t.Fatalf("write service %s %s: %v", s.Address, s.Scheduler, err)
	}
}

// identity is what the kernel knows a service by.
func (s Service) identity() *nl.RtAttr {
	a := nl.NewRtAttr(attrService|int(unix.NLA_F_NESTED), nil)
	a.AddRtAttr(serviceFamily, nl.Uint16Attr(familyOf(s.Address.Addr())))
	if s.Mark != 0 {
		a.AddRtAttr(serviceMark, nl.Uint32Attr(s.Mark))
		return a
	}
	a.AddRtAttr(serviceProtocol, nl.Uint16Attr(uint16(s.Protocol)))
	a.AddRtAttr(serviceAddress, octets(s.Address.Addr()))
	a.AddRtAttr(servicePort, nl.BEUint16Attr(s.Address.Port()))
	return a
}

// netmask is an IPv4 mask as on the wire, or the length of an IPv6 prefix.
func (s Service) netmask() []byte {
	bits := s.Address.Addr().BitLen()
	if s.Persistence.Timeout != 0 {
		bits = int(s.Persistence.Prefix)
	}
	if s.Address.Addr().Is6() {
		return nl.Uint32Attr(uint32(bits))
	}
	return binary.BigEndian.AppendUint32(nil, uint32(uint64(0xffffffff)<<(32-bits)))
}

// AddServer puts a server at the head of the service's list.
func (k *Kernel) AddServer(s Service, r realserver.Server) {
	k.t.Helper()
	if address := r.Address.Addr(); !k.neighbors[address] {
		k.must(k.addNeighbor(address, ServerMAC(address)))
	}
	k.server(commandNewServer, s, r)
}

// EditServer changes a server's weight and thresholds.
func (k *Kernel) EditServer(s Service, r realserver.Server) {
	k.t.Helper()
	k.server(commandSetServer, s, r)
}

// RemoveServer removes a server.
func (k *Kernel) RemoveServer(s Service, r realserver.Server) {
	k.t.Helper()
	k.server(commandDelServer, s, r)
}

func (k *Kernel) server(command uint8, s Service, r realserver.Server) {
	k.t.Helper()
	a := nl.NewRtAttr(attrServer|int(unix.NLA_F_NESTED), nil)
	a.AddRtAttr(serverAddress, octets(r.Address.Addr()))
	a.AddRtAttr(serverPort, nl.BEUint16Attr(r.Address.Port()))
	a.AddRtAttr(serverMethod, nl.Uint32Attr(uint32(r.Method)))
	a.AddRtAttr(serverWeight, nl.Uint32Attr(r.Weight))
	a.AddRtAttr(serverUpper, nl.Uint32Attr(r.Upper))
	a.AddRtAttr(serverLower, nl.Uint32Attr(r.Lower))
	if _, err := k.request(command, unix.NLM_F_ACK, s.identity(), a); err != nil {
		k.t.Fatalf("write server %s of %s: %v", r.Address, s.Address, err)
	}
}

// Count is what the kernel counts of a server.
type Count struct {
	Server                      netip.AddrPort
	Active, Inactive, Templates uint32
}

// Counts returns the service's servers in the order of the kernel's list.
func (k *Kernel) Counts(s Service) []Count {
	k.t.Helper()
	answers, err := k.request(commandGetServer, unix.NLM_F_DUMP, s.identity())
	if err != nil {
		k.t.Fatalf("list the servers of %s: %v", s.Address, err)
	}
	var counts []Count
	for _, answer := range answers {
		a, err := parse(answer[attrServer])
		k.must(err)
		address, ok := netip.AddrFromSlice(a[serverAddress][:min(len(a[serverAddress]), s.Address.Addr().BitLen()/8)])
		if !ok {
			k.t.Fatal(fmt.Errorf("a server of %s has an address of %d octets", s.Address, len(a[serverAddress])))
		}
		counts = append(counts, Count{
			Server: netip.AddrPortFrom(address, a[serverPort].uint16()),
			Active: a[serverActive].uint32(), Inactive: a[serverInactive].uint32(), Templates: a[serverPersist].uint32(),
		})
	}
	return counts
}

// SetTimeouts is ipvsadm --set: zero leaves a timeout as it is.
func (k *Kernel) SetTimeouts(t conntrack.Timeouts) {
	k.t.Helper()
	var attributes []*nl.RtAttr
	for number, timeout := range map[int]time.Duration{attrTimeoutTCP: t.TCP, attrTimeoutTCPFin: t.TCPFin, attrTimeoutUDP: t.UDP} {
		attributes = append(attributes, nl.NewRtAttr(number, nl.Uint32Attr(uint32(timeout/time.Second))))
	}
	if _, err := k.request(commandSetConfig, unix.NLM_F_ACK, attributes...); err != nil {
		k.t.Fatalf("set timeouts %s: %v", t, err)
	}
}
