package ipvs

import (
	"context"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// Stats reads the counters of all services, foreign ones included. The kernel names
// no packet events, is attached to no interfaces, and routes to every server, so that
// all are reachable. Its one table has no limit: Keys are the connections and
// templates that servers of services of the family have.
func (d *Dataplane) Stats(ctx context.Context) (director.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var stats director.Stats
	if err := d.check(ctx); err != nil {
		return stats, err
	}
	info, err := d.driver.Info(ctx)
	if err != nil {
		return stats, err
	}
	entries, err := d.driver.Services(ctx)
	if err != nil {
		return stats, err
	}
	stats.Info = director.DataplaneInfo{Version: info.Version, TableSize: info.TableSize}
	v4, v6 := director.TableStats{Family: "ipv4"}, director.TableStats{Family: "ipv6"}
	seen := overload{}
	for i := range entries {
		service := d.serviceStats(&entries[i], seen)
		table := &v4
		if service.Key.Address.Addr().Is6() {
			table = &v6
		}
		for _, s := range service.Servers {
			table.Keys += s.Active + s.Inactive + s.Templates
		}
		stats.Services = append(stats.Services, service)
	}
	d.overload = seen // servers that are gone are forgotten
	slices.SortFunc(stats.Services, func(a, b director.ServiceStats) int { return a.Key.Compare(b.Key) })
	stats.Table = []director.TableStats{v4, v6}
	return stats, nil
}

func (d *Dataplane) serviceStats(entry *kernel.ServiceEntry, seen overload) director.ServiceStats {
	stats := director.ServiceStats{
		Key: serviceKey(entry.ServiceID), Counters: director.Counters(entry.Stats.Counters), Rates: director.Rates(entry.Stats.Rates),
	}
	known := d.memory.services[stats.Key]
	for _, k := range slices.Backward(entry.Servers) { // in the order they were added
		at := member{stats.Key, k.Address}
		server := director.ServerStats{
			Server: known.server(k.Server), Counters: director.Counters(k.Stats.Counters), Rates: director.Rates(k.Stats.Rates),
			Active: uint64(k.Active), Inactive: uint64(k.Inactive), Templates: uint64(k.Persistent),
			Overloaded: isOverloaded(&k, d.overload[at]), Reachable: true,
		}
		if stats.Key.Protocol == conntrack.UDP {
			server.UDP = server.Inactive
		}
		if server.Overloaded {
			seen[at] = true
		}
		stats.Servers = append(stats.Servers, server)
	}
	return stats
}

// member is a server of a service.
type member struct {
	service director.ServiceKey
	server  netip.AddrPort
}

// overload is which servers were overloaded when their counts were last read.
type overload map[member]bool

// isOverloaded follows the flag that the kernel has and does not tell: set at the
// upper threshold, taken away below the lower one (kernel:
// net/netfilter/ipvs/ip_vs_conn.c, ip_vs_bind_dest and ip_vs_unbind_dest). Between
// the two it is as at the last reading, so that what came and went between two
// readings is missed.
func isOverloaded(s *kernel.ServerEntry, before bool) bool {
	has := uint64(s.Active) + uint64(s.Inactive)
	switch {
	case s.Upper == 0:
		return false
	case has >= uint64(s.Upper):
		return true
	case s.Lower != 0:
		return before && has >= uint64(s.Lower)
	default:
		return before && 4*has >= 3*uint64(s.Upper)
	}
}
