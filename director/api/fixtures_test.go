package api_test

import (
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// foreignKey is a service that the seeded kernel has and no revision.
var foreignKey = director.ServiceKey{Protocol: conntrack.UDP, Address: netip.MustParseAddrPort("192.0.2.99:53")}

// seededState is a kernel with a foreign service.
func seededState() director.State {
	return director.State{Timeouts: conntrack.DefaultTimeouts(), Services: []director.Service{{
		Key: foreignKey, Scheduler: director.RoundRobin, VIP: director.VIPExternal,
		Servers: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.99:53"), Method: realserver.DR, Weight: 1}},
	}}}
}

// seededStats are what a data plane with the service web says.
func seededStats() director.Stats {
	server := realserver.Server{Address: netip.MustParseAddrPort("10.0.0.11:8080"), Weight: 1}
	return director.Stats{
		Services: []director.ServiceStats{{
			Key: webKey, Counters: director.Counters{Connections: 3, InPackets: 30, InBytes: 3000},
			Servers: []director.ServerStats{{Server: server, Active: 2, Inactive: 5, UDP: 4, Templates: 3, Overloaded: true, Reachable: true}},
		}},
		PacketEvents: []director.PacketEvent{{Name: "no-server", Kind: director.PacketAnswer, Help: "no server", Count: 3}},
		Table:        []director.TableStats{{Family: "ipv4", Limit: 1024}},
		Interfaces:   []director.InterfaceStats{{Name: "eth0", Mode: "native"}},
	}
}

// seededDecision is a template's: every field that can be is set.
func seededDecision() director.Decision {
	address := netip.MustParseAddrPort
	return director.Decision{
		Service: webKey, By: director.ByTemplate, Server: address("10.0.0.11:8080"), Method: realserver.NAT,
		Connection: &conntrack.Connection{
			Protocol: conntrack.TCP, Client: address("198.51.100.0:0"), Virtual: address("192.0.2.10:80"), Server: address("10.0.0.11:8080"),
			Method: "nat", Proven: true, Template: true, Prefix: 24, Controlled: 2, Expires: time.Minute,
		},
		Scheduler: director.SourceHash, Flags: director.SchedulerFlags{Port: true},
		Candidates: []director.Candidate{
			{Server: address("10.0.0.12:80"), Weight: 1, Active: 2, Inactive: 3, Overloaded: true},
			{Server: address("10.0.0.11:8080"), Weight: 3},
		},
		Turn: 1, CurrentWeight: 2, Slot: 171,
	}
}
