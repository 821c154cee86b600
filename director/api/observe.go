package api

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"slices"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// GetStatus answers getStatus.
func (e endpoints) GetStatus(w http.ResponseWriter, r *http.Request) {
	e.readAt(w, func() (any, uint64, error) {
		status, err := e.status(r.Context())
		return status, status.Revision, err
	})
}

func (e endpoints) status(ctx context.Context) (Status, error) {
	stats, err := e.director.Stats(ctx)
	if err != nil {
		return Status{}, err
	}
	head, drift := e.director.Head(), e.director.Drift()
	status := Status{
		Version: e.opts.Version, PID: os.Getpid(), Started: e.opts.Started.UTC(), Dataplane: e.opts.Dataplane,
		Info: infoModel(stats.Info), Features: featuresModel(e.director.Features()),
		Revision: head.Number, Interfaces: interfaceModels(stats.Interfaces), Tables: tableModels(stats.Table),
		Timeouts: timeoutsModel(head.State.Timeouts), Services: len(head.State.Services),
		Foreign: len(drift.Foreign), Guarding: guarding(stats.Services), Forwarding: e.opts.Forwarding, Drift: driftSummary(ctx, drift),
	}
	if e.opts.Health != nil {
		status.Health = healthSummary(e.opts.Health.Health())
	}
	if err := e.ready(); err != nil {
		status.NotReady = err.Error()
	}
	status.Ready = status.NotReady == ""
	status.countServers(head.State.Services, e.leased(head.State), stats.Services)
	for _, event := range stats.PacketEvents {
		if event.Kind == director.PacketFault {
			status.Faults += event.Count
		}
	}
	return status, nil
}

// countServers counts the servers of the services, those that agents registered, and
// those of both that the data plane does not reach. It may have seen other services as
// well: foreign ones.
func (s *Status) countServers(services []director.Service, leased map[director.ServiceKey][]realserver.Server, seen []director.ServiceStats) {
	reached := make(map[director.ServiceKey]map[netip.AddrPort]bool, len(seen))
	for _, service := range seen {
		servers := make(map[netip.AddrPort]bool, len(service.Servers))
		for _, server := range service.Servers {
			servers[server.Server.Address] = server.Reachable
		}
		reached[service.Key] = servers
	}
	for _, service := range services {
		registered := leased[service.Key]
		s.Servers += len(service.Servers)
		s.Leased += len(registered)
		for _, server := range slices.Concat(service.Servers, registered) {
			if !reached[service.Key][server.Address] {
				s.Unreachable++
			}
		}
	}
}

// ready says why the daemon is not ready; nil if it is.
func (e endpoints) ready() error {
	if e.opts.Ready != nil {
		return e.opts.Ready()
	}
	if e.director.Head().Number == 0 {
		return errors.New("the director is not started")
	}
	return nil
}

// GetDrift answers getDrift.
func (e endpoints) GetDrift(w http.ResponseWriter, r *http.Request) {
	e.readAt(w, func() (any, uint64, error) {
		revision := e.director.Head().Number // before looking: what is shown is not older
		drift := e.director.Drift()
		summary := driftSummary(r.Context(), drift)
		return Drift{
			Checked: summary.Checked, Found: summary.Found, Repaired: summary.Repaired, Failed: summary.Failed,
			Pending: summary.Pending, Foreign: ConfigurationOf(shown(r.Context(), director.State{Services: drift.Foreign})).Services,
		}, revision, nil
	})
}

func driftSummary(ctx context.Context, d director.Drift) DriftSummary {
	s := DriftSummary{Found: d.Found, Repaired: d.Repaired, Failed: d.Failed, Pending: []PendingRepair{}}
	if !d.Checked.IsZero() {
		s.Checked = new(d.Checked.UTC())
	}
	for _, failure := range d.Pending {
		s.Pending = append(s.Pending, PendingRepair{Step: stepModel(ctx, failure.Step), Cause: failure.Cause})
	}
	return s
}

// GetStats answers getStats.
func (e endpoints) GetStats(w http.ResponseWriter, r *http.Request) {
	e.read(w, func() (any, error) { return e.stats(r.Context()) })
}

func (e endpoints) stats(ctx context.Context) (Stats, error) {
	stats, err := e.director.Stats(ctx)
	if err != nil {
		return Stats{}, err
	}
	names := e.names()
	model := Stats{
		Info: infoModel(stats.Info), Services: []ServiceStats{}, PacketEvents: []PacketEvent{},
		Tables: tableModels(stats.Table), Interfaces: interfaceModels(stats.Interfaces),
	}
	for _, service := range stats.Services {
		name, ours := names[service.Key]
		m := ServiceStats{
			Listen: service.Key.String(), Name: name, Foreign: !ours,
			Counters: countersModel(service.Counters), Rates: ratesModel(service.Rates), Servers: []ServerStats{},
			Refused: refusedModel(service.Refused), GuardStats: guardStatsModel(service.Guard),
		}
		for _, server := range service.Servers {
			m.Servers = append(m.Servers, ServerStats{
				Address: server.Server.Address.String(), Counters: countersModel(server.Counters), Rates: ratesModel(server.Rates),
			})
		}
		model.Services = append(model.Services, m)
	}
	for _, event := range stats.PacketEvents {
		model.PacketEvents = append(model.PacketEvents, PacketEvent{
			Number: event.Number, Name: event.Name, Kind: string(event.Kind), Count: event.Count, Help: event.Help,
		})
	}
	return model, nil
}

// names returns the services' names; the data plane may not know them.
func (h *Handler) names() map[director.ServiceKey]string {
	services := h.director.State().Services
	names := make(map[director.ServiceKey]string, len(services))
	for _, service := range services {
		names[service.Key] = service.Name
	}
	return names
}

func countersModel(c director.Counters) Counters {
	return Counters{
		Connections: c.Connections,
		In:          Traffic{Packets: c.InPackets, Bytes: c.InBytes},
		Out:         Traffic{Packets: c.OutPackets, Bytes: c.OutBytes},
	}
}

func ratesModel(r director.Rates) Rates { return Rates(countersModel(director.Counters(r))) }

func infoModel(i director.DataplaneInfo) DataplaneInfo {
	return DataplaneInfo{Version: i.Version, TableSize: i.TableSize}
}

func featuresModel(f director.Features) Features {
	return Features{
		Marks: f.Marks, SCTP: f.SCTP, Tunnels: f.Tunnels, Engines: f.Engines, Sync: f.Sync, OwnAddresses: f.OwnAddresses,
		Ranges: f.Ranges, Access: f.Access, Timeouts: f.Timeouts, Rules: f.Rules, Kill: f.Kill, Decide: f.Decide,
		Limits: f.Limits, Guard: f.Guard, FullNAT: f.FullNAT, MSS: f.MSS, MaxWeight: f.MaxWeight,
	}
}

func interfaceModels(interfaces []director.InterfaceStats) []Interface {
	models := []Interface{}
	for _, i := range interfaces {
		models = append(models, Interface{Name: i.Name, Mode: string(i.Mode)})
	}
	return models
}
