package ipvs

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
	"github.com/shunt-lb/shunt/realserver"
)

// Await waits until the kernel holds the state, as far as Comparable leaves it, and
// returns what it holds else when the time is up: programs that set the kernel up by
// themselves are compared so with what is read of their configuration.
func Await(t testing.TB, want director.State, limit time.Duration) (diff string) {
	t.Helper()
	want = Comparable(want)
	for end := time.Now().Add(limit); ; time.Sleep(time.Second) {
		diff = cmp.Diff(want, Installed(t), cmpopts.EquateComparable(netip.AddrPort{}, netip.Addr{}), cmpopts.EquateEmpty())
		if diff == "" || time.Now().After(end) {
			return diff
		}
	}
}

// Installed returns what the kernel holds at the moment, in the form of Comparable:
// our driver's reading, for which ipvsadm stands (see director/ipvs/kernel).
func Installed(t testing.TB) director.State {
	t.Helper()
	driver, err := kernel.OpenGenetlink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entries, err := driver.Services(t.Context())
	timeouts, errTimeouts := driver.Timeouts(t.Context())
	daemons, errDaemons := driver.SyncDaemons(t.Context())
	if err := errors.Join(err, errTimeouts, errDaemons, driver.Close()); err != nil {
		t.Fatal(err)
	}
	state := director.State{Timeouts: conntrack.Timeouts{TCP: timeouts.TCP, TCPFin: timeouts.TCPFin, UDP: timeouts.UDP}}
	for _, entry := range entries {
		service := serviceOf(entry.Service)
		for _, server := range entry.Servers {
			service.Servers = append(service.Servers, serverOf(server.Server))
		}
		state.Services = append(state.Services, service)
	}
	for _, d := range daemons {
		state.Sync = append(state.Sync, director.SyncDaemon{
			Role: director.SyncRole(d.Role.String()), Interface: d.Interface, ID: d.ID, MaxLength: d.MaxLength, Group: d.Group, Port: d.Port, TTL: d.TTL,
		})
	}
	return Comparable(state)
}

// Comparable returns the state without what the kernel does not know, and with the
// defaults of the timeouts: services without names, whose addresses are somebody
// else's, in director's order, their servers by address.
func Comparable(state director.State) director.State {
	state = state.Normalize()
	for i := range state.Services {
		s := &state.Services[i]
		s.Name, s.VIP = "", director.VIPExternal
		slices.SortFunc(s.Servers, func(a, b realserver.Server) int { return a.Address.Compare(b.Address) })
	}
	return director.State{Services: state.Services, Sync: state.Sync, Timeouts: conntrack.DefaultTimeouts().Merge(state.Timeouts)}
}

func serviceOf(k kernel.Service) director.Service {
	has := func(flag kernel.ServiceFlags) bool { return k.Flags&flag != 0 }
	s := director.Service{
		Key:       director.ServiceKey{Protocol: conntrack.Protocol(k.Protocol), Mark: k.Mark, Address: k.Address},
		Scheduler: director.Scheduler(k.Scheduler), OnePacket: has(kernel.FlagOnePacket),
		Flags: director.SchedulerFlags{Fallback: has(kernel.FlagScheduler1), Port: has(kernel.FlagScheduler2), Third: has(kernel.FlagScheduler3)},
	}
	s.Persistence.Engine = director.Engine(k.Engine)
	if has(kernel.FlagPersistent) {
		s.Persistence.Timeout, s.Persistence.Prefix = k.Timeout, k.Prefix
		if k.OddMask.IsValid() {
			s.Persistence.Mask = director.Mask(binary.BigEndian.Uint32(k.OddMask.AsSlice()))
		}
	}
	return s
}

func serverOf(k kernel.Server) realserver.Server {
	s := realserver.Server{Address: k.Address, Method: realserver.Method(k.Method), Weight: k.Weight, Upper: k.Upper, Lower: k.Lower}
	if k.Method == kernel.Tunnelling { // of others the kernel keeps what there is and does not look at it
		s.Tunnel = realserver.TunnelOptions{
			Type: realserver.TunnelType(k.Tunnel.Type), Port: k.Tunnel.Port, Checksum: realserver.TunnelChecksum(k.Tunnel.Flags),
		}
	}
	return s
}
