package keepalived

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

// settle fills in what was not said, as keepalived does at the end of the text
// (keepalived: check_parser.c, vs_end_handler; check_data.c,
// validate_check_config).
func (v *virtual) settle() {
	v.settleFamily()
	byAddress, byMark := v.mark == 0 && v.group == nil, v.mark != 0
	allPorts := byAddress && v.port == 0
	if v.group != nil {
		for _, e := range v.group.entries {
			byAddress, byMark = byAddress || e.mark == 0, byMark || e.mark != 0
			allPorts = allPorts || e.mark == 0 && e.port == 0
		}
	}
	if byAddress && v.protocol == 0 {
		v.protocol = conntrack.UDP
		v.assume("protocol udp", "none is given, and keepalived takes UDP")
	}
	if !byAddress && v.protocol != 0 {
		v.assume("protocol "+v.protocol.String(), "a service of a firewall mark has packets of any protocol: keepalived ignores it")
	}
	if byAddress && v.onePacket && v.protocol != conntrack.UDP {
		v.onePacket = false
		v.assume("ops", "one-packet scheduling is for UDP: keepalived takes it away")
	}
	if allPorts && v.timeout == 0 {
		v.timeout = defaultTimeout
		v.assume("persistence_timeout", fmt.Sprintf("a service of all ports must be persistent: keepalived makes it so, for %d s", defaultTimeout))
	}
	if v.madePersistent != nil {
		v.note(translation.Assumed, v.madePersistent, fmt.Sprintf("keepalived makes the service persistent by it, for %d s", defaultTimeout))
	}
	if v.timeout == 0 && v.engine != "" {
		v.assume("persistence_engine "+v.engine, "the service is not persistent: keepalived ignores the engine")
	}
	if v.scheduler == "" {
		v.scheduler = director.WeightedLeastConnection
		v.assume("lvs_sched wlc", "none is given, and keepalived takes wlc")
	}
	v.settleMethods()
	v.settlePolicy()
	v.settleQuorum()
}

// settleFamily finds the family of a mark's service whose servers are all reached
// by tunnels: theirs if they have the same, or else IPv4.
func (v *virtual) settleFamily() {
	if v.family != unknown || v.group != nil {
		return
	}
	servers := v.servers
	if v.sorry != nil {
		servers = append([]*real{v.sorry}, servers...)
	}
	for _, r := range servers {
		switch f := familyOf(r.addr); v.family {
		case unknown, f:
			v.family = f
		default:
			v.family = inet
			return
		}
	}
}

// settleMethods gives the servers that came before the service's method that
// method, and those that never get one NAT.
func (v *virtual) settleMethods() {
	servers := v.servers
	if v.sorry != nil {
		servers = append(slices.Clone(servers), v.sorry)
	}
	for _, r := range servers {
		if !r.weightSet {
			r.weight = v.weight
		}
		if r.method.set {
			continue
		}
		if !v.method.set {
			v.method = method{set: true, method: realserver.NAT}
			v.assume("lvs_method NAT", "none is given, and keepalived takes NAT")
		}
		r.method = v.method
	}
}

// size returns how many services the virtual server is.
func (v *virtual) size() int {
	if v.group == nil {
		return 1
	}
	size := 0
	for _, e := range v.group.entries {
		size += max(1, len(e.addresses))
	}
	return size
}

