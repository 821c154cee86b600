package director

import (
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// Plan returns the operations that make found what is desired, in an order that
// never needs more room than the larger of the two: timeouts, removals of
// servers, removals of services, additions of services, edits of services and
// servers, additions of servers. Services come in the order of their keys,
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
	before := indexServices(found)
	wanted := indexServices(desired)
	for _, old := range sortedServices(found) {
		want, ok := wanted[old.Key]
		if !ok {
			removeServices = append(removeServices, RemoveService{Key: old.Key})
			continue
		}
		keep := indexServers(want)
		for _, server := range old.Servers {
			if _, ok := keep[server.Address]; !ok {
				removeServers = append(removeServers, RemoveServer{Key: old.Key, Address: server.Address})
			}
		}
	}
	for _, want := range sortedServices(desired) {
		old, ok := before[want.Key]
		switch {
		case !ok:
			addServices = append(addServices, AddService{Service: want.Clone()})
		case !sameSettings(want, old):
			edits = append(edits, EditService{Service: want.Clone()})
		}
		have := indexServers(old)
		for _, server := range want.Servers {
			is, ok := have[server.Address]
			switch {
			case !ok:
				addServers = append(addServers, AddServer{Key: want.Key, Server: server})
			case is != server:
				edits = append(edits, EditServer{Key: want.Key, Server: server})
			}
		}
	}
	return slices.Concat(timeouts, removeServers, removeServices, addServices, edits, addServers)
}

// Settle returns desired with the servers of each service in the order the data
// plane will hold them in after the plan: those that current has in current's
// order, then the others as they come.
func Settle(desired, current State) State {
	desired = desired.Clone()
	have := indexServices(current)
	for i := range desired.Services {
		place := make(map[netip.AddrPort]int)
		for j, server := range have[desired.Services[i].Key].Servers {
			place[server.Address] = j - len(have[desired.Services[i].Key].Servers) // negative: before the new ones
		}
		slices.SortStableFunc(desired.Services[i].Servers, func(a, b realserver.Server) int {
			return place[a.Address] - place[b.Address]
		})
	}
	return desired
}

// sameSettings compares everything but the servers.
func sameSettings(a, b Service) bool {
	return a.Key == b.Key && a.Name == b.Name && a.Scheduler == b.Scheduler && a.Flags == b.Flags && a.VIP == b.VIP && a.Access.Equal(b.Access)
}

func sortedServices(s State) []Service {
	return slices.SortedStableFunc(slices.Values(s.Services), func(a, b Service) int { return a.Key.Compare(b.Key) })
}

func indexServices(s State) map[ServiceKey]Service {
	index := make(map[ServiceKey]Service, len(s.Services))
	for _, service := range s.Services {
		index[service.Key] = service
	}
	return index
}

func indexServers(s Service) map[netip.AddrPort]realserver.Server {
	index := make(map[netip.AddrPort]realserver.Server, len(s.Servers))
	for _, server := range s.Servers {
		index[server.Address] = server
	}
	return index
}
