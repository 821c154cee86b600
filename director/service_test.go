package director_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// A field that Identical does not look at would be a change that is not stored.
func TestIdentical(t *testing.T) {
	full := web()
	full.Access = director.Access{Allow: prefixes("10.0.0.0/8"), Deny: prefixes("10.1.0.0/16")}
	full.Flags = director.SchedulerFlags{Port: true, Fallback: true, Third: true}
	full.Key = director.ServiceKey{Protocol: full.Key.Protocol, Mark: 7, Address: full.Key.Address, Bits: 24, LastPort: 90}
	full.Persistence = director.Persistence{Timeout: time.Minute, Prefix: 24, Mask: 0xffffff01, Engine: director.EngineSIP}
	full.OnePacket = true
	full.Timeouts = conntrack.Timeouts{TCP: time.Hour, TCPFin: time.Minute, UDP: time.Second}
	full.Rules = director.Rules{
		SloppyTCP: true, ExpireNoDestConn: true, ExpireQuiescentTemplate: true, ConnReuse: director.ReuseNever,
	}
	full.Limits = director.Limits{Rate: 1, Connections: 2, Source: director.SourceLimits{Prefix: 24, Rate: 3, Connections: 4}}
	full.MSS = 1400
	full.Health = director.Health{
		Checks: []realserver.Check{{Kind: realserver.CheckTCP}}, Initial: director.InitialUp, Down: director.DownRemove,
		Established: director.EstablishedCut, Quorum: 2, Hysteresis: 1, Sorry: []realserver.Server{{Weight: 1}}, Panic: 30,
		SlowStart: time.Minute, Damping: director.Damping{Changes: 5, Within: time.Minute, Hold: time.Hour},
		Passive:     director.Passive{Unanswered: 1, Resets: 2, Unreachable: 3, Within: time.Second, Suspend: time.Minute},
		Maintenance: "/m", Load: director.LoadPolicy{Kind: director.LoadLinear, Minimum: 1, Maximum: 300, Silence: time.Minute, SNMP: &realserver.SNMP{Version: realserver.SNMPv2c}}, Pool: "web",
		Notify: director.Notify{Up: []string{"/u"}, Down: []string{"/d"}, QuorumUp: []string{"/qu"}, QuorumDown: []string{"/qd"}, FIFO: "/f"},
	}
	full.Guard = director.SourceGuard{Mode: director.GuardAuto, On: 5, Off: 1}
	full.Servers[1].Upper, full.Servers[1].Lower, full.Servers[1].Draining = 10, 5, true
	full.Servers[1].Tunnel = realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555, Checksum: realserver.TunnelRemoteChecksum}
	if !full.Identical(full.Clone()) {
		t.Error("a clone is not identical")
	}
	// without calls the test for each field of the struct, with it set to zero.
	without := func(part func(*director.Service) reflect.Value) {
		for i := range part(&full).NumField() {
			other := full.Clone()
			field := part(&other).Field(i)
			name := part(&other).Type().Field(i).Name
			if field.IsZero() {
				t.Errorf("%s is not set: the test tells nothing of it", name)
			}
			field.SetZero()
			if full.Identical(other) || other.Identical(full) {
				t.Errorf("%s makes no difference", name)
			}
		}
	}
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(s).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Access).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Flags).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Key).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Persistence).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Timeouts).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Rules).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Limits).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Limits.Source).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Guard).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Health).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Health.Damping).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Health.Passive).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Health.Notify).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Health.Load).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Servers[1]).Elem() })
	without(func(s *director.Service) reflect.Value { return reflect.ValueOf(&s.Servers[1].Tunnel).Elem() })
	reversed := full.Clone()
	slices.Reverse(reversed.Servers)
	if full.Identical(reversed) {
		t.Error("the order of servers makes no difference")
	}
}