// services returns the services: several if the virtual server is a group's.
// users is how many virtual servers have the group.
func (v *virtual) services(users int) []translation.Service {
	var all []translation.Service
	shared := &translation.Shared{Notes: v.notes}
	add := func(key director.ServiceKey) {
		s := translation.Service{At: v.n.at, What: v.n.String()}
		s.Service = director.Service{
			Key: key, Name: v.name, Scheduler: v.scheduler, Flags: v.flags, OnePacket: v.onePacket,
			// keepalived's VRRP, or somebody else, owns the address.
			VIP: director.VIPExternal, Persistence: v.persistenceOf(key),
		}
		for _, r := range v.servers {
			server, notes := realServerOf(r, key)
			s.AddServer(server, translation.Source{At: r.n.at, What: r.n.String(), Asked: v.askedOf(&s, r, server)})
			s.Notes = append(s.Notes, notes...)
		}
		s.Health = v.healthOf(&s)
		s.Shared = []*translation.Shared{shared}
		all = append(all, s)
	}
	switch {
	case v.group != nil:
		for _, e := range v.group.entries {
			if e.mark != 0 {
				add(v.markKey(e.mark, e.family))
			}
			for _, addr := range e.addresses {
				add(director.ServiceKey{Protocol: v.protocol, Address: netip.AddrPortFrom(addr, e.port)})
			}
		}
		v.nameGroup(all, users)
	case v.mark != 0:
		add(v.markKey(v.mark, unknown))
	default:
		add(director.ServiceKey{Protocol: v.protocol, Address: netip.AddrPortFrom(v.addr, v.port)})
	}
	return all
}

// markKey returns the key of a mark's service; without a family of its own it has
// the servers', or IPv4.
func (v *virtual) markKey(mark uint32, f family) director.ServiceKey {
	if f == unknown {
		f = v.family
	}
	if f == inet6 {
		return director.MarkKey(mark, netip.IPv6Unspecified())
	}
	return director.MarkKey(mark, netip.IPv4Unspecified())
}

// nameLength leaves room for a number behind a group's name.
const nameLength = 57

// nameGroup names the services of a group by the group, the protocol if another
// virtual server has the group, and a number if there are several.
func (v *virtual) nameGroup(services []translation.Service, users int) {
	name := v.name
	if name == "" {
		name = translation.Name(v.group.name)
		if users > 1 {
			name += "-" + v.protocol.String()
		}
	}
	if name == "" {
		return
	}
	name = name[:min(len(name), nameLength)]
	for i := range services {
		services[i].Name = name
		if len(services) > 1 {
			services[i].Name = fmt.Sprintf("%s-%d", name, i+1)
		}
	}
}

func (v *virtual) persistenceOf(key director.ServiceKey) director.Persistence {
	if v.timeout == 0 {
		return director.Persistence{}
	}
	p := director.Persistence{
		Timeout: time.Duration(v.timeout) * time.Second, Prefix: key.FullPrefix(), Engine: director.Engine(v.engine),
	}
	if v.granularity.family == familyOf(key.Address.Addr()) {
		p.Prefix = v.granularity.bits
	}
	return p
}

// realServerOf returns the server as the service has it, and notes on how. The port
// is the service's but with NAT: there is no other way (keepalived: ipvswrapper.c,
// ipvs_group_cmd and ipvs_cmd).
func realServerOf(r *real, key director.ServiceKey) (realserver.Server, []translation.Note) {
	server := realserver.Server{
		Address: netip.AddrPortFrom(r.addr, r.port), Method: r.method.method,
		Weight: r.weight, Upper: r.upper, Lower: r.lower,
	}
	if server.Method == realserver.Tunnel {
		server.Tunnel = r.method.tunnel
	}
	if server.Method == realserver.NAT {
		return server, nil
	}
	var notes []translation.Note
	note := func(why string) {
		notes = append(notes, translation.Note{
			Position: r.n.at, Kind: translation.Assumed, What: r.n.String(), Why: why, Server: netip.AddrPortFrom(r.addr, r.port),
		})
	}
	switch {
	case r.port == 0 || r.port == key.Address.Port():
	case key.IsMark():
		note(fmt.Sprintf("the method does not rewrite packets: keepalived takes no port instead of %d", r.port))
	default:
		note(fmt.Sprintf("the method does not rewrite packets: keepalived takes the service's port instead of %d", r.port))
	}
	server.Address = netip.AddrPortFrom(r.addr, 0)
	server, local := translation.Local(key, server)
	if local {
		note(translation.IsLocal)
	}
	return server, notes
}
