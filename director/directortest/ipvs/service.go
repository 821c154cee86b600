package ipvs

import (
	"context"
	"net/netip"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
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
	k.must(k.driver.NewService(context.Background(), s.kernel()))
	if s.Mark != 0 {
		k.Mark(s.Mark)
	}
	if s.Protocol == conntrack.UDP {
		k.swallow(s.Address.Port())
	}
}

// id is what the kernel knows a service by.
func (s Service) id() kernel.ServiceID {
	switch {
	case s.Mark == 0:
		return kernel.ServiceID{Protocol: kernel.Protocol(s.Protocol), Address: s.Address}
	case s.Address.Addr().Is6():
		return kernel.MarkID(s.Mark, kernel.IPv6)
	default:
		return kernel.MarkID(s.Mark, kernel.IPv4)
	}
}

func (s Service) kernel() kernel.Service {
	service := kernel.Service{
		ServiceID: s.id(), Scheduler: string(s.Scheduler), Timeout: s.Persistence.Timeout,
		Prefix: uint8(s.Address.Addr().BitLen()), Engine: string(s.Persistence.Engine),
	}
	if s.Persistence.Timeout != 0 {
		service.Prefix = s.Persistence.Prefix
	}
	for flag, set := range map[kernel.ServiceFlags]bool{
		kernel.FlagPersistent: s.Persistence.Timeout != 0, kernel.FlagOnePacket: s.OnePacket,
		kernel.FlagScheduler1: s.Flags.Fallback, kernel.FlagScheduler2: s.Flags.Port, kernel.FlagScheduler3: s.Flags.Third,
	} {
		if set {
			service.Flags |= flag
		}
	}
	return service
}

// AddServer puts a server at the head of the service's list.
func (k *Kernel) AddServer(s Service, r realserver.Server) {
	k.t.Helper()
	if address := r.Address.Addr(); !k.neighbors[address] {
		k.must(k.addNeighbor(address, ServerMAC(address)))
	}
	k.must(k.driver.NewServer(context.Background(), s.id(), kernelServer(r)))
}

// EditServer changes a server's weight and thresholds.
func (k *Kernel) EditServer(s Service, r realserver.Server) {
	k.t.Helper()
	k.must(k.driver.SetServer(context.Background(), s.id(), kernelServer(r)))
}

// RemoveServer removes a server.
func (k *Kernel) RemoveServer(s Service, r realserver.Server) {
	k.t.Helper()
	k.must(k.driver.DeleteServer(context.Background(), s.id(), r.Address))
}

func kernelServer(r realserver.Server) kernel.Server {
	return kernel.Server{
		Address: r.Address, Method: kernel.Method(r.Method), Weight: r.Weight, Upper: r.Upper, Lower: r.Lower,
		Tunnel: kernel.Tunnel{Type: kernel.TunnelType(r.Tunnel.Type), Port: r.Tunnel.Port, Flags: kernel.TunnelFlags(r.Tunnel.Checksum)},
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
	service, err := k.driver.Service(context.Background(), s.id())
	k.must(err)
	var counts []Count
	for _, server := range service.Servers {
		counts = append(counts, Count{
			Server: server.Address, Active: server.Active, Inactive: server.Inactive, Templates: server.Persistent,
		})
	}
	return counts
}

// Connections returns the namespace's connections and templates, in no order.
func (k *Kernel) Connections() []kernel.Connection {
	k.t.Helper()
	var all []kernel.Connection
	for c, err := range k.driver.Connections(context.Background()) {
		k.must(err)
		all = append(all, c)
	}
	return all
}

// SetTimeouts is ipvsadm --set: zero leaves a timeout as it is.
func (k *Kernel) SetTimeouts(t conntrack.Timeouts) {
	k.t.Helper()
	k.must(k.driver.SetTimeouts(context.Background(), kernel.Timeouts{TCP: t.TCP, TCPFin: t.TCPFin, UDP: t.UDP}))
}
