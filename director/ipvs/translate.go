package ipvs

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
	"github.com/shunt-lb/shunt/realserver"
)

// serviceID returns what the kernel knows the service by.
func serviceID(key director.ServiceKey) (kernel.ServiceID, error) {
	if key.Bits != 0 || key.LastPort != 0 {
		return kernel.ServiceID{}, fmt.Errorf("service %s: %w by the kernel's IPVS: one address, and one port or all", key, director.ErrUnsupported)
	}
	return kernel.ServiceID{Protocol: kernel.Protocol(key.Protocol), Mark: key.Mark, Address: key.Address}, nil
}

func serviceKey(id kernel.ServiceID) director.ServiceKey {
	return director.ServiceKey{Protocol: conntrack.Protocol(id.Protocol), Mark: id.Mark, Address: id.Address}
}

// ourFlags are those that say something in our words; a service keeps others.
const ourFlags = kernel.FlagPersistent | kernel.FlagOnePacket | kernel.FlagScheduler1 | kernel.FlagScheduler2 | kernel.FlagScheduler3

// kernelService returns the service as the kernel is to hold it. has is what it
// holds, the zero Service for none: of that stays what has no meaning for us, so
// that taking a service over writes nothing, and an edit no more than it names.
func kernelService(s *director.Service, has kernel.Service) (kernel.Service, error) {
	id, err := serviceID(s.Key)
	if err != nil {
		return kernel.Service{}, err
	}
	k := has
	k.ServiceID, k.Scheduler, k.Engine = id, string(s.Scheduler), string(s.Persistence.Engine)
	k.Flags &^= ourFlags
	for flag, on := range map[kernel.ServiceFlags]bool{
		kernel.FlagPersistent: s.Persistence.Timeout != 0, kernel.FlagOnePacket: s.OnePacket,
		kernel.FlagScheduler1: s.Flags.Fallback, kernel.FlagScheduler2: s.Flags.Port, kernel.FlagScheduler3: s.Flags.Third,
	} {
		if on {
			k.Flags |= flag
		}
	}
	was, is := isPersistent(has), isPersistent(k)
	switch {
	case is: // a mask that is no prefix is written to put back what somebody else had
		k.Timeout, k.Prefix, k.OddMask = s.Persistence.Timeout, s.Persistence.Prefix, oddMask(s.Persistence.Mask)
	case was || has == (kernel.Service{}): // what ipvsadm gives a service without persistence
		k.Timeout, k.Prefix, k.OddMask = 0, s.Key.FullPrefix(), netip.Addr{}
	}
	return k, nil
}

func isPersistent(k kernel.Service) bool { return k.Flags&kernel.FlagPersistent != 0 }

// oddMask returns a mask that is no prefix as the kernel's drivers have it; the
// zero Addr for none.
func oddMask(m director.Mask) netip.Addr {
	if m == 0 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(m))))
}

// foundService returns a service's settings, without what the kernel has no place
// for.
func foundService(k kernel.Service) director.Service {
	s := director.Service{
		Key:       serviceKey(k.ServiceID),
		Scheduler: director.Scheduler(k.Scheduler),
		Flags: director.SchedulerFlags{
			Fallback: k.Flags&kernel.FlagScheduler1 != 0,
			Port:     k.Flags&kernel.FlagScheduler2 != 0,
			Third:    k.Flags&kernel.FlagScheduler3 != 0,
		},
		OnePacket: k.Flags&kernel.FlagOnePacket != 0,
		VIP:       director.VIPExternal,
	}
	s.Persistence.Engine = director.Engine(k.Engine)
	if isPersistent(k) {
		s.Persistence.Timeout, s.Persistence.Prefix = k.Timeout, k.Prefix
		if k.OddMask.IsValid() {
			octets := k.OddMask.As4()
			s.Persistence.Mask = director.Mask(binary.BigEndian.Uint32(octets[:]))
		}
	}
	return s
}

// kernelServer returns the server as the kernel is to hold it. One that drains has
// weight 0: it keeps its connections and gets no new ones, but for those that a
// template leads to it (kernel: sysctl net.ipv4.vs.expire_quiescent_template).
func kernelServer(s realserver.Server) kernel.Server {
	k := kernel.Server{
		Address: s.Address, Method: kernel.Method(s.Method), Weight: s.Weight, Upper: s.Upper, Lower: s.Lower,
		Tunnel: kernel.Tunnel{
			Type: kernel.TunnelType(s.Tunnel.Type), Port: s.Tunnel.Port, Flags: kernel.TunnelFlags(s.Tunnel.Checksum),
		},
	}
	if s.Draining {
		k.Weight = 0
	}
	return k
}

func foundServer(k kernel.Server) realserver.Server {
	s := realserver.Server{
		Address: k.Address, Method: realserver.Method(k.Method), Weight: k.Weight, Upper: k.Upper, Lower: k.Lower,
	}
	if k.Method == kernel.Tunnelling { // of others the kernel keeps it and does not look at it
		s.Tunnel = realserver.TunnelOptions{
			Type: realserver.TunnelType(k.Tunnel.Type), Port: k.Tunnel.Port, Checksum: realserver.TunnelChecksum(k.Tunnel.Flags),
		}
	}
	return s
}
