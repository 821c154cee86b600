package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

func (h *Handler) listServices(w http.ResponseWriter, r *http.Request) error {
	services, err := h.observe(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, ServiceList{Services: services})
}

func (h *Handler) getService(w http.ResponseWriter, r *http.Request) error {
	key, err := h.director.Resolve(r.PathValue("ref"))
	if err != nil {
		return err
	}
	services, err := h.observe(r.Context())
	if err != nil {
		return err
	}
	for _, service := range services {
		if service.Listen == key.String() {
			return writeJSON(w, http.StatusOK, service)
		}
	}
	return fmt.Errorf("service %s: %w", key, director.ErrNotFound)
}

func (h *Handler) addService(w http.ResponseWriter, r *http.Request) error {
	var body ServiceConfig
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	service, err := body.service()
	if err != nil {
		return err
	}
	ctx, cancel := change(r)
	defer cancel()
	if _, err := h.director.AddService(ctx, director.Request{}, service); err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/services/"+url.PathEscape(service.Key.String()))
	return writeJSON(w, http.StatusCreated, serviceConfig(service.Normalize()))
}

func (h *Handler) editService(w http.ResponseWriter, r *http.Request) error {
	key, err := h.director.Resolve(r.PathValue("ref"))
	if err != nil {
		return err
	}
	var body ServiceEdit
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	ctx, cancel := change(r)
	defer cancel()
	var edited director.Service
	_, err = h.director.EditService(ctx, director.Request{}, key, func(service *director.Service) error {
		err := body.apply(service)
		edited = service.Clone()
		return err
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, serviceConfig(edited.Normalize()))
}

func (h *Handler) removeService(w http.ResponseWriter, r *http.Request) error {
	key, err := h.director.Resolve(r.PathValue("ref"))
	if err != nil {
		return err
	}
	ctx, cancel := change(r)
	defer cancel()
	if _, err := h.director.RemoveService(ctx, director.Request{}, key); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) addServer(w http.ResponseWriter, r *http.Request) error {
	key, err := h.director.Resolve(r.PathValue("ref"))
	if err != nil {
		return err
	}
	var body ServerConfig
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	server, err := body.server(key)
	if err != nil {
		return err
	}
	ctx, cancel := change(r)
	defer cancel()
	if _, err := h.director.AddServer(ctx, director.Request{}, key, server); err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, serverConfig(server))
}

func (h *Handler) editServer(w http.ResponseWriter, r *http.Request) error {
	key, address, err := h.serverPath(r)
	if err != nil {
		return err
	}
	var body ServerEdit
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	ctx, cancel := change(r)
	defer cancel()
	var edited realserver.Server
	_, err = h.director.EditServer(ctx, director.Request{}, key, address, func(server *realserver.Server) error {
		err := body.apply(server)
		edited = *server
		return err
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, serverConfig(edited))
}

func (h *Handler) removeServer(w http.ResponseWriter, r *http.Request) error {
	key, address, err := h.serverPath(r)
	if err != nil {
		return err
	}
	ctx, cancel := change(r)
	defer cancel()
	if _, err := h.director.RemoveServer(ctx, director.Request{}, key, address); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serverPath reads the service and the server a path names.
func (h *Handler) serverPath(r *http.Request) (director.ServiceKey, netip.AddrPort, error) {
	key, err := h.director.Resolve(r.PathValue("ref"))
	if err != nil {
		return key, netip.AddrPort{}, err
	}
	address, err := parseServerAddress(r.PathValue("address"), key)
	return key, address, err
}

// observe joins the services with what the data plane sees of them. A server
// the data plane says nothing about is unreachable, and says so.
func (h *Handler) observe(ctx context.Context) ([]Service, error) {
	stats, err := h.director.Stats(ctx)
	if err != nil {
		return nil, err
	}
	seen := make(map[director.ServiceKey][]director.ServerStats, len(stats.Services))
	for _, service := range stats.Services {
		seen[service.Key] = service.Servers
	}
	services := []Service{}
	for _, service := range h.director.State().Services {
		config := serviceConfig(service)
		model := Service{
			Listen: config.Listen, Name: config.Name, Scheduler: config.Scheduler,
			Flags: config.Flags, VIP: config.VIP, Servers: []Server{},
		}
		for _, server := range service.Servers {
			model.Servers = append(model.Servers, serverModel(server, seen[service.Key]))
		}
		services = append(services, model)
	}
	return services, nil
}

func serverModel(server realserver.Server, seen []director.ServerStats) Server {
	model := Server{
		Address: server.Address.String(), Method: server.Method.String(), Weight: server.Weight,
		Reason: "not in the data plane",
	}
	i := slices.IndexFunc(seen, func(o director.ServerStats) bool { return o.Server.Address == server.Address })
	if i < 0 {
		return model
	}
	model.Active, model.Inactive = seen[i].Active, seen[i].Inactive
	model.Reachable, model.Reason = seen[i].Reachable, seen[i].Reason
	return model
}
