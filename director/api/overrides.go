package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// The words for what an override has a server be.
const (
	StateUp   = "up"
	StateDown = "down"
)

// OverrideServer answers overrideServer.
func (e endpoints) OverrideServer(w http.ResponseWriter, r *http.Request, ref Ref, address Address, p OverrideServerParams) {
	e.changeServer(w, r, ref, address, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request, key director.ServiceKey, addr netip.AddrPort) (director.Outcome, error) {
		var body OverrideOrder
		if err := e.readBody(w, r, &body, maxEdit); err != nil {
			return director.Outcome{}, err
		}
		if body.State != StateUp && body.State != StateDown {
			return director.Outcome{}, invalid(fmt.Sprintf("override: unknown state %.40q: want up or down", body.State), "withdraw the override to leave the server to its checks")
		}
		until, err := body.end(time.Now())
		if err != nil {
			return director.Outcome{}, err
		}
		if !e.offersServer(key, addr) {
			return director.Outcome{}, fmt.Errorf("set server %s of %s: server: %w", key.ServerAddress(addr), key, director.ErrNotFound)
		}
		return e.director.SetOverride(ctx, by, director.Override{Service: key, Server: addr, Up: body.State == StateUp, Until: until})
	})
}

// offersServer reports whether the service is configured with the server, or an agent
// has registered it.
func (h *Handler) offersServer(key director.ServiceKey, addr netip.AddrPort) bool {
	service, err := h.director.Service(key)
	return err == nil && service.Server(key.ServerAddress(addr)) >= 0 || h.hasLeased(key, addr)
}

// hasLeased reports whether an agent has registered the server in the service's pool,
// and the service takes it.
func (h *Handler) hasLeased(key director.ServiceKey, addr netip.AddrPort) bool {
	service, err := h.director.Service(key)
	if err != nil {
		return false
	}
	leased := h.leased(director.State{Services: []director.Service{service}})[key]
	return slices.ContainsFunc(leased, func(s realserver.Server) bool { return s.Address == key.ServerAddress(addr) })
}

// end returns when the order ends that is given now; zero for never.
func (o OverrideOrder) end(now time.Time) (time.Time, error) {
	switch {
	case o.Until != nil && o.For != nil:
		return time.Time{}, invalid("override: until and for exclude each other", "")
	case o.For != nil:
		if *o.For < Duration(time.Second) {
			return time.Time{}, invalid(fmt.Sprintf("override: for %s is out of range: want 1s or more", o.For), "leave it out for no end")
		}
		// What is kept are whole seconds: no less than was asked for.
		return now.Add(time.Duration(*o.For) + time.Second - time.Nanosecond).Truncate(time.Second), nil
	case o.Until != nil:
		until, err := time.Parse(time.RFC3339, *o.Until)
		if err != nil {
			return time.Time{}, invalid(fmt.Sprintf("override: until %.80q is not a time", *o.Until), "write it as 2026-11-22T04:00:00Z, or give a duration: for")
		}
		if !until.After(now) {
			return time.Time{}, invalid(fmt.Sprintf("override: until %s has passed", *o.Until), "leave it out for no end")
		}
		return until, nil
	}
	return time.Time{}, nil
}

// ClearOverride answers clearOverride.
func (e endpoints) ClearOverride(w http.ResponseWriter, r *http.Request, ref Ref, address Address, p ClearOverrideParams) {
	e.changeServer(w, r, ref, address, terms{p.IfMatch, p.ShuntWhy, nil}, func(ctx context.Context, by director.Request, key director.ServiceKey, addr netip.AddrPort) (director.Outcome, error) {
		outcome, err := e.director.ClearOverride(ctx, by, key, addr)
		if errors.Is(err, director.ErrNotFound) && e.offersServer(key, addr) {
			err = newProblem(http.StatusNotFound, "not-overridden", fmt.Sprintf("server %s of %s has no override", key.ServerAddress(addr), key), "`shunt health` shows those that have")
		}
		return outcome, err
	})
}

// overrideModel returns the order that has the server up or down; nil if none does.
func (o observation) overrideModel(key director.ServiceKey, server netip.AddrPort) *Override {
	if order, ok := o.state.Override(key, server); ok {
		return new(orderModel(order))
	}
	return nil
}

func orderModel(order director.Override) Override {
	state := StateDown
	if order.Up {
		state = StateUp
	}
	return Override{State: state, Since: order.Since, Until: given(order.Until), Who: order.Who, Why: order.Why}
}
