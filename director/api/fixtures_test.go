package api_test

import (
	"net/netip"

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
			Servers: []director.ServerStats{{Server: server, Active: 2, Inactive: 5, Reachable: true}},
		}},
		PacketEvents: []director.PacketEvent{{Name: "no-server", Kind: director.PacketAnswer, Help: "no server", Count: 3}},
		Table:        []director.TableStats{{Family: "ipv4", Limit: 1024}},
		Interfaces:   []director.InterfaceStats{{Name: "eth0", Mode: "native"}},
	}
}
