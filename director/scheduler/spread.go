package scheduler

import (
	"net/netip"

	"github.com/shunt-lb/shunt/conntrack"
)

// Request is one connection that a client makes.
type Request struct{ Client, Virtual netip.AddrPort }

// Hold says what becomes of connections once they are made.
type Hold string

// The ways.
const (
	HoldOpen   Hold = "open"   // they stay established
	HoldClosed Hold = "closed" // each ends before the next is made, and counts as inactive
)

// Spread is what a service made of requests.
type Spread struct {
	Chosen  []netip.AddrPort // for each request; not valid: refused
	Refused int
	Servers []Share // in the order they were added
	// Uneven is how many times its share by weight the server got that got the
	// most for its weight: 1 if all got just that, 0 if no server has a weight.
	Uneven float64
}

// Share is one server's part of a Spread.
type Share struct {
	Server      netip.AddrPort
	Weight      uint32 // as offered
	Connections int
	Expected    float64 // connections, if those that were not refused went by weight
}

// Run makes the connections one after another, and returns where they went. A
// client that makes the same connection again has it already, unless it ended.
func (s *Simulation) Run(requests []Request, hold Hold) Spread {
	spread := Spread{Chosen: make([]netip.AddrPort, len(requests))}
	got := make(map[netip.AddrPort]int)
	for i, r := range requests {
		choice := s.Open(r.Client, r.Virtual)
		spread.Chosen[i] = choice.Server
		if !choice.Server.IsValid() {
			spread.Refused++
			continue
		}
		got[choice.Server]++
		if s.service.Key.Protocol == conntrack.TCP {
			s.Establish(r.Client, r.Virtual)
			if hold == HoldClosed {
				s.Close(r.Client, r.Virtual)
			}
		}
	}
	var weights uint64
	for _, server := range s.servers {
		weights += uint64(server.offered())
	}
	for i := len(s.servers) - 1; i >= 0; i-- {
		share := Share{Server: s.servers[i].address, Weight: s.servers[i].offered(), Connections: got[s.servers[i].address]}
		if weights > 0 {
			share.Expected = float64(len(requests)-spread.Refused) * float64(share.Weight) / float64(weights)
		}
		if share.Expected > 0 {
			spread.Uneven = max(spread.Uneven, float64(share.Connections)/share.Expected)
		}
		spread.Servers = append(spread.Servers, share)
	}
	return spread
}

// Moved is how a change of servers changed the choices for the same requests.
type Moved struct {
	// HadTo were with a server that is gone, or takes no new connections; all
	// others moved without need.
	HadTo, WithoutNeed int
}

// MovedTo compares with the spread of the same requests after a change. Requests
// that were refused before did not move.
func (s Spread) MovedTo(after Spread) Moved {
	usable := make(map[netip.AddrPort]bool)
	for _, share := range after.Servers {
		usable[share.Server] = share.Weight > 0
	}
	var moved Moved
	for i, before := range s.Chosen {
		switch {
		case !before.IsValid() || before == after.Chosen[i]:
		case usable[before]:
			moved.WithoutNeed++
		default:
			moved.HadTo++
		}
	}
	return moved
}
