package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// defaultPage is how long a page of a list is unless told otherwise.
const defaultPage = 100

// pageSize reads the limit of a list in pages.
func pageSize(limit *int) (int, error) {
	switch {
	case limit == nil:
		return defaultPage, nil
	case *limit < 1 || *limit > maxPage:
		return 0, invalid(fmt.Sprintf("limit %d is out of range: want 1 to %d", *limit, maxPage), "")
	default:
		return *limit, nil
	}
}

// ListServices answers listServices.
func (e endpoints) ListServices(w http.ResponseWriter, r *http.Request, p ListServicesParams) {
	e.readAt(w, func() (any, uint64, error) {
		size, err := pageSize(p.Limit)
		if err != nil {
			return nil, 0, err
		}
		o, err := e.observe(r.Context())
		if err != nil {
			return nil, 0, err
		}
		all := o.all(p.Foreign == nil || *p.Foreign)
		begin := 0
		if p.After != nil {
			after, err := director.ParseFoundKey(*p.After)
			if err != nil {
				return nil, 0, invalid(fmt.Sprintf("after: %v", err), "give the next of the page before")
			}
			begin, _ = slices.BinarySearchFunc(all, after, func(s seen, key director.ServiceKey) int {
				return cmp.Or(s.service.Key.Compare(key), -1) // the first one behind the key
			})
		}
		end := min(begin+size, len(all))
		list := ServiceList{Services: []Service{}, Revision: o.revision}
		for _, s := range all[begin:end] {
			list.Services = append(list.Services, o.model(s))
		}
		if end < len(all) {
			list.Next = all[end-1].service.Key.String()
		}
		return list, o.revision, nil
	})
}

// GetService answers getService.
func (e endpoints) GetService(w http.ResponseWriter, r *http.Request, ref Ref) {
	e.readAt(w, func() (any, uint64, error) {
		o, err := e.observe(r.Context())
		if err != nil {
			return nil, 0, err
		}
		key, err := e.resolve(ref)
		if err != nil && strings.Contains(ref, "://") { // a foreign one has no name
			if foreign, parseErr := director.ParseFoundKey(ref); parseErr == nil {
				key = foreign
			}
		}
		for _, s := range o.all(true) {
			if s.service.Key == key {
				return o.model(s), o.revision, nil
			}
		}
		return nil, 0, cmp.Or(err, about(fmt.Errorf("service %s: %w", key, director.ErrNotFound), "", ProblemCodeNoService))
	})
}

// AddService answers addService.
func (e endpoints) AddService(w http.ResponseWriter, r *http.Request, p AddServiceParams) {
	e.change(w, r, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request) (director.Outcome, string, error) {
		var body ServiceConfig
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return director.Outcome{}, "", err
		}
		service, err := body.service()
		if err != nil {
			return director.Outcome{}, "", err
		}
		outcome, err := e.director.AddService(ctx, by, service)
		return outcome, servicePath(service.Key), about(err, ProblemCodeServiceExists, ProblemCodeNoService)
	})
}

// servicePath returns the path of a service.
func servicePath(key director.ServiceKey) string {
	return "/v1/services/" + url.PathEscape(key.String())
}

// EditService answers editService.
func (e endpoints) EditService(w http.ResponseWriter, r *http.Request, ref Ref, p EditServiceParams) {
	e.changeService(w, r, ref, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request, key director.ServiceKey) (director.Outcome, string, error) {
		var body ServiceEdit
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return director.Outcome{}, "", err
		}
		outcome, err := e.director.EditService(ctx, by, key, body.apply)
		return outcome, "", about(err, "", ProblemCodeNoService)
	})
}

// RemoveService answers removeService.
func (e endpoints) RemoveService(w http.ResponseWriter, r *http.Request, ref Ref, p RemoveServiceParams) {
	e.changeService(w, r, ref, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request, key director.ServiceKey) (director.Outcome, string, error) {
		outcome, err := e.director.RemoveService(ctx, by, key)
		return outcome, "", about(err, "", ProblemCodeNoService)
	})
}

// AddServer answers addServer.
func (e endpoints) AddServer(w http.ResponseWriter, r *http.Request, ref Ref, p AddServerParams) {
	e.changeService(w, r, ref, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request, key director.ServiceKey) (director.Outcome, string, error) {
		var body ServerConfig
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return director.Outcome{}, "", err
		}
		server, err := body.server(key)
		if err != nil {
			return director.Outcome{}, "", err
		}
		outcome, err := e.director.AddServer(ctx, by, key, server)
		return outcome, servicePath(key) + "/servers/" + url.PathEscape(server.Address.String()), e.aboutServer(key, err)
	})
}

// EditServer answers editServer.
func (e endpoints) EditServer(w http.ResponseWriter, r *http.Request, ref Ref, address Address, p EditServerParams) {
	e.changeServer(w, r, ref, address, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request, key director.ServiceKey, addr netip.AddrPort) (director.Outcome, error) {
		var body ServerEdit
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return director.Outcome{}, err
		}
		return e.director.EditServer(ctx, by, key, addr, func(server *realserver.Server) error { return body.apply(server) })
	})
}

// RemoveServer answers removeServer.
func (e endpoints) RemoveServer(w http.ResponseWriter, r *http.Request, ref Ref, address Address, p RemoveServerParams) {
	e.changeServer(w, r, ref, address, terms{p.IfMatch, p.ShuntWhy, nil}, e.director.RemoveServer)
}

// changeService runs a change of the service that a path names.
func (e endpoints) changeService(w http.ResponseWriter, r *http.Request, ref Ref, t terms, run func(context.Context, director.Request, director.ServiceKey) (director.Outcome, string, error)) {
	e.change(w, r, t, func(ctx context.Context, by director.Request) (director.Outcome, string, error) {
		key, err := e.resolve(ref)
		if err != nil {
			return director.Outcome{}, "", err
		}
		return run(ctx, by, key)
	})
}

// changeServer runs a change of the server that a path names.
func (e endpoints) changeServer(w http.ResponseWriter, r *http.Request, ref Ref, address Address, t terms, run func(context.Context, director.Request, director.ServiceKey, netip.AddrPort) (director.Outcome, error)) {
	e.changeService(w, r, ref, t, func(ctx context.Context, by director.Request, key director.ServiceKey) (director.Outcome, string, error) {
		addr, err := parseServerAddress(address, key)
		if err != nil {
			return director.Outcome{}, "", err
		}
		outcome, err := run(ctx, by, key, addr)
		if errors.Is(err, director.ErrNotFound) && e.hasLeased(key, addr) {
			err = newProblem(http.StatusNotFound, "not-found", fmt.Sprintf("server %s of %s came by a lease, and is not configured", key.ServerAddress(addr), key),
				"its agent says its terms; `shunt server drain` takes it out, `shunt pool remove` away")
		}
		return outcome, "", e.aboutServer(key, err)
	})
}
