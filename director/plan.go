package director

import (
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// Plan returns the operations that make found what is desired, in an order that
// never needs more room than the larger of the two: timeouts, stops of sync
// daemons, removals of servers, removals of services, starts of sync daemons,
// additions of services, edits of services and servers, additions of servers.
// Services come in the order of their keys,
// servers in that of their service's list, so that the same states give the
// same plan. Both states must be valid.
//
// A server's place in the list is not compared: the kernel cannot move one, and
// removing it to add it again would break its connections. New servers are
// added in the order of Servers, after those that are there (see Settle).
func Plan(desired, found State) []Operation {
	var timeouts, removeServers, removeServices, addServices, edits, addServers []Operation

	if desired.Timeouts != found.Timeouts {
		timeouts = append(timeouts, SetTimeouts{Timeouts: desired.Timeouts})
	}
	stops, starts := planSync(desired.Sync, found.Sync)
	for want, old := range pairs(desired, found) {
		switch {
		case want == nil:
			removeServices = append(removeServices, RemoveService{Key: old.Key})
			continue
		case old == nil:
			addServices = append(addServices, AddService{Service: want.Clone()})
			for _, server := range want.Servers {
				addServers = append(addServers, AddServer{Key: want.Key, Server: server})
			}
			continue
		case !sameSettings(want, old):
			edits = append(edits, EditService{Service: want.Clone()})
		}
		for _, server := range missing(old.Servers, want.Servers) {
			removeServers = append(removeServers, RemoveServer{Key: want.Key, Address: server.Address})
		}
		for _, server := range missing(want.Servers, old.Servers) {
			addServers = append(addServers, AddServer{Key: want.Key, Server: server})
		}
		for _, server := range changed(want.Servers, old.Servers) {
			edits = append(edits, EditServer{Key: want.Key, Server: server})
		}
	}
	return slices.Concat(timeouts, stops, removeServers, removeServices, starts, addServices, edits, addServers)
}

// Settle returns desired with the servers of each service in the order the data
// plane will hold them in after the plan: those that current has in current's
// order, then the others as they come.
func Settle(desired, current State) State {
	desired = desired.Clone()
	have := indexServices(current)
	for _, service := range desired.Services {
		i, ok := have[service.Key]
		if !ok {
			continue
		}
		servers := current.Services[i].Servers
		place := make(map[netip.AddrPort]int, len(servers))
		for j, server := range servers {
			place[server.Address] = j - len(servers) // negative: before the new ones
		}
		slices.SortStableFunc(service.Servers, func(a, b realserver.Server) int {
			return place[a.Address] - place[b.Address]
		})
	}
	return desired
}

// changed returns the servers of wanted that old has otherwise.
func changed(wanted, old []realserver.Server) []realserver.Server {
	if slices.Equal(wanted, old) {
		return nil
	}
	have := indexServers(old)
	var all []realserver.Server
	for _, server := range wanted {
		if is, ok := have[server.Address]; ok && is != server {
			all = append(all, server)
		}
	}
	return all
}

// sameSettings compares what data planes know, but for the servers.
func sameSettings(a, b *Service) bool {
	return a.Key == b.Key && a.Name == b.Name && a.Scheduler == b.Scheduler && a.Flags == b.Flags && a.VIP == b.VIP && a.Access.Equal(b.Access) &&
		a.Persistence == b.Persistence && a.OnePacket == b.OnePacket && a.Timeouts == b.Timeouts && a.Rules == b.Rules &&
		a.Limits == b.Limits && a.Guard == b.Guard && a.MSS == b.MSS
}

// indexServices returns the places of the services.
func indexServices(s State) map[ServiceKey]int {
	index := make(map[ServiceKey]int, len(s.Services))
	for i := range s.Services {
		index[s.Services[i].Key] = i
	}
	return index
}

func indexServers(servers []realserver.Server) map[netip.AddrPort]realserver.Server {
	index := make(map[netip.AddrPort]realserver.Server, len(servers))
	for _, server := range servers {
		index[server.Address] = server
	}
	return index
}
