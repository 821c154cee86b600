package metrics

import (
	"github.com/shunt-lb/shunt/director"
)

// addHead shows the newest revision.
func (s scrape) addHead(head director.Revision) {
	s.add(nameRevision, float64(head.Number))
	s.add(nameRevisionTime, seconds(head.Time))
	servers := 0
	for _, service := range head.State.Services {
		servers += len(service.Servers)
		s.add(nameServiceInfo, 1, service.Key.String(), service.Name, string(service.Scheduler))
	}
	s.add(nameServices, float64(len(head.State.Services)))
	s.add(nameServers, float64(servers))
	up := 0
	for _, order := range head.State.Overrides {
		if order.Up {
			up++
		}
	}
	s.add(nameOverrides, float64(up), "up")
	s.add(nameOverrides, float64(len(head.State.Overrides)-up), "down")
}

// addDrift shows what the reconciliations saw.
func (s scrape) addDrift(drift director.Drift) {
	s.add(nameDriftFound, float64(drift.Found))
	s.add(nameDriftRepaired, float64(drift.Repaired))
	s.add(nameDriftFailed, float64(drift.Failed))
	s.add(nameDriftPending, float64(len(drift.Pending)))
	s.add(nameForeign, float64(len(drift.Foreign)))
	s.add(nameLastReconcile, seconds(drift.Checked))
}

// addStats shows the data plane.
func (s scrape) addStats(stats director.Stats) {
	for _, service := range stats.Services {
		s.addService(service)
	}
	s.add(nameDataplaneInfo, 1, stats.Info.Version)
	s.add(nameDataplaneTable, float64(stats.Info.TableSize))
	for _, p := range stats.PacketEvents {
		s.add(namePacketEvents, float64(p.Count), p.Name, string(p.Kind))
	}
	for _, t := range stats.Table {
		s.add(nameTableKeys, float64(t.Keys), t.Family)
		if t.Slots > 0 { // a limit of 0 would be taken for one that is reached
			s.add(nameTableSlots, float64(t.Slots), t.Family)
			s.add(nameTableLimit, float64(t.Limit), t.Family)
			s.add(nameTableBytes, float64(t.Bytes), t.Family)
			s.add(nameTablePressure, t.Pressure, t.Family)
			s.add(nameTableRefused, float64(t.Refused), t.Family)
		}
		if t.FullIn > 0 { // 0 would be now
			s.add(nameTableFullIn, t.FullIn.Seconds(), t.Family)
		}
		s.add(nameTableExpired, float64(t.Expired), t.Family)
		s.add(nameTableCorrected, float64(t.Corrected), t.Family)
	}
	if len(stats.Table) > 0 && stats.Table[0].SweepPeriod > 0 { // one sweep goes over all tables
		s.add(nameSweepPeriod, stats.Table[0].SweepPeriod.Seconds())
		s.add(nameSweepShare, stats.Table[0].SweepShare)
	}
	for _, i := range stats.Interfaces {
		s.add(nameInterface, one(i.Mode != director.InterfaceGone), i.Name, string(i.Mode))
	}
}

// addDrops shows what was dropped; nothing, if that cannot be read.
func (s scrape) addDrops(drops []director.Drop, err error) {
	if err != nil {
		return
	}
	// A service that is gone may have another of its name beside it.
	type labels struct{ reason, kind, service, iface string }
	sums := map[labels]uint64{}
	for _, d := range drops {
		l := labels{d.Reason, string(d.Kind), "", d.Interface}
		if d.Service != (director.ServiceKey{}) {
			l.service = d.Service.String()
		}
		sums[l] += d.Packets
	}
	for l, n := range sums {
		s.add(nameDrops, float64(n), l.reason, l.kind, l.service, l.iface)
	}
}

// addService shows a service and its servers.
func (s scrape) addService(stats director.ServiceStats) {
	service := stats.Key.String()
	available, active, inactive := 0, uint64(0), uint64(0)
	for _, server := range stats.Servers {
		if server.Reachable && server.Server.Weight > 0 && !server.Overloaded && !server.Server.Draining {
			available++
		}
		active += server.Active
		inactive += server.Inactive
		s.addServer(service, server)
	}
	s.add(nameServiceServers, float64(len(stats.Servers)), service)
	s.add(nameServiceReady, float64(available), service)
	s.add(nameServiceActive, float64(active), service)
	s.add(nameServiceIdle, float64(inactive), service)
	c := stats.Counters
	s.add(nameServiceConns, float64(c.Connections), service)
	s.add(nameServicePackets, float64(c.InPackets), service, "in")
	s.add(nameServicePackets, float64(c.OutPackets), service, "out")
	s.add(nameServiceBytes, float64(c.InBytes), service, "in")
	s.add(nameServiceBytes, float64(c.OutBytes), service, "out")
	if stats.Refused == nil {
		return // there are neither limits nor guards
	}
	for limit, n := range stats.Refused {
		s.add(nameServiceRefused, float64(n), service, limit)
	}
	s.add(nameGuardOn, one(stats.Guard.On), service)
	s.add(nameGuardAsked, float64(stats.Guard.Challenged), service)
	s.add(nameGuardValid, float64(stats.Guard.Validated), service)
}

func (s scrape) addServer(service string, stats director.ServerStats) {
	server := stats.Server.Address.String()
	c := stats.Counters
	s.add(nameServerConns, float64(c.Connections), service, server)
	s.add(nameServerPackets, float64(c.InPackets), service, server, "in")
	s.add(nameServerPackets, float64(c.OutPackets), service, server, "out")
	s.add(nameServerBytes, float64(c.InBytes), service, server, "in")
	s.add(nameServerBytes, float64(c.OutBytes), service, server, "out")
	s.add(nameServerActive, float64(stats.Active), service, server)
	s.add(nameServerIdle, float64(stats.Inactive), service, server)
	s.add(nameServerUDP, float64(stats.UDP), service, server)
	s.add(nameServerTemplate, float64(stats.Templates), service, server)
	s.add(nameServerWeight, float64(stats.Server.Weight), service, server)
	s.add(nameServerReach, one(stats.Reachable), service, server)
	s.add(nameServerOverload, one(stats.Overloaded), service, server)
	s.add(nameServerDraining, one(stats.Server.Draining), service, server)
}

// one returns 1 for true, 0 for false: how a metric says yes or no.
func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
