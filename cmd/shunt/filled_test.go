package main

import (
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

var (
	filledWeb = director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.10:80")}
	filledA   = netip.MustParseAddrPort("10.0.0.11:8080")
	filledB   = netip.MustParseAddrPort("10.0.0.12:80")
)

// filledStats are of the seeded service web, persistent and busy.
func filledStats() director.Stats {
	return director.Stats{
		Services: []director.ServiceStats{{
			Key: filledWeb,
			Servers: []director.ServerStats{
				{Server: realserver.Server{Address: filledA}, Active: 2, Inactive: 5, Templates: 1, Overloaded: true, Reachable: true},
				{Server: realserver.Server{Address: filledB}, Active: 1, UDP: 0, Templates: 2, Reachable: true},
			},
		}},
		PacketEvents: []director.PacketEvent{{Name: "no-server", Kind: director.PacketAnswer, Help: "no server can take the connection"}},
	}
}

// filledConnections are two connections of a template, another one, and another
// template, unproven.
func filledConnections() []conntrack.Connection {
	client := netip.MustParseAddrPort
	connection := func(from string, to netip.AddrPort, edit func(*conntrack.Connection)) conntrack.Connection {
		c := conntrack.Connection{
			Protocol: conntrack.TCP, Client: client(from), Virtual: filledWeb.Address, Server: to, Method: "nat",
			State: conntrack.Established, Proven: true, Expires: 899 * time.Second,
		}
		edit(&c)
		return c
	}
	under := func(c *conntrack.Connection) { c.UnderTemplate = true }
	template := func(prefix uint8, controlled uint32, proven bool) func(*conntrack.Connection) {
		return func(c *conntrack.Connection) {
			c.State, c.Template, c.Prefix, c.Controlled, c.Proven = conntrack.None, true, prefix, controlled, proven
			c.Expires = 299 * time.Second
		}
	}
	return []conntrack.Connection{
		connection("198.51.100.7:40001", filledA, under),
		connection("198.51.100.8:40002", filledA, under),
		connection("203.0.113.9:40003", filledB, func(*conntrack.Connection) {}),
		connection("198.51.100.0:0", filledA, template(24, 2, true)),
		connection("203.0.113.0:0", filledB, template(24, 0, false)),
	}
}

// decisionBy is a decision of each kind, and of some schedulers.
func decisionBy(name string) director.Decision {
	d := director.Decision{
		Service: filledWeb, By: director.ByScheduler, Server: filledA, Method: realserver.NAT,
		Scheduler: director.WeightedLeastConnection, Turn: -1, Slot: -1,
		Candidates: []director.Candidate{
			{Server: netip.MustParseAddrPort("10.0.0.13:80"), Weight: 0, Active: 0},
			{Server: filledB, Weight: 1, Active: 1, Inactive: 5, Overloaded: true},
			{Server: filledA, Weight: 3, Active: 2, Inactive: 5},
		},
	}
	connections := filledConnections()
	switch name {
	case "by-connection":
		d.By, d.Connection = director.ByConnection, &connections[0]
	case "by-template":
		d.By, d.Connection = director.ByTemplate, &connections[3]
	case "to-nobody":
		d = director.Decision{By: director.ByNothing, Event: "no-service", Turn: -1, Slot: -1}
	case "refused":
		d.By, d.Event, d.Server = director.ByNothing, "no-server", netip.AddrPort{}
		d.Candidates = d.Candidates[:1]
	case "drained":
		d.By, d.Event, d.Server = director.ByNothing, "no-server", netip.AddrPort{}
		for i := range d.Candidates {
			d.Candidates[i].Weight = 0
		}
	case "wrr":
		d.Scheduler, d.Turn, d.CurrentWeight = director.WeightedRoundRobin, 1, 2
	case "sed":
		d.Scheduler = director.ShortestExpectedDelay
	case "lc":
		d.Scheduler = director.LeastConnection
	case "mh": // of a service of several ports: the server has the client's
		d.Scheduler, d.Flags, d.Slot = director.Maglev, director.SchedulerFlags{Port: true}, 924
		d.Candidates = []director.Candidate{{Server: netip.MustParseAddrPort("10.0.0.11:0"), Weight: 1}}
	}
	return d
}

// seedKernel is seed with what the kernel's IPVS has and XDP lacks, and without
// what it is the other way round.
func (d *daemon) seedKernel() {
	d.seed()
	d.plane = director.PlaneIPVS
	features, err := director.FeaturesOf(d.plane)
	if err != nil {
		panic(err)
	}
	d.fake.SetFeatures(features)
	stats := director.Stats{Info: director.DataplaneInfo{Version: "1.2.1", TableSize: 4096}, Table: []director.TableStats{{Family: "ipv4", Keys: 3}, {Family: "ipv6"}}, Services: []director.ServiceStats{{
		Key: filledWeb, Counters: director.Counters{Connections: 12, InPackets: 96}, Rates: director.Rates{Connections: 1, InPackets: 8, InBytes: 800, OutPackets: 7, OutBytes: 7500},
		Servers: []director.ServerStats{
			{Server: realserver.Server{Address: filledA}, Rates: director.Rates{InPackets: 8}, Active: 2, Reachable: true},
			{Server: realserver.Server{Address: filledB}, Reachable: true},
		},
	}}}
	d.fake.SetStats(stats)
	address := netip.MustParseAddrPort
	d.fake.SetConnections(
		conntrack.Connection{
			Protocol: conntrack.SCTP, Client: address("198.51.100.7:40001"), Virtual: address("192.0.2.10:80"), Server: filledA, Method: "nat",
			State: conntrack.Established, Proven: true, Expires: 899 * time.Second,
		},
		conntrack.Connection{
			Client: address("198.51.100.0:0"), Virtual: address("0.0.0.0:0"), Server: address("10.0.0.11:0"), Method: "tunnel",
			Proven: true, Template: true, Prefix: 24, Controlled: 1, Mark: 7, Expires: 299 * time.Second,
		},
		conntrack.Connection{
			Protocol: conntrack.UDP, Client: address("198.51.100.9:0"), Virtual: address("192.0.2.10:5060"), Server: address("10.0.0.11:5060"), Method: "nat",
			Proven: true, Template: true, Prefix: 32, Mark: 0, Engine: "sip", EngineData: "4711@\x1b[31mphone", Expires: 299 * time.Second,
		},
	)
}

// agedConnections are of the seeded services, and counted one by one.
func agedConnections() []conntrack.Connection {
	one := func(client string, server netip.AddrPort, age, idle time.Duration, packets uint64) conntrack.Connection {
		return conntrack.Connection{
			Protocol: conntrack.TCP, Client: netip.MustParseAddrPort(client), Virtual: filledWeb.Address, Server: server, Method: "nat",
			State: conntrack.Established, Proven: true, Expires: 15*time.Minute - idle, Age: age, Idle: idle,
			Traffic: &conntrack.Traffic{InPackets: packets, InBytes: 80 * packets, OutPackets: 2 * packets, OutBytes: 1400 * packets},
		}
	}
	return []conntrack.Connection{
		one("198.51.100.7:40001", filledA, 30*time.Hour+4*time.Second, 10*time.Minute, 1000),
		one("198.51.100.7:40002", filledB, 2*time.Hour, 500*time.Millisecond, 7),
		one("203.0.113.9:40003", filledB, 5*time.Second, 0, 3),
	}
}
