package api_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// compared are the options by which states are.
var compared = []cmp.Option{
	cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty(),
}

// drawing makes states at random of all that a data plane can be asked for.
type drawing struct {
	*rand.Rand
	features director.Features
}

func (d drawing) maybe() bool { return d.IntN(2) == 0 }

func (d drawing) state() director.State {
	state := director.State{Timeouts: d.timeouts()}
	for i := range d.IntN(6) {
		state.Services = append(state.Services, d.service(i))
	}
	if d.features.Sync {
		for _, role := range []director.SyncRole{director.SyncMaster, director.SyncBackup} {
			if d.maybe() {
				state.Sync = append(state.Sync, d.daemon(role))
			}
		}
	}
	return state
}

func (d drawing) seconds() time.Duration { return time.Duration(1+d.IntN(3600)) * time.Second }

func (d drawing) timeouts() conntrack.Timeouts {
	return conntrack.Timeouts{TCP: d.seconds(), TCPFin: d.seconds(), UDP: d.seconds()}
}

func (d drawing) daemon(role director.SyncRole) director.SyncDaemon {
	daemon := director.SyncDaemon{
		Role: role, Interface: fmt.Sprintf("eth%d", d.IntN(9)), ID: uint8(d.IntN(256)), MaxLength: uint16(d.IntN(2) * 1400),
		Port: uint16(1 + d.IntN(65535)), TTL: uint8(1 + d.IntN(255)), Group: director.DefaultSyncGroup,
	}
	if d.maybe() {
		daemon.Group = netip.MustParseAddr("ff02::81")
	}
	return daemon
}

// service returns the i-th service: the number keeps keys and names apart.
func (d drawing) service(i int) director.Service {
	schedulers := director.Schedulers()
	s := director.Service{
		Key: d.key(i), Scheduler: schedulers[d.IntN(len(schedulers))], VIP: director.VIPManaged,
		Flags: director.SchedulerFlags{Port: d.maybe(), Fallback: d.maybe(), Third: d.maybe()},
	}
	if d.maybe() {
		s.Name = fmt.Sprintf("service-%d", i)
	}
	if d.maybe() {
		s.VIP = director.VIPExternal
	}
	s.OnePacket = s.Key.Protocol == conntrack.UDP && d.maybe()
	if d.maybe() || s.Key.Address.Port() == 0 && !s.Key.IsMark() {
		s.Persistence = director.Persistence{Timeout: d.seconds(), Prefix: uint8(1 + d.IntN(int(s.Key.FullPrefix())))}
		if d.features.Engines && d.maybe() {
			s.Persistence.Engine = director.EngineSIP
		}
	}
	if d.features.Timeouts && d.maybe() {
		s.Timeouts = d.timeouts()
	}
	if d.features.Rules {
		s.Rules = director.Rules{ExpireNoDestConn: d.maybe(), ExpireQuiescentTemplate: d.maybe(), SloppyTCP: s.Key.Protocol == conntrack.TCP && d.maybe()}
	}
	if d.features.Limits && d.maybe() {
		s.Limits = director.Limits{Rate: uint32(d.IntN(director.MaxRate)), Source: director.SourceLimits{Rate: uint32(d.IntN(2) * 50)}}
		if !s.OnePacket {
			s.Limits.Connections, s.Limits.Source.Connections = uint32(d.IntN(9)), uint32(d.IntN(2)*50)
		}
		if !s.Limits.Source.IsZero() {
			s.Limits.Source.Prefix = uint8(1 + d.IntN(int(s.Key.FullPrefix())))
		}
	}
	if d.features.Guard && s.Key.Protocol == conntrack.TCP {
		on := 1 + d.IntN(director.MaxRate)
		s.Guard = [...]director.SourceGuard{
			{}, {Mode: director.GuardOn}, {Mode: director.GuardAuto, On: uint32(on), Off: uint32(1 + d.IntN(on))},
		}[d.IntN(3)]
	}
	if d.features.MSS && s.Key.Protocol == conntrack.TCP && d.maybe() {
		s.MSS = uint16(director.MinMSSIPv6 + d.IntN(100))
	}
	if d.features.Access && d.maybe() && s.Key.Address.Addr().Is4() {
		s.Access.Allow = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	}
	for j := range d.IntN(4) {
		s.Servers = append(s.Servers, d.server(s.Key, s.OnePacket, j))
	}
	return s
}

func (d drawing) key(i int) director.ServiceKey {
	addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)})
	if d.maybe() {
		addr = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", 1+i))
	}
	if d.features.Marks && d.IntN(3) == 0 {
		return director.MarkKey(uint32(1+i+d.IntN(2)<<31), addr)
	}
	protocols := []conntrack.Protocol{conntrack.TCP, conntrack.UDP}
	if d.features.SCTP {
		protocols = append(protocols, conntrack.SCTP)
	}
	key := director.ServiceKey{Protocol: protocols[d.IntN(len(protocols))], Address: netip.AddrPortFrom(addr, uint16(d.IntN(2)*80))}
	if d.features.Ranges && key.Address.Port() != 0 && d.maybe() {
		key.LastPort = 90
	}
	return key
}

func (d drawing) server(key director.ServiceKey, onePacket bool, j int) realserver.Server {
	addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + j)})
	if key.Address.Addr().Is6() {
		addr = netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", 1+j))
	}
	methods := []realserver.Method{realserver.NAT, realserver.DR, realserver.Local}
	if d.features.Tunnels {
		methods = append(methods, realserver.Tunnel)
	}
	if d.features.FullNAT && !onePacket {
		methods = append(methods, realserver.FullNAT)
	}
	s := realserver.Server{Method: methods[d.IntN(len(methods))], Weight: uint32(d.IntN(int(d.features.MaxWeight) + 1))}
	port := key.Address.Port()
	if key.AnyPort() {
		port = 0
	}
	if s.Method.Rewrites() {
		port = uint16(1 + d.IntN(65535))
	}
	s.Address = netip.AddrPortFrom(addr, port)
	if d.maybe() {
		s.Upper = uint32(1 + d.IntN(1000))
		s.Lower = uint32(d.IntN(int(s.Upper)))
	}
	if s.Method == realserver.Tunnel {
		s.Tunnel = [...]realserver.TunnelOptions{
			{},
			{Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksum(d.IntN(2))},
			{Type: realserver.TunnelGUE, Port: uint16(1 + d.IntN(65535)), Checksum: realserver.TunnelChecksum(d.IntN(3))},
		}[d.IntN(3)]
	}
	return s
}
