package api

import (
	"net/http"
	"os"

	"github.com/shunt-lb/shunt/director"
)

func (h *Handler) getStatus(w http.ResponseWriter, r *http.Request) error {
	stats, err := h.director.Stats(r.Context())
	if err != nil {
		return err
	}
	state := h.director.State()
	status := Status{
		Version: h.opts.Version, PID: os.Getpid(), Started: h.opts.Started.UTC(), Dataplane: h.opts.Dataplane,
		Interfaces: interfaceModels(stats.Interfaces), Tables: tableModels(stats.Table),
		Timeouts: timeoutsModel(state.Timeouts), Services: len(state.Services),
	}
	for _, service := range state.Services {
		status.Servers += len(service.Servers)
	}
	for _, service := range stats.Services {
		for _, server := range service.Servers {
			if !server.Reachable {
				status.Unreachable++
			}
		}
	}
	for _, event := range stats.PacketEvents {
		if event.Kind == director.PacketFault {
			status.Faults += event.Count
		}
	}
	return writeJSON(w, http.StatusOK, status)
}

func (h *Handler) getStats(w http.ResponseWriter, r *http.Request) error {
	stats, err := h.director.Stats(r.Context())
	if err != nil {
		return err
	}
	names := map[director.ServiceKey]string{}
	for _, service := range h.director.State().Services {
		names[service.Key] = service.Name
	}
	model := Stats{
		Services: []ServiceStats{}, PacketEvents: []PacketEvent{},
		Tables: tableModels(stats.Table), Interfaces: interfaceModels(stats.Interfaces),
	}
	for _, service := range stats.Services {
		m := ServiceStats{
			Listen: service.Key.String(), Name: names[service.Key],
			Counters: countersModel(service.Counters), Servers: []ServerStats{},
		}
		for _, server := range service.Servers {
			m.Servers = append(m.Servers, ServerStats{
				Address: server.Server.Address.String(), Counters: countersModel(server.Counters),
			})
		}
		model.Services = append(model.Services, m)
	}
	for _, event := range stats.PacketEvents {
		model.PacketEvents = append(model.PacketEvents, PacketEvent{
			Name: event.Name, Kind: string(event.Kind), Count: event.Count, Help: event.Help,
		})
	}
	return writeJSON(w, http.StatusOK, model)
}

func countersModel(c director.Counters) Counters {
	return Counters{
		Connections: c.Connections,
		In:          Traffic{Packets: c.InPackets, Bytes: c.InBytes},
		Out:         Traffic{Packets: c.OutPackets, Bytes: c.OutBytes},
	}
}

func interfaceModels(interfaces []director.InterfaceStats) []Interface {
	models := []Interface{}
	for _, i := range interfaces {
		models = append(models, Interface{Name: i.Name, Mode: i.Mode})
	}
	return models
}

func tableModels(tables []director.TableStats) []Table {
	models := []Table{}
	for _, t := range tables {
		models = append(models, Table{
			Family: t.Family, Limit: t.Limit, Keys: t.Keys, Slots: t.Slots,
			Bytes: t.Bytes, Expired: t.Expired, Corrected: t.Corrected,
		})
	}
	return models
}
