package ipvs

import (
	"net/netip"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// memory is what was written that the kernel has no place for. It counts only as
// far as the kernel's values confirm it, and is empty after a start: the director's
// first operations fill it without a write to the kernel.
type memory struct {
	services map[director.ServiceKey]*remembered
}

// remembered is what is known of one service.
type remembered struct {
	name string
	vip  director.VIPOwner
	// servers are those that drain: their weight is 0 in the kernel.
	servers map[netip.AddrPort]realserver.Server
}

func newMemory() memory {
	return memory{services: make(map[director.ServiceKey]*remembered)}
}

// service returns what is known of the service, of which something is to be
// remembered.
func (m *memory) service(key director.ServiceKey) *remembered {
	r := m.services[key]
	if r == nil {
		r = &remembered{vip: director.VIPExternal, servers: make(map[netip.AddrPort]realserver.Server)}
		m.services[key] = r
	}
	return r
}

// isManaged says whether a service has the address put on the host.
func (m *memory) isManaged(p netip.Prefix) bool {
	for key, r := range m.services {
		if managed, ok := managedPrefix(key, r.vip); ok && managed == p {
			return true
		}
	}
	return false
}

// managedPrefix is what Shunt puts on the host for a service, if anything: a
// service of a firewall mark has no address.
func managedPrefix(key director.ServiceKey, owner director.VIPOwner) (netip.Prefix, bool) {
	if owner != director.VIPManaged || key.IsMark() {
		return netip.Prefix{}, false
	}
	return key.Prefix(), true
}
