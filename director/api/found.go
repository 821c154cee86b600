package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// GetFound answers getFound.
func (e endpoints) GetFound(w http.ResponseWriter, r *http.Request) {
	e.readAt(w, func() (any, uint64, error) {
		o, err := e.observe(r.Context())
		if err != nil {
			return nil, 0, err
		}
		found, err := e.director.Found(r.Context())
		if err != nil {
			return nil, 0, err
		}
		return o.found(found, e.director.State()), o.revision, nil
	})
}

// found joins what the kernel holds with what the data plane counts there. It was
// read after what o has as desired, and before what is desired now: what is in
// neither is foreign. A service has the name that the desired one has: the kernel
// knows none.
func (o observation) found(found, now director.State) Found {
	// Not State.Normalize: it takes servers for drained by the orders, of which
	// what is found has none.
	found = found.Clone()
	for i := range found.Services {
		found.Services[i] = asFound(found.Services[i])
	}
	slices.SortFunc(found.Services, func(a, b director.Service) int { return a.Key.Compare(b.Key) })
	model := Found{
		Services: []Service{}, Timeouts: timeoutsModel(found.Timeouts),
		Sync: foundSyncs(found.Sync, slices.Concat(o.state.Sync, now.Sync)),
	}
	ours := make(map[director.ServiceKey]director.Service, len(now.Services))
	for _, service := range slices.Concat(o.state.Services, now.Services) {
		ours[service.Key] = service
	}
	for _, service := range found.Services {
		desired, isOurs := ours[service.Key]
		if service.Name == "" {
			service.Name = desired.Name
		}
		model.Services = append(model.Services, o.model(seen{service: service, foreign: !isOurs}))
	}
	return model
}

// asFound fills in a found service's defaults and leaves its servers where they are:
// one behind nat can have port 0 beside a service's own, which the kernel takes for
// the service's, and which others than Shunt make.
func asFound(s director.Service) director.Service {
	normal := s.Normalize()
	for i, server := range s.Servers {
		normal.Servers[i].Address = server.Address
	}
	return normal
}

// configured returns the server as the director has it, at the address that it has.
func (s Server) configured() (realserver.Server, error) {
	server := realserver.Server{Weight: s.Weight, Upper: s.Upper, Lower: s.Lower, Draining: s.Draining}
	var err error
	if server.Address, err = netip.ParseAddrPort(s.Address); err != nil {
		return server, fmt.Errorf("server %q: %w", s.Address, err)
	}
	if server.Method, err = foundWord(s.Method, "method", realserver.ParseMethod); err != nil {
		return server, fmt.Errorf("server %s: %w", s.Address, err)
	}
	if s.Tunnel == nil {
		return server, nil
	}
	server.Tunnel.Port = s.Tunnel.Port
	if server.Tunnel.Type, err = foundWord(s.Tunnel.Type, "type", realserver.ParseTunnelType); err != nil {
		return server, fmt.Errorf("server %s: %w", s.Address, err)
	}
	if s.Tunnel.Checksum != "" {
		server.Tunnel.Checksum, err = foundWord(s.Tunnel.Checksum, "checksum", realserver.ParseTunnelChecksum)
	}
	if err != nil {
		return server, fmt.Errorf("server %s: %w", s.Address, err)
	}
	return server, nil
}

// foundWord reads a word, or what a number without one is written as, such as
// method-5: the kernel keeps what it was given.
func foundWord[T ~uint8](text, kind string, parse func(string) (T, error)) (T, error) {
	if digits, ok := strings.CutPrefix(text, kind+"-"); ok {
		if n, err := strconv.ParseUint(digits, 10, 8); err == nil {
			return T(n), nil
		}
	}
	return parse(text)
}

// ZeroCounters answers zeroCounters.
func (e endpoints) ZeroCounters(w http.ResponseWriter, r *http.Request) {
	err := func() error {
		var body ZeroOrder
		what := "all counters"
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return err
		}
		var key director.ServiceKey
		if body.Service != "" {
			var err error
			if key, err = e.zeroKey(body.Service); err != nil {
				return fmt.Errorf("set counters to zero: %w", err)
			}
			what = "the counters of " + key.String()
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
		defer cancel()
		if err := e.director.Zero(ctx, key); err != nil {
			return about(fmt.Errorf("set %s to zero: %w", what, err), "", ProblemCodeNoService)
		}
		return nil
	}()
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// zeroKey reads a service's name or URL; a URL may be that of a foreign service.
func (h *Handler) zeroKey(ref string) (director.ServiceKey, error) {
	if strings.Contains(ref, "://") {
		return director.ParseFoundKey(ref)
	}
	return h.resolve(ref)
}
